"""One eigendecomposition of a Gram matrix: it serves every ridge, gives rank and condition, and stands in for a pseudo-inverse.

Also what every closed form offers, whatever the structure of T.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import FitMoments, SpanMoments
from replaceme_core.errors import NumericsError
from replaceme_core.solvers.recent import recent

RIDGES: tuple[float, ...] = tuple(10.0**k for k in range(-8, 3))
"""the ridge path, relative to the mean eigenvalue of M'M"""


class ClosedForm(Protocol):
    """The least-squares fits of one structure to one set of moments, for any ridge."""

    @property
    def ridges(self) -> tuple[float, ...]:
        """The ridges to choose from."""

    @property
    def rank(self) -> int:
        """Directions that the data span."""

    @property
    def unknowns(self) -> int:
        """Free numbers in T."""

    @property
    def tallest(self) -> int:
        """Unknowns of the column of T that has the most: so many tokens are needed at least."""

    def solve(self, ridge: float) -> Float64[Tensor, "width width"]:
        """T. Raises `NumericsError` where it is not determined."""

    def condition(self, ridge: float) -> float:
        """Condition number of what is solved; infinite where it is singular."""

    def warnings(self, ridge: float) -> tuple[str, ...]:
        """What a person should know about this structure on these data, each with the knob to turn."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """M'M = V diag(values) V', and V'M'Z. The closed form of a full T."""

    values: Float64[Tensor, " width"]
    vectors: Float64[Tensor, "width width"]
    rotated: Float64[Tensor, "width width"]
    ridges: tuple[float, ...] = RIDGES

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def rank(self) -> int:
        return int((self.values > self._floor).sum())

    @property
    def unknowns(self) -> int:
        return len(self.values) ** 2

    @property
    def tallest(self) -> int:
        return len(self.values)

    @property
    def _floor(self) -> float:
        """Eigenvalues below this are rounding errors of the fp64 sums."""
        return float(self.values[-1]) * len(self.values) * torch.finfo(torch.float64).eps

    def condition(self, ridge: float) -> float:
        """Of M'M + a I; infinite where M'M alone is singular."""
        shift = ridge * self.mean
        least = float(self.values[0]) + shift
        return float(self.values[-1] + shift) / least if least > max(self._floor, 0.0) else float("inf")

    def inverse(self, ridge: float) -> Float64[Tensor, " width"]:
        """1 / (values + a); zero for directions without signal when the ridge is zero (the pseudo-inverse)."""
        shifted = self.values.clamp_min(0) + ridge * self.mean
        return torch.where(shifted > self._floor, 1 / shifted, 0.0)

    def solve(self, ridge: float) -> Float64[Tensor, "width width"]:
        """(M'M + a I)^-1 M'Z."""
        return self.vectors @ (self.inverse(ridge).unsqueeze(1) * self.rotated)

    def errors(self, moments: FitMoments) -> list[tuple[float, float]]:
        """Train and held-out error of every ridge, for the moments that this was decomposed of.

        In the basis of the eigenvectors a ridge only scales rows, T = V diag(s) R, so that tr(T' G T) is s' (V' G V * R R') s: what takes
        time is done once for all ridges, and no T is made.
        """
        held, heldout = moments.heldout, torch.linalg.multi_dot([self.vectors.T, moments.heldout.gram, self.vectors])
        heldout *= self.rotated @ self.rotated.T
        aligned, power = ((self.vectors.T @ held.cross) * self.rotated).sum(1), self.rotated.square().sum(1)
        found = []
        for scale in map(self.inverse, self.ridges):
            own = (self.values * scale - 2) @ (scale * power)
            found.append((moments.train.share_left(float(own)), held.share_left(float((heldout @ scale - 2 * aligned) @ scale))))
        return found

    def warnings(self, ridge: float) -> tuple[str, ...]:
        """A singular Gram without a ridge."""
        width = len(self.values)
        if ridge == 0 and self.rank < width:
            return (
                f"The MLP output spans {self.rank} of {width} directions, so the pseudo-inverse was used; a ridge above 0 makes the fit unique.",
            )
        return ()


@recent(most=4)
def spectrum_of(moments: SpanMoments) -> Spectrum:
    """The eigendecomposition of one Gram matrix; the last few are kept, so that moving the ridge costs one product."""
    values, vectors = _eigen(moments.gram)
    return Spectrum(values, vectors, vectors.T @ moments.cross)


def _eigh(gram: Float64[Tensor, "width width"]) -> tuple[Tensor, Tensor]:
    require_signal(gram)
    values, vectors = torch.linalg.eigh(gram)
    return values, vectors


_eigen = recent(most=2)(_eigh)
"""under uniform token weights all spans of one carrier have one Gram"""


def decompose(gram: Float64[Tensor, "width width"], cross: Float64[Tensor, "width width"]) -> Spectrum:
    """The eigendecomposition of M'M beside M'Z. Raises `NumericsError` where M is zero."""
    values, vectors = _eigh(gram)
    return Spectrum(values, vectors, vectors.T @ cross)


def require_signal(gram: Float64[Tensor, "width width"]) -> None:
    """An error where M is zero, or not finite."""
    power = gram.diagonal().sum()
    if not power.isfinite():
        raise NumericsError("The sums over the calibration tokens are not finite; load the model in float32 or bfloat16 and measure again.")
    if not power > 0:
        raise NumericsError(
            "The carrier's MLP writes only zeros on this calibration set, so no transform can be fitted; choose another span start."
        )
