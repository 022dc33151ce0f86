"""The cosine objective, exact form: min mean 1 - cos(M T + Y, H_end) (arXiv 2505.02819, the cosine estimate).

Solved by reweighted least squares on the stored train tokens, started from weighted least squares. With u = M T + Y,
s = |u|, t = H_end / |H_end| and c = cos(u, t), one step is the weighted least-squares problem with token weight c / s^2
and row target t s / c - Y; its fixed points have zero gradient. The step with the least held-out loss is kept, the start
included, so that the result is never worse on held-out tokens than what it started from.
"""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span, TokenSample
from replaceme_core.errors import NumericsError
from replaceme_core.solvers import least_squares
from replaceme_core.solvers.evidence import report

_STEPS = 8
_LEAST_COSINE = 0.05
"""tokens that point elsewhere would get a negative weight"""
_ENOUGH = 1e-6
"""gain of the train loss under which the iteration ends"""


@dataclass(frozen=True, eq=False)
class CosineTokens:
    """One part's stored tokens for one span: M, Y and the unit target."""

    written: Float64[Tensor, "tokens width"]
    beside: Float64[Tensor, "tokens width"]
    unit: Float64[Tensor, "tokens width"]

    @classmethod
    def of(cls, sample: TokenSample, span: Span) -> "CosineTokens":
        written = sample.writers[span.carrier].double()
        end = sample.boundaries[span.end].double()
        return cls(written, sample.boundaries[span.start].double() - written, end / end.norm(dim=-1, keepdim=True).clamp_min(1e-30))

    def loss(self, matrix: Float64[Tensor, "width width"]) -> float:
        """mean 1 - cos(M T + Y, H_end)"""
        patched = self.written @ matrix + self.beside
        return float((1 - torch.nn.functional.cosine_similarity(patched, self.unit, dim=-1)).mean())


def solve(measurement: Measurement, span: Span, ridge: float | None = None) -> LinearTransform:
    """Reweighted least squares. `ridge` None takes that of the weighted least-squares start."""
    began = time.perf_counter()
    start = least_squares.solve_weighted(measurement, span, ridge)
    assert start.matrix is not None
    ridge = start.report.ridge
    train, heldout = tokens_of(measurement, span)
    matrix = best = start.matrix
    least, previous, condition, taken = heldout.loss(best), train.loss(best), start.report.condition, 0
    for step in range(1, _STEPS + 1):
        matrix, condition = _step(train, matrix, ridge)
        now = train.loss(matrix)
        if heldout.loss(matrix) < least:
            best, least, taken = matrix, heldout.loss(matrix), step
        if previous - now < _ENOUGH:
            break
        previous = now
    moments = measurement.moments[span, "end_norm"]
    notes = start.report.notes
    if taken == 0:
        notes += ("No step lowered the held-out loss, so this is the weighted least-squares transform; use more calibration tokens.",)
    seconds = time.perf_counter() - began
    evidence = report(
        measurement, span, moments, best, condition=condition, rank=start.report.rank, ridge=ridge, seconds=seconds, notes=notes
    )
    return LinearTransform(span, "cosine", best, evidence)


def tokens_of(measurement: Measurement, span: Span) -> tuple[CosineTokens, CosineTokens]:
    """The stored train and held-out tokens. Raises `NumericsError` if the store is smaller than the width."""
    store = measurement.train_sample
    width = store.boundaries[0].shape[1]
    if store.n_tokens < width:
        raise NumericsError(
            f"The cosine fit needs its tokens at hand: {store.n_tokens} are stored for a width of {width}. "
            "Use more calibration tokens or a larger memory budget, or choose least squares, which needs none stored."
        )
    return CosineTokens.of(store, span), CosineTokens.of(measurement.sample, span)


def _step(tokens: CosineTokens, matrix: Tensor, ridge: float) -> tuple[Tensor, float]:
    """One weighted least-squares problem; returns T and the condition number of what was solved."""
    patched = tokens.written @ matrix + tokens.beside
    size = patched.norm(dim=-1).clamp_min(1e-30)
    cosine = ((patched * tokens.unit).sum(-1) / size).clamp_min(_LEAST_COSINE)
    target = tokens.unit * (size / cosine).unsqueeze(-1) - tokens.beside
    weighted = tokens.written * (cosine / size.square()).unsqueeze(-1)
    spectrum = least_squares.decompose(weighted.T @ tokens.written, weighted.T @ target)
    return spectrum.solve(ridge), spectrum.condition(ridge)
