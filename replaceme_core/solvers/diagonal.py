"""Least squares with a diagonal T: one factor per channel. The only structure that merges behind a norm (its gain takes it).

Each channel is a fit of its own, t_i = sum w m_i z_i / (sum w m_i^2 + a), from the diagonals of the moments.
"""

import time

import torch

from replaceme_core.artifacts import FitMoments, LinearTransform, Measurement, Span, SpanMoments
from replaceme_core.errors import NumericsError
from replaceme_core.solvers.evidence import report
from replaceme_core.solvers.least_squares import RIDGES, RidgePoint


def solve(measurement: Measurement, span: Span, ridge: float | None = None) -> LinearTransform:
    """Diagonal least squares with token weights 1/|H_end|^2."""
    began = time.perf_counter()
    moments = measurement.moments[span, "end_norm"]
    if ridge is None:
        ridge = min(ridge_path(moments), key=lambda point: point.heldout_error).ridge
    power = moments.train.gram.diagonal()
    if not power.max() > 0:
        raise NumericsError(
            "The carrier writes only zeros on this calibration set, so no transform can be fitted; choose another span start."
        )
    shifted = power + ridge * power.mean()
    evidence = report(
        measurement,
        span,
        moments,
        _matrix(moments.train, ridge),
        condition=float(shifted.max() / shifted.min()),
        rank=int((power > 0).sum()),
        ridge=ridge,
        seconds=time.perf_counter() - began,
    )
    return LinearTransform(span, "diagonal", _matrix(moments.train, ridge), evidence)


def ridge_path(moments: FitMoments) -> list[RidgePoint]:
    """Train and held-out error along `RIDGES`."""
    fits = ((ridge, _matrix(moments.train, ridge)) for ridge in RIDGES)
    return [RidgePoint(ridge, moments.train.error(matrix), moments.heldout.error(matrix)) for ridge, matrix in fits]


def _matrix(moments: SpanMoments, ridge: float) -> torch.Tensor:
    power, cross = moments.gram.diagonal(), moments.cross.diagonal()
    shifted = power + ridge * power.mean()
    return torch.diag(torch.where(shifted > 0, cross / shifted, 0.0))
