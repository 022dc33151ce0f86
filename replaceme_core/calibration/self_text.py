"""Calibration text that the model writes itself, sampled from its own distribution (the paper's best set by perplexity).

Every round of texts draws from a generator of its own, on the CPU, so that no round repeats another one, the text is the same whatever
else the process draws, and the process's generators, a GPU's included, stay as they were.
"""

import torch
from torch import Tensor

from replaceme_core.errors import InputError, NumericsError
from replaceme_core.handle import ModelHandle
from replaceme_core.models import memory
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.progress import SILENT, Progress

_BATCH = 16
_ROUNDS_WITHOUT_TEXT = 8
_ROUNDS = 1_000_003
"""seeds between two seeds of a plan: rounds of different seeds are different too"""


def generate(handle: ModelHandle, section: CalibrationSection, progress: Progress = SILENT) -> list[str]:
    """Texts of at most `max_length` tokens, `max_tokens` in all, sampled at temperature 1 from the beginning of text.

    Raises `InputError` for a model that cannot begin by itself or writes nothing, `NumericsError` for one that is not finite.
    """
    tokenizer = handle.tokenizer
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise InputError("This model has neither a token that begins nor one that ends a text, so it cannot start by itself; give it text.")
    less = f"shorter texts (max_length, now {section.max_length}); or, for the weights, {memory.HOLD_LESS}"
    texts: list[str] = []
    done = empty = number = 0
    while done < section.max_tokens:
        generator = torch.Generator().manual_seed(section.seed * _ROUNDS + number)
        with memory.told("to let the model write text", less):
            written = _round(handle, first, min(section.max_length, handle.context_length), generator)
        new = [text for text in tokenizer.batch_decode(written, skip_special_tokens=True) if text.strip()]
        number, empty = number + 1, 0 if new else empty + 1
        if empty == _ROUNDS_WITHOUT_TEXT:
            raise InputError("The model ends every text at once, so it gives no calibration text; choose another calibration set.")
        texts += new
        done += sum(len(tokenizer(text, verbose=False)["input_ids"]) for text in new)
        progress.update(min(done, section.max_tokens), section.max_tokens, "tokens", "the model writes its calibration text")
    return texts


def _round(handle: ModelHandle, first: int, length: int, generator: torch.Generator) -> list[list[int]]:
    """Token ids of one batch of texts, without the tokens that end them. The model is borrowed for one token of each at a time."""
    ends = torch.tensor(sorted(handle.end_tokens), dtype=torch.long)
    ids, cache = torch.full((_BATCH, 1), first), None
    going = torch.ones(_BATCH, dtype=torch.bool)
    texts: list[list[int]] = [[first] for _ in range(_BATCH)]
    for _ in range(length - 1):
        with handle.borrow() as model, torch.no_grad():
            step = model(input_ids=ids.to(model.device), past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        ids = _drawn(step.logits[:, -1], generator)
        going &= ~torch.isin(ids.squeeze(1), ends)
        for index in going.nonzero().squeeze(1).tolist():
            texts[index].append(int(ids[index]))
        if not going.any():
            break
    return texts


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One token id for every row, [rows, 1], on the CPU."""
    chances = logits.float().cpu().softmax(-1)
    if not chances.isfinite().all():
        raise NumericsError("The model's own probabilities are not finite, so it cannot write text; load it in float32 or bfloat16.")
    return torch.multinomial(chances, 1, generator=generator)
