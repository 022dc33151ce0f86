"""One text through one model: its tokens, what the model expects next after each, and how far two such expectations lie apart.

Models are borrowed for one forward pass at a time, so that several users of one model take turns.
"""

from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.errors import InputError
from replaceme_core.models import memory

SHORTER = f"a shorter text; or, for the weights, {memory.HOLD_LESS}"
TOP = 5
_BROKEN = "\ufffd"
"""what a decoder puts where bytes are no whole character"""


def encode(handle: ModelHandle, text: str, room: int = 1) -> Int64[Tensor, " length"]:
    """Token ids of a prompt. Raises `InputError` when it is empty, or leaves no `room` for as many tokens in the context."""
    ids = handle.tokenizer(text, verbose=False)["input_ids"] if text.strip() else []
    if not ids:
        raise InputError("The prompt is empty; write a few words.")
    if len(ids) + room > context_length(handle):
        raise InputError(f"The prompt has {len(ids)} tokens, the model reads at most {context_length(handle)}; shorten it.")
    return torch.tensor(ids, dtype=torch.long)


def context_length(handle: ModelHandle) -> int:
    """Positions the model was built for."""
    return handle.context_length


def log_probabilities(
    handle: ModelHandle, ids: Int64[Tensor, " length"], last: int | None = None
) -> Float64[Tensor, "positions vocabulary"]:
    """log p(next token) after each token but the last of one sequence; `last`: only after so many of them."""
    with memory.told(f"to compare the next-token probabilities of {len(ids):,} tokens", SHORTER):
        with handle.borrow() as model, torch.no_grad():
            logits = model(input_ids=ids.unsqueeze(0).to(model.device), use_cache=False).logits[0, :-1]
        scores: Tensor = (logits if last is None else logits[-last:]).cpu().double()
        return scores.log_softmax(-1)


def divergences(
    left: Float64[Tensor, "positions vocabulary"], right: Float64[Tensor, "positions vocabulary"]
) -> Float64[Tensor, " positions"]:
    """KL(left || right) of every position, in nats, of log-probabilities; terms of probability 0 count nothing."""
    return (left.exp() * (left - right)).nan_to_num(nan=0.0).sum(-1).clamp_min(0)


def likeliest(handle: ModelHandle, row: Float64[Tensor, " vocabulary"], n: int = TOP) -> list[tuple[str, float]]:
    """The `n` most likely tokens of one position with their probabilities."""
    values, ids = row.exp().topk(min(n, len(row)))
    return [(handle.tokenizer.decode([i]), p) for i, p in zip(ids.tolist(), values.tolist(), strict=True)]


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
