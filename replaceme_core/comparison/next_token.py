"""One text through one model: its tokens, and what the model expects next after each. How far two models' expectations lie apart is
measured by `models.divergence`.

Models are borrowed for one forward pass at a time, so that several users of one model take turns.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.text_files import token_ids
from replaceme_core.errors import InputError
from replaceme_core.models.running.divergence import log_likelihoods, require_finite

SHORTER = f"a shorter text; or, for the weights, {memory.HOLD_LESS}"
TOP = 5
_BROKEN = "\ufffd"
"""what a decoder puts where bytes are no whole character"""


def encode(handle: ModelHandle, text: str, room: int = 1) -> Int64[Tensor, " length"]:
    """Token ids of a prompt. Raises `InputError` when it is empty, or leaves no `room` for as many tokens in the context."""
    ids = token_ids(text, handle.tokenizer) if text.strip() else []
    if not ids:
        raise InputError("The prompt is empty; write a few words.")
    if len(ids) + room > context_length(handle):
        raise InputError(f"The prompt has {len(ids)} tokens, the model reads at most {context_length(handle)}; shorten it.")
    return torch.tensor(ids, dtype=torch.long)


def context_length(handle: ModelHandle) -> int:
    """Positions the model was built for."""
    with handle.borrow() as model:
        return int(getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or 2048)


def logits_of(handle: ModelHandle, ids: Int64[Tensor, " length"], last: int | None = None) -> Float[Tensor, "positions vocabulary"]:
    """What the model says after each token but the last of one sequence, in its own precision and on its device.

    `last`: only after so many of them. Raises `NumericsError` where that is not finite.
    """
    with memory.told(f"to compare the next-token probabilities of {len(ids):,} tokens", SHORTER):
        with handle.borrow() as model, torch.no_grad():
            logits: Tensor = model(input_ids=ids.unsqueeze(0).to(model.device), use_cache=False).logits[0, :-1]
        logits = logits if last is None else logits[-last:]
        if len(logits):
            require_finite(logits, handle.name)
        return logits


def likeliest(handle: ModelHandle, row: Float[Tensor, " vocabulary"], n: int = TOP) -> list[tuple[str, float]]:
    """The `n` most likely tokens of one position's logits with their probabilities."""
    ids = row.topk(min(n, len(row))).indices
    shares = log_likelihoods(row.unsqueeze(0), ids.unsqueeze(0))[0].exp()
    return [(handle.tokenizer.decode([i]), p) for i, p in zip(ids.tolist(), shares.tolist(), strict=True)]


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """What each token adds to the text, so that the pieces add up to it.

    A character of several tokens (an emoji, often) comes whole with the last of them; those before it add nothing. Each step decodes
    only the tokens since the last but one whole character, with which a decoder knows where a space belongs.
    """
    found, start, whole = [], 0, 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[start:end])
        if text.endswith(_BROKEN) and end < len(ids):
            found.append("")
            continue
        found.append(text[len(tokenizer.decode(ids[start:whole])) :])
        start, whole = whole, end
    return found
