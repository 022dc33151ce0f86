"""Least squares with a diagonal T: one factor per channel. The only structure that merges behind a norm (its gain takes it).

Each channel is a fit of its own, t_i = sum w m_i z_i / (sum w m_i^2 + a), from the diagonals of the moments.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import SpanMoments
from replaceme_core.solvers.spectrum import RIDGES, require_signal


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The closed form of a diagonal T. A channel that is never written gets the factor 0."""

    power: Float64[Tensor, " width"]
    cross: Float64[Tensor, " width"]
    ridges: tuple[float, ...] = RIDGES
    tallest: int = 1

    @classmethod
    def of(cls, moments: SpanMoments) -> "Diagonal":
        require_signal(moments.gram)
        return cls(moments.gram.diagonal(), moments.cross.diagonal())

    @property
    def rank(self) -> int:
        return int((self.power > 0).sum())

    @property
    def unknowns(self) -> int:
        return len(self.power)

    def solve(self, ridge: float) -> Float64[Tensor, "width width"]:
        shifted = self._shifted(ridge)
        return torch.diag(torch.where(shifted > 0, self.cross / shifted, 0.0))

    def condition(self, ridge: float) -> float:
        shifted = self._shifted(ridge)
        return float(shifted.max() / shifted.min())

    def warnings(self, ridge: float) -> tuple[str, ...]:
        if ridge == 0 and self.rank < len(self.power):
            return (f"{len(self.power) - self.rank} channels are never written; their factor is 0. A ridge above 0 changes nothing there.",)
        return ()

    def _shifted(self, ridge: float) -> Float64[Tensor, " width"]:
        return self.power + ridge * self.power.mean()
