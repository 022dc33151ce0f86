"""One text as several models read it: at every token, what each expected there and how far that lies from the reference."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.comparison import vocabulary
from replaceme_core.comparison.next_token import encode, likeliest, pieces
from replaceme_core.comparison.together import Together
from replaceme_core.models.running.divergence import divergences, log_likelihoods
from replaceme_core.models.running.limits import require_readable
from replaceme_core.progress import SILENT, Progress

MOST = 400
"""tokens of a text that are read one by one, its last ones: a page cannot show more"""
_SAID = "reading the text"


@dataclass(frozen=True)
class Expected:
    """What one model expects at the place of one token, before it sees it."""

    kl: float
    """KL(reference || this model) of the next-token distributions, in nats"""
    share: float
    """the probability that it gives to the token that stands there"""
    rank: int
    """the place of that token among all, 1 for the most likely"""
    top: list[tuple[str, float]]
    """its five most likely tokens with their probabilities"""


@dataclass(frozen=True)
class Reading:
    """A text, or its last part, as several models read it."""

    tokens: list[str]
    skipped: int
    """tokens of the text before the first of these"""
    expected: list[list[Expected | None]]
    """by model, the reference first, then by token; None for the first token of a text, which nothing predicts"""

    def mean_kl(self, model: int) -> float:
        """Mean KL to the reference over the predicted tokens."""
        known = [item.kl for item in self.expected[model] if item is not None]
        return sum(known) / len(known) if known else 0.0


@dataclass(frozen=True)
class TokenDifference:
    """What the original (or another reference) and one other model expect at the place of one token of a text."""

    token: str
    kl: float
    """KL(original || other) of the distribution that predicts this token, in nats; 0 for the first"""
    top_original: list[tuple[str, float]]
    top_other: list[tuple[str, float]]


def read(
    reference: ModelHandle, others: list[ModelHandle], ids: Int64[Tensor, " length"], last: int = MOST, progress: Progress = SILENT
) -> Reading:
    """How all of them read the last `last` tokens of a text given as `ids`; blocks that they share are run once, and at most two models' logits
    of some positions are in memory at once.

    All models must share the tokenizer. `encode` makes ids of a text; what a model wrote is read as the tokens that it wrote, since
    its text can have other tokens.
    """
    skipped = max(0, len(ids) - last)
    told = pieces(reference.tokenizer, ids.tolist())[skipped:]
    models = [reference, *others]
    size, _ = vocabulary.common(reference, others)
    for handle in models:
        require_readable(handle, [ids])
    vocabulary.require_shared([ids], size)
    found: list[list[Expected | None]] = [[None] if skipped == 0 else [] for _ in models]
    progress.update(0, len(models), "models", _SAID)
    if len(ids) > 1:
        ends = Together(models, ids, size).read(ids.unsqueeze(0))
        parts = ends.parts(torch.arange(max(0, len(ids) - 1 - len(told)), len(ids) - 1))
        for part, positions in enumerate(parts):
            base = ends.logits(0, positions)
            for number, handle in enumerate(models):
                own = base if handle is reference else ends.logits(number, positions)
                found[number] += _expected(handle, base, own, ids[positions + 1])
                progress.update(round((part * len(models) + number + 1) / len(parts), 2), len(models), "models", _SAID)
    return Reading(told, skipped, found)


def token_differences(original: ModelHandle, other: ModelHandle, text: str) -> list[TokenDifference]:
    """Each token of `text` with the KL at its place and both models' five most likely tokens there."""
    ids = encode(original, text, room=0)
    found = read(original, [other], ids, last=len(ids))
    return [
        TokenDifference(token, right.kl, left.top, right.top) if left and right else TokenDifference(token, 0.0, [], [])
        for token, left, right in zip(found.tokens, *found.expected, strict=True)
    ]


def _expected(handle: ModelHandle, base: Tensor, own: Tensor, ids: Tensor) -> list[Expected | None]:
    """`ids` are the tokens that the rows of `base` and `own` predict."""
    kl, ids = divergences(base, own).tolist(), ids.to(own.device)
    shares = log_likelihoods(own, ids).exp().tolist()
    ranks = (own > own.gather(-1, ids.unsqueeze(-1))).sum(-1) + 1
    return [Expected(kl[at], shares[at], int(ranks[at]), likeliest(handle, own[at])) for at in range(len(ids))]
