"""Pruned models beside the original, or beside another reference: perplexity and KL on held-out text, with intervals.

The other ways to compare have files of their own and are offered here too: one text token by token (`reading`), what each model writes
(`generation`), speed and memory (`timing`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import heldout_texts, prepare
from replaceme_core.comparison.generation import Writer, stream
from replaceme_core.comparison.next_token import context_length, divergences, encode, log_probabilities
from replaceme_core.comparison.reading import Expected, Reading, TokenDifference, read, token_differences
from replaceme_core.comparison.timing import Speed, device_name, speed, speeds
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.progress import SILENT, Progress

__all__ = [
    "Divergence",
    "Expected",
    "Reading",
    "Speed",
    "TokenDifference",
    "Writer",
    "context_length",
    "device_name",
    "divergence",
    "encode",
    "heldout_sequences",
    "log_probabilities",
    "read",
    "speed",
    "speeds",
    "stream",
    "token_differences",
]
_RESAMPLES = 1000


@dataclass(frozen=True)
class Divergence:
    """How far a model's next-token distributions lie from the reference's. Intervals: 95 %, bootstrap over sequences."""

    name: str
    perplexity: float
    perplexity_low: float
    perplexity_high: float
    kl: float
    """mean KL(reference || model) per token, in nats"""
    kl_low: float
    kl_high: float
    agreement: float
    """share of tokens whose most likely next token is the reference's"""
    n_tokens: int
    n_sequences: int
    ratio: float | None = None
    """perplexity / the reference's on the same text"""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """the interval is paired: each resample draws the same sequences for both, so it is much narrower than those of the two alone"""


def heldout_sequences(handle: ModelHandle, max_tokens: int = 4096, texts: list[str] | None = None) -> list[Tensor]:
    """Token sequences of the demo's held-out text, or of `texts`, for `divergence`."""
    section = CalibrationSection(max_tokens=max_tokens)
    return list(prepare(section, handle.tokenizer, heldout_texts() if texts is None else texts, "held-out").sequences)


def divergence(reference: ModelHandle, others: list[ModelHandle], sequences: list[Tensor], progress: Progress = SILENT) -> list[Divergence]:
    """Perplexity of every model and KL to the reference (as a rule the original), the reference first. All must share the vocabulary."""
    models = [reference, *others]
    rows: list[list[Tensor]] = [[] for _ in models]
    for index, sequence in enumerate(sequences):
        base = log_probabilities(reference, sequence)
        for row, handle in zip(rows, models, strict=True):
            row.append(_sums(base, base if handle is reference else log_probabilities(handle, sequence), sequence))
        progress.update(index + 1, len(sequences), "sequences", "perplexity and KL")
    tables = [torch.stack(row) for row in rows]
    return [_summary(handle.name, table, tables[0]) for handle, table in zip(models, tables, strict=True)]


def _sums(reference: Tensor, own: Tensor, sequence: Tensor) -> Tensor:
    """[tokens, sum of negative log-likelihood, sum of KL, agreements] of one sequence."""
    likelihood = own.gather(-1, sequence[1:].unsqueeze(-1)).sum()
    agreements = (own.argmax(-1) == reference.argmax(-1)).sum()
    return torch.stack([torch.tensor(float(len(own))).double(), -likelihood, divergences(reference, own).sum(), agreements.double()])


def _summary(name: str, rows: Float64[Tensor, "sequences sums"], reference: Float64[Tensor, "sequences sums"]) -> Divergence:
    tokens, likelihood, kl, agreements = rows.unbind(1)
    n, lost = float(tokens.sum()), likelihood - reference[:, 1]
    (low, high), (kl_low, kl_high), (less, more) = (_interval(sums, tokens) for sums in (likelihood, kl, lost))
    return Divergence(
        name=name,
        perplexity=_exp(float(likelihood.sum()) / n),
        perplexity_low=_exp(low),
        perplexity_high=_exp(high),
        kl=float(kl.sum()) / n,
        kl_low=kl_low,
        kl_high=kl_high,
        agreement=float(agreements.sum()) / n,
        n_tokens=int(n),
        n_sequences=len(rows),
        ratio=_exp(float(lost.sum()) / n),
        ratio_low=_exp(less),
        ratio_high=_exp(more),
    )


def _interval(sums: Tensor, counts: Tensor) -> tuple[float, float]:
    """95 % percentile bootstrap of sum / count, resampling sequences."""
    from scipy.stats import bootstrap

    if len(sums) < 2 or bool((sums == 0).all()):
        value = float(sums.sum() / counts.sum())
        return value, value
    result = bootstrap(
        (sums.numpy(), counts.numpy()),
        lambda total, n, axis=-1: total.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=0,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _exp(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).exp())
