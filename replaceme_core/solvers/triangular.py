"""Least squares with a lower-triangular T: channel j of the result reads the channels j, j+1, ... only.

Column j is the fit of its own on those channels. One factorisation serves all columns: with M'M + a I = U U' and U upper
triangular, the trailing blocks of U factor the trailing blocks of M'M, and T = U'^-1 tril(U^-1 M'Z).
The order of channels in a residual stream means nothing, so this structure is for comparison (the public reference masks
the transposed half; either half is as good).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import SpanMoments
from replaceme_core.errors import NumericsError
from replaceme_core.figures import number
from replaceme_core.solvers.spectrum import RIDGES, Spectrum, spectrum_of


@dataclass(frozen=True, eq=False)
class Triangular:
    """The closed form of a lower-triangular T."""

    gram: Float64[Tensor, "width width"]
    cross: Float64[Tensor, "width width"]
    spectrum: Spectrum
    ridges: tuple[float, ...] = RIDGES

    @classmethod
    def of(cls, moments: SpanMoments) -> "Triangular":
        return cls(moments.gram, moments.cross, spectrum_of(moments))

    @property
    def rank(self) -> int:
        return self.spectrum.rank

    @property
    def unknowns(self) -> int:
        return len(self.gram) * (len(self.gram) + 1) // 2

    @property
    def tallest(self) -> int:
        return len(self.gram)

    def solve(self, ridge: float) -> Float64[Tensor, "width width"]:
        """Raises `NumericsError` where M'M is singular and nothing is added to it."""
        width = len(self.gram)
        shifted = self.gram + ridge * self.spectrum.mean * torch.eye(width, dtype=torch.float64)
        lower, failed = torch.linalg.cholesky_ex(shifted.flip(0, 1))
        if failed or not self.spectrum.condition(ridge) < float("inf"):
            raise NumericsError(
                f"The MLP output spans {self.rank} of {width} directions, so a triangular fit is not determined without a ridge; "
                f"use a ridge above 0 (now {number(ridge, 6)}) or more tokens."
            )
        upper = lower.flip(0, 1)
        inner = torch.linalg.solve_triangular(upper, self.cross, upper=True).tril()
        solution: Tensor = torch.linalg.solve_triangular(upper.T, inner, upper=False)
        return solution.tril()

    def condition(self, ridge: float) -> float:
        return self.spectrum.condition(ridge)

    def warnings(self, _ridge: float) -> tuple[str, ...]:
        return ()
