"""One linear layer of a block solved anew in closed form, shrunk toward what it is now. Pure sums, no model.

Features F [tokens, inner] go into the layer, and the block's output misses its target by R [tokens, width]. The change D of
the layer's weight, as it acts on rows, minimises sum w |F D - R|^2 + a |D - D0|^2. Two centres D0 are tried: 0, the present
weight, and the change that the best transform of the layer's *output* makes, W (T - I), so that a large `a` ends at least
squares and not at plain removal. Of all centres and `a` that keep most of the best held-out gain, the one that changes the
weight least is taken: text unlike the calibration set pays for every change that the set did not need (benchmarks/LOG.md).
"""

from dataclasses import dataclass
from math import inf, isnan

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from replaceme_core.models.precision import exact

RIDGES: tuple[float, ...] = tuple(10.0**k for k in range(-6, 3))
"""relative to the mean eigenvalue of the Gram matrix"""
GIVEN_UP = 0.2
"""share of the best held-out gain that a smaller change may cost"""
_TINY = torch.finfo(torch.float64).tiny


@dataclass(eq=False)
class UpdateSums:
    """fp64 sums over the tokens of one part, train or held-out, with token weights 1/|target|^2. Additive."""

    gram: Float64[Tensor, "inner inner"]
    """sum w f f^T"""
    cross: Float64[Tensor, "inner width"]
    """sum w f r^T"""
    missed: float = 0.0
    """sum w |r|^2"""
    n_tokens: int = 0
    """sum w |target|^2 as well: the weights make every target one"""

    @classmethod
    def zeros(cls, inner: int, width: int, device: torch.device) -> "UpdateSums":
        gram, cross = (torch.zeros(inner, n, dtype=torch.float64, device=device) for n in (inner, width))
        return cls(gram, cross)

    def add(
        self, features: Float[Tensor, "tokens inner"], missed: Float[Tensor, "tokens width"], target: Float[Tensor, "tokens width"]
    ) -> None:
        features, missed = exact(features), exact(missed)
        weight = 1 / exact(target).square().sum(-1).clamp_min(_TINY)
        weighted = (features * weight.unsqueeze(-1)).T
        self.gram.addmm_(weighted, features)
        self.cross.addmm_(weighted, missed)
        self.missed += float(weight @ missed.square().sum(-1))
        self.n_tokens += len(features)

    def error(self, change: Float64[Tensor, "inner width"] | None) -> float:
        """What is missed after the change, as a share of the target; infinite where that is not a number."""
        left = self.missed
        if change is not None:
            left += float(((self.gram @ change - 2 * self.cross) * change).sum())
        return inf if isnan(left) else max(0.0, left) / max(1, self.n_tokens)


@dataclass(frozen=True, eq=False)
class Update:
    """The change of a layer's weight as it acts on rows, and what it was chosen by."""

    change: Float64[Tensor, "inner width"] | None
    """None: no change had a lower held-out error"""
    ridge: float | None
    before: float
    after: float
    condition: float
    """of the Gram matrix with the chosen ridge"""


def solve(train: UpdateSums, heldout: UpdateSums, weight: Float[Tensor, "inner width"] | None) -> Update:
    """The smallest change, over both centres and all ridges, that keeps 1 - GIVEN_UP of the best held-out gain; none if there is no gain.

    `weight` is the layer's as it acts on rows.
    """
    mean = float(train.gram.diagonal().mean())
    none = Update(None, None, heldout.error(None), heldout.error(None), float("inf"))
    if not mean > 0:
        return none
    centres = [torch.zeros_like(train.cross)]
    if weight is not None:
        centres.append(_of_output(train, heldout, exact(weight)))
    tried = [(centre, None) for centre in centres] + _path(train, centres, mean)
    errors = [heldout.error(change) for change, _ in tried]
    if not min(errors) < none.before:
        return none
    limit = min(errors) + GIVEN_UP * (none.before - min(errors))
    within = [index for index, error in enumerate(errors) if error <= limit]
    chosen = min(within, key=lambda index: float(tried[index][0].square().sum()))
    change, ridge = tried[chosen]
    return Update(change, ridge, none.before, errors[chosen], _condition(train.gram, (ridge or 0.0) * mean))


def _path(train: UpdateSums, centres: list[Tensor], mean: float) -> list[tuple[Tensor, float | None]]:
    """Solutions along the ridges for every centre, one factorisation for each ridge; a ridge too small to factor is left out."""
    found: list[tuple[Tensor, float | None]] = []
    right = torch.cat([train.cross - train.gram @ centre for centre in centres], dim=1)
    for ridge in RIDGES:
        factor, failed = torch.linalg.cholesky_ex(train.gram + ridge * mean * torch.eye(len(train.gram)).to(train.gram))
        if not failed:
            steps = torch.cholesky_solve(right, factor).split(train.cross.shape[1], dim=1)
            found += [(centre + step, ridge) for centre, step in zip(centres, steps, strict=True)]
    return found


def _of_output(train: UpdateSums, heldout: UpdateSums, weight: Float64[Tensor, "inner width"]) -> Float64[Tensor, "inner width"]:
    """W (T - I) for the best transform of the layer's output, itself shrunk toward I."""
    own = UpdateSums(weight.T @ train.gram @ weight, weight.T @ train.cross, train.missed, train.n_tokens)
    mean = float(own.gram.diagonal().mean())
    tried = [weight @ step for step, _ in _path(own, [torch.zeros_like(own.cross)], mean)] if mean > 0 else []
    return min([torch.zeros_like(train.cross), *tried], key=heldout.error)


def _condition(gram: Tensor, shift: float) -> float:
    values = torch.linalg.eigvalsh(gram)
    least = float(values[0].clamp_min(0)) + shift
    return (float(values[-1]) + shift) / least if least > 0 else float("inf")


def rows_of(real: Bool[Tensor, "batch length"], *states: Float[Tensor, "batch length any"]) -> tuple[Tensor, ...]:
    """The real tokens of each state as rows."""
    return tuple(state.reshape(*real.shape, -1)[real.to(state.device)] for state in states)
