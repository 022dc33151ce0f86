"""Calibration text that the model writes itself, sampled from its own distribution (the paper's best set by perplexity)."""

import torch

from replaceme_core.errors import InputError
from replaceme_core.handle import ModelHandle
from replaceme_core.models import memory
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.progress import SILENT, Progress

_BATCH = 16
_ROUNDS_WITHOUT_TEXT = 8


def generate(handle: ModelHandle, section: CalibrationSection, progress: Progress = SILENT) -> list[str]:
    """Texts of at most `max_length` tokens, `max_tokens` in all, sampled at temperature 1 from the beginning of text."""
    tokenizer = handle.tokenizer
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise InputError("This model has neither a token that begins nor one that ends a text, so it cannot start by itself; give it text.")
    texts: list[str] = []
    done = empty = 0
    while done < section.max_tokens:
        less = f"shorter texts (max_length, now {section.max_length}); or, for the weights, {memory.HOLD_LESS}"
        with memory.told("to let the model write text", less), handle.borrow() as model, torch.random.fork_rng(devices=[]):
            torch.manual_seed(section.seed + len(texts))
            start = torch.full((_BATCH, 1), first, device=model.device)
            written = model.generate(
                input_ids=start,
                attention_mask=torch.ones_like(start),
                max_new_tokens=section.max_length - 1,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = [text for text in tokenizer.batch_decode(written, skip_special_tokens=True) if text.strip()]
        empty = 0 if new else empty + 1
        if empty == _ROUNDS_WITHOUT_TEXT:
            raise InputError("The model ends every text at once, so it gives no calibration text; choose another calibration set.")
        texts += new
        done += sum(len(tokenizer(text, verbose=False)["input_ids"]) for text in new)
        progress.update(min(done, section.max_tokens), section.max_tokens, "tokens", "the model generates its calibration text")
    return texts
