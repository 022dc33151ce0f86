"""What every solver reports beside its transform: errors on both parts, and cosines over the held-out token sample."""

from math import isnan
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from replaceme_core.artifacts import FitMoments, FitReport, Measurement, Span
from replaceme_core.errors import NumericsError


def report(
    measurement: Measurement,
    span: Span,
    moments: FitMoments,
    matrix: Float64[Tensor, "width width"] | None,
    unknowns: int | None = None,
    **solved: Any,
) -> FitReport:
    """The report of one fit; `solved` holds what only the solver knows (condition, rank, ridge, seconds, notes)."""
    fitted, removed = heldout_cosines(measurement, span, matrix)
    if isnan(moments.heldout.error(matrix)):
        raise NumericsError(
            f"The held-out error of the fit at {span} is not a number (NaN), so that it cannot be judged. Raise the ridge, use more calibration "
            "tokens (max_tokens), or choose another method."
        )
    return FitReport(
        n_tokens=moments.train.n_tokens,
        n_heldout_tokens=moments.heldout.n_tokens,
        unknowns=0 if matrix is None else matrix.numel() if unknowns is None else unknowns,
        train_error=moments.train.error(matrix),
        heldout_error=moments.heldout.error(matrix),
        removal_error=moments.heldout.error(None),
        heldout_cosine=fitted,
        removal_cosine=removed,
        **solved,
    )


def heldout_cosines(measurement: Measurement, span: Span, matrix: Float64[Tensor, "width width"] | None) -> tuple[float, float]:
    """Mean cos(M T + Y, H_end) and mean cos(H_start, H_end) over the held-out token sample."""
    sample = measurement.sample
    start, end = sample.boundaries[span.start].double(), sample.boundaries[span.end].double()
    removed = float(cosine_similarity(start, end, dim=-1).mean())
    if matrix is None:
        return removed, removed
    written = sample.writers[span.carrier].double()
    patched = start + written @ (matrix - torch.eye(len(matrix), dtype=matrix.dtype))
    return float(cosine_similarity(patched, end, dim=-1).mean()), removed
