"""Least squares with a T of low rank (reduced-rank regression), or with T = I + an update of low rank.

With A = M'M + a I and T* = A^-1 M'Z, the loss of any T is |A^1/2 (T - T*)|^2 and a constant, so that the best T of rank r is
T* Q Q', Q the r leading right singular vectors of A^-1/2 M'Z. Rank 1 is the two-vector form of the public reference,
T = u v'. It keeps one direction of all that the carrier writes; the update keeps all and adds: T = I + U V', fitted to
Z - M in place of Z, its ridge pulling to T = I (no transform). Rank 0 of it would be T = I, full rank is the full T.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import SpanMoments
from replaceme_core.errors import InputError
from replaceme_core.solvers.recent import recent
from replaceme_core.solvers.spectrum import RIDGES, Spectrum, spectrum_of


@dataclass(frozen=True, eq=False)
class LowRank:
    """The closed form of T = `base` + a matrix of rank `kept` at most."""

    spectrum: Spectrum
    kept: int
    base: Float64[Tensor, "width width"]
    ridges: tuple[float, ...] = RIDGES

    @classmethod
    def of(cls, moments: SpanMoments, kept: int) -> "LowRank":
        require_rank(kept, moments.width)
        return cls(spectrum_of(moments), kept, torch.zeros_like(moments.gram))

    @classmethod
    def update_of(cls, moments: SpanMoments, kept: int) -> "LowRank":
        """Around the identity."""
        require_rank(kept, moments.width)
        return cls(_beside_identity(spectrum_of(moments)), kept, torch.eye(moments.width, dtype=torch.float64))

    @property
    def rank(self) -> int:
        return self.spectrum.rank

    @property
    def unknowns(self) -> int:
        return self.kept * (2 * len(self.base) - self.kept)

    @property
    def tallest(self) -> int:
        return len(self.base)

    def solve(self, ridge: float) -> Float64[Tensor, "width width"]:
        leading = _directions(self.spectrum, ridge)[:, -self.kept :]
        return self.base + (self.spectrum.solve(ridge) @ leading) @ leading.T

    def condition(self, ridge: float) -> float:
        return self.spectrum.condition(ridge)

    def warnings(self, ridge: float) -> tuple[str, ...]:
        return self.spectrum.warnings(ridge)


@recent(most=4)
def _beside_identity(spectrum: Spectrum) -> Spectrum:
    """The spectrum with M'(Z - M) in place of M'Z."""
    return replace(spectrum, rotated=spectrum.rotated - spectrum.values.unsqueeze(1) * spectrum.vectors.T)


@recent(most=len(RIDGES) + 1)
def _directions(spectrum: Spectrum, ridge: float) -> Float64[Tensor, "width width"]:
    """Right singular vectors of A^-1/2 M'Z, the leading one last. The last ridge path is kept, so that moving the rank is fast."""
    whitened = spectrum.inverse(ridge).sqrt().unsqueeze(1) * spectrum.rotated
    vectors: Tensor = torch.linalg.eigh(whitened.T @ whitened)[1]
    return vectors


def require_rank(kept: int, width: int) -> None:
    """An `InputError` for a rank that T does not have."""
    if kept > width:
        raise InputError(f"The rank is {kept}, but T has {width} rows and columns; choose a rank from 1 to {width}.")
