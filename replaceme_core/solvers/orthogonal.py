"""Least squares with an orthogonal T (Procrustes): T = U V' from the singular value decomposition M'Z = U S V'.

A rotation keeps lengths, so there is nothing for a ridge to shrink. The fit is unique where M'Z has full rank.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import SpanMoments
from replaceme_core.solvers.spectrum import require_signal


@dataclass(frozen=True, eq=False)
class Orthogonal:
    """The closed form of an orthogonal T. `singular` are the values of M'Z, descending."""

    matrix: Float64[Tensor, "width width"]
    singular: Float64[Tensor, " width"]
    ridges: tuple[float, ...] = (0.0,)
    tallest: int = 1

    @classmethod
    def of(cls, moments: SpanMoments) -> "Orthogonal":
        require_signal(moments.gram)
        left, singular, right = torch.linalg.svd(moments.cross)
        return cls(left @ right, singular)

    @property
    def rank(self) -> int:
        """Of M'Z."""
        return int((self.singular > self.singular[0] * len(self.singular) * torch.finfo(torch.float64).eps).sum())

    @property
    def unknowns(self) -> int:
        return len(self.singular) * (len(self.singular) - 1) // 2

    def solve(self, _ridge: float) -> Float64[Tensor, "width width"]:
        return self.matrix

    def condition(self, _ridge: float) -> float:
        """Of M'Z: how far the rotation is from having no unique answer."""
        return float(self.singular[0] / self.singular[-1]) if self.rank == len(self.singular) else float("inf")

    def warnings(self, _ridge: float) -> tuple[str, ...]:
        width = len(self.singular)
        if self.rank == width:
            return ()
        return (
            f"M'Z has rank {self.rank} of {width}, so this rotation is one of many that fit as well; use more tokens, or structure 'full'.",
        )
