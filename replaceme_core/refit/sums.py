"""fp64 sums over the tokens of one part, from which a layer is solved and its error known. Pure sums, no model."""

from math import inf, isnan

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from replaceme_core.measurement.gram import add_gram, mirror
from replaceme_core.models.running.precision import exact

_TINY = torch.finfo(torch.float64).tiny
ROWS = 1024
"""tokens that are fp64 at a time"""


class UpdateSums:
    """fp64 sums over the tokens of one part, train or held-out, with token weights w = 1/|target|. Additive."""

    def __init__(
        self,
        gram: Float64[Tensor, "inner inner"],
        cross: Float64[Tensor, "inner width"],
        missed: float = 0.0,
        aimed: float = 0.0,
    ) -> None:
        self._gram, self._is_whole = gram, True
        self.cross = cross
        """sum w f r^T"""
        self.missed = missed
        """sum w |r|^2"""
        self.aimed = aimed
        """sum w |target|^2"""

    @classmethod
    def zeros(cls, inner: int, width: int, device: torch.device) -> "UpdateSums":
        gram, cross = (torch.zeros(inner, n, dtype=torch.float64, device=device) for n in (inner, width))
        return cls(gram, cross)

    @property
    def gram(self) -> Float64[Tensor, "inner inner"]:
        """sum w f f^T"""
        if not self._is_whole:
            mirror(self._gram)
            self._is_whole = True
        return self._gram

    def add(
        self, features: Float[Tensor, "tokens inner"], missed: Float[Tensor, "tokens width"], target: Float[Tensor, "tokens width"]
    ) -> None:
        for rows in zip(features.split(ROWS), missed.split(ROWS), target.split(ROWS), strict=True):
            own, rest, goal = map(exact, rows)
            weight = token_weights(goal)
            weighted = own * weight.unsqueeze(-1)
            add_gram(self._gram, weighted, own)
            self._is_whole = False
            self.cross.addmm_(weighted.T, rest)
            self.missed += float(weight @ rest.square().sum(-1))
            self.aimed += float(weight @ goal.square().sum(-1))

    def error(self, change: Float64[Tensor, "inner width"] | None) -> float:
        """What is missed after the change, as a share of the target; infinite where that is not a number."""
        return self.share(0.0 if change is None else float((self.gram @ change).sub_(self.cross, alpha=2).mul_(change).sum()))

    def share(self, more: float) -> float:
        """The same, of a change that misses `more` (or less, below 0) than no change does: tr D'GD - 2 tr D'C."""
        left = self.missed + more
        return inf if isnan(left) else max(0.0, left) / self.aimed if self.aimed > 0 else 0.0

    def written(self, weight: Float64[Tensor, "inner width"]) -> "UpdateSums":
        """The sums with the layer's output, features times `weight`, in the place of its features."""
        return UpdateSums(weight.T @ self.gram @ weight, weight.T @ self.cross, self.missed, self.aimed)

    def kept(self, features: Int64[Tensor, " kept"], weight: Float64[Tensor, "inner width"]) -> "UpdateSums":
        """The sums with only some of the features, where `weight` is the layer's as it acts on all of them: the others' part is missed as well."""
        left = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
        left[features] = False
        gone = left.nonzero().squeeze(1)
        own, beside = weight[gone], self.gram[gone]
        cross = self.cross[features] + beside[:, features].T @ own
        more = 2 * self.cross[gone].mul(own).sum() + (beside[:, gone] @ own).mul(own).sum()
        return UpdateSums(self.gram[features][:, features], cross, self.missed + float(more), self.aimed)


def token_weights(target: Float64[Tensor, "tokens width"]) -> Float64[Tensor, " tokens"]:
    """1/|target| of every token, as T has them: what is long is held as well, such as the first token that an attention sink is made of."""
    norms: Tensor = torch.linalg.vector_norm(target, dim=-1)
    return norms.clamp_min(_TINY**0.5).reciprocal()


def rows_of(real: Bool[Tensor, "batch length"], *states: Float[Tensor, "batch length any"]) -> tuple[Tensor, ...]:
    """The real tokens of each state as rows."""
    return tuple(state.reshape(*real.shape, -1)[real.to(state.device)] for state in states)
