"""Ridge least squares in closed form (arXiv 2505.02819, the least-squares estimate), plain or token-weighted.

T = (M'M + a I)^-1 M'Z from the moments alone. One eigendecomposition of M'M serves every ridge a, gives the rank and
the condition number, and stands in for a pseudo-inverse where M'M is singular: nothing is inverted blindly.
The weighted form uses token weights 1/|H_end|^2: it minimises the *relative* error of each token.
"""

import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import FitMoments, LinearTransform, Measurement, Span, SpanMoments, Weighting
from replaceme_core.errors import NumericsError
from replaceme_core.solvers.evidence import report

RIDGES: tuple[float, ...] = tuple(10.0**k for k in range(-8, 3))
"""the ridge path, relative to the mean eigenvalue of M'M"""
_ILL_CONDITIONED = 1e12
_SCARCE = 10
"""tokens per row of T under which the report warns"""


@dataclass(frozen=True)
class RidgePoint:
    """One point of the ridge path."""

    ridge: float
    train_error: float
    heldout_error: float


@dataclass(frozen=True, eq=False)
class Spectrum:
    """M'M = V diag(values) V', and V'M'Z."""

    values: Float64[Tensor, " width"]
    vectors: Float64[Tensor, "width width"]
    rotated: Float64[Tensor, "width width"]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def rank(self) -> int:
        return int((self.values > self._floor).sum())

    @property
    def _floor(self) -> float:
        """Eigenvalues below this are rounding errors of the fp64 sums."""
        return float(self.values[-1]) * len(self.values) * torch.finfo(torch.float64).eps

    def condition(self, ridge: float) -> float:
        """Of M'M + a I; infinite where M'M alone is singular."""
        shift = ridge * self.mean
        least = float(self.values[0]) + shift
        return float(self.values[-1] + shift) / least if least > max(self._floor, 0.0) else float("inf")

    def solve(self, ridge: float) -> Float64[Tensor, "width width"]:
        """T for one ridge; directions without signal stay at zero when the ridge is zero (the pseudo-inverse)."""
        shifted = self.values.clamp_min(0) + ridge * self.mean
        inverse = torch.where(shifted > self._floor, 1 / shifted, 0.0)
        return self.vectors @ (inverse.unsqueeze(1) * self.rotated)


def solve_plain(measurement: Measurement, span: Span, ridge: float | None = None) -> LinearTransform:
    """Least squares with uniform token weights, the paper's form."""
    return _solve(measurement, span, "least_squares", "uniform", ridge)


def solve_weighted(measurement: Measurement, span: Span, ridge: float | None = None) -> LinearTransform:
    """Least squares with token weights 1/|H_end|^2."""
    return _solve(measurement, span, "weighted_least_squares", "end_norm", ridge)


def ridge_path(moments: FitMoments) -> list[RidgePoint]:
    """Train and held-out error along `RIDGES`, from one decomposition."""
    spectrum = spectrum_of(moments.train)
    points = []
    for ridge in RIDGES:
        matrix = spectrum.solve(ridge)
        points.append(RidgePoint(ridge, moments.train.error(matrix), moments.heldout.error(matrix)))
    return points


@lru_cache(maxsize=8)
def spectrum_of(moments: SpanMoments) -> Spectrum:
    """The eigendecomposition of one Gram matrix; the last few are kept, so that moving the ridge costs one product."""
    return decompose(moments.gram, moments.cross)


def decompose(gram: Float64[Tensor, "width width"], cross: Float64[Tensor, "width width"]) -> Spectrum:
    """The eigendecomposition of M'M beside M'Z. Raises `NumericsError` where M is zero."""
    values, vectors = torch.linalg.eigh(gram)
    if not values[-1] > 0:
        raise NumericsError(
            "The carrier's MLP writes only zeros on this calibration set, so no transform can be fitted; choose another span start."
        )
    return Spectrum(values, vectors, vectors.T @ cross)


def _solve(measurement: Measurement, span: Span, method: str, weighting: Weighting, ridge: float | None) -> LinearTransform:
    began = time.perf_counter()
    moments = measurement.moments[span, weighting]
    spectrum = spectrum_of(moments.train)
    if ridge is None:
        ridge = min(ridge_path(moments), key=lambda point: point.heldout_error).ridge
    _require_enough(moments.train.n_tokens, spectrum, ridge)
    matrix = spectrum.solve(ridge)
    evidence = report(
        measurement,
        span,
        moments,
        matrix,
        condition=spectrum.condition(ridge),
        rank=spectrum.rank,
        ridge=ridge,
        seconds=time.perf_counter() - began,
        notes=_notes(moments, spectrum, ridge),
    )
    return LinearTransform(span, method, matrix, evidence)


def _require_enough(n_tokens: int, spectrum: Spectrum, ridge: float) -> None:
    width = len(spectrum.values)
    if n_tokens < width and ridge == 0:
        raise NumericsError(
            f"{n_tokens} calibration tokens for a width of {width} (rank {spectrum.rank}): without a ridge the fit is not determined. "
            f"Use at least {width} tokens, better {_SCARCE * width}, or a ridge above 0 (now 0)."
        )


def _notes(moments: FitMoments, spectrum: Spectrum, ridge: float) -> tuple[str, ...]:
    """Warnings in plain words."""
    width, n = len(spectrum.values), moments.train.n_tokens
    notes = []
    if n < _SCARCE * width:
        notes.append(
            f"Only {n:,} tokens for a width of {width}: use {_SCARCE * width:,} or more, or trust the held-out error rather than the train error."
        )
    if ridge == 0 and spectrum.rank < width:
        notes.append(
            f"The MLP output spans {spectrum.rank} of {width} directions, so the pseudo-inverse was used; a ridge above 0 makes the fit unique."
        )
    elif spectrum.condition(ridge) > _ILL_CONDITIONED:
        notes.append(f"Ill-conditioned (condition {spectrum.condition(ridge):.0e}): raise the ridge (now {ridge:g}) or use more tokens.")
    return tuple(notes)
