"""One linear layer of a block solved anew in closed form, shrunk toward what it is now. Pure sums, no model.

Features F [tokens, inner] go into the layer, and the block's output misses its target by R [tokens, width]. The change D of
the layer's weight, as it acts on rows, minimises sum w |F D - R|^2 + a |D - D0|^2. Two centres D0 are tried: 0, the present
weight, and the change that the best transform of the layer's *output* makes, W (T - I), so that a large `a` ends at least
squares and not at plain removal. Of all centres and `a` that keep most of the best held-out gain, the one that changes the
weight least is taken: text unlike the calibration set pays for every change that the set did not need (benchmarks/LOG.md).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from replaceme_core.measurement.gram import add_gram, mirror
from replaceme_core.models.running.precision import exact

RIDGES: tuple[float, ...] = tuple(10.0**k for k in range(-6, 3))
"""relative to the mean eigenvalue of the Gram matrix"""
GIVEN_UP = 0.2
"""share of the best held-out gain that a smaller change may cost"""
_TINY = torch.finfo(torch.float64).tiny
_VECTORS, _POWER_STEPS = 8, 10
"""of the estimate of a condition"""
ROWS = 1024
"""tokens that are fp64 at a time"""


class UpdateSums:
    """fp64 sums over the tokens of one part, train or held-out, with token weights w = 1/|target|^power. Additive."""

    def __init__(
        self,
        gram: Float64[Tensor, "inner inner"],
        cross: Float64[Tensor, "inner width"],
        missed: float = 0.0,
        aimed: float = 0.0,
        power: int = 2,
    ) -> None:
        self._gram, self._is_whole, self._power = gram, True, power
        self.cross = cross
        """sum w f r^T"""
        self.missed = missed
        """sum w |r|^2"""
        self.aimed = aimed
        """sum w |target|^2; the number of tokens where the power is 2"""

    @classmethod
    def zeros(cls, inner: int, width: int, device: torch.device, power: int = 2) -> "UpdateSums":
        gram, cross = (torch.zeros(inner, n, dtype=torch.float64, device=device) for n in (inner, width))
        return cls(gram, cross, power=power)

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
            weight = token_weights(goal, self._power)
            weighted = own * weight.unsqueeze(-1)
            add_gram(self._gram, weighted, own)
            self._is_whole = False
            self.cross.addmm_(weighted.T, rest)
            self.missed += float(weight @ rest.square().sum(-1))
            self.aimed += float(weight @ goal.square().sum(-1))

    def error(self, change: Float64[Tensor, "inner width"] | None) -> float:
        """What is missed after the change, as a share of the target; infinite where that is not a number."""
        left = self.missed
        if change is not None:
            left += float((self.gram @ change).sub_(self.cross, alpha=2).mul_(change).sum())
        return inf if isnan(left) else max(0.0, left) / self.aimed if self.aimed > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Update:
    """The change of a layer's weight as it acts on rows, and what it was chosen by."""

    change: Float64[Tensor, "inner width"] | None
    """None: no change had a lower held-out error"""
    ridge: float | None
    before: float
    after: float
    condition: float
    """of the Gram matrix with the chosen ridge, estimated from below"""


def solve(train: UpdateSums, heldout: UpdateSums, weight: Float[Tensor, "inner width"] | None) -> Update:
    """The smallest change, over both centres and all ridges, that keeps 1 - GIVEN_UP of the best held-out gain; none if there is no gain.

    `weight` is the layer's as it acts on rows.
    """
    mean = float(train.gram.diagonal().mean())
    none = Update(None, None, heldout.error(None), heldout.error(None), float("inf"))
    if not mean > 0:
        return none
    centres: list[Tensor | None] = [None]
    if weight is not None:
        centres.append(_of_output(train, heldout, exact(weight)))
    tried = [_Tried.of(heldout, centre, number, None) for number, centre in enumerate(centres)]
    tried += [_Tried.of(heldout, change, number, ridge) for change, number, ridge in _path(train, centres, mean)]
    least = min(each.error for each in tried)
    if not least < none.before:
        return none
    limit = least + GIVEN_UP * (none.before - least)
    chosen = min((each for each in tried if each.error <= limit), key=lambda each: each.size)
    change = centres[chosen.centre]
    if chosen.ridge is not None:
        [(change, _, _)] = _path(train, [change], mean, (chosen.ridge,))
    return Update(change, chosen.ridge, none.before, chosen.error, condition(train.gram, (chosen.ridge or 0.0) * mean))


@dataclass(frozen=True)
class _Tried:
    """What one change is chosen by: the changes themselves, as large as the layer, are not kept beside one another."""

    error: float
    size: float
    """sum of its squares"""
    centre: int
    ridge: float | None

    @classmethod
    def of(cls, heldout: UpdateSums, change: Tensor | None, centre: int, ridge: float | None) -> "_Tried":
        return cls(heldout.error(change), 0.0 if change is None else float(change.square().sum()), centre, ridge)


def _path(
    train: UpdateSums, centres: Sequence[Tensor | None], mean: float, ridges: tuple[float, ...] = RIDGES
) -> Iterator[tuple[Tensor, int, float]]:
    """One solution after the other, with the number of its centre and its ridge; None is a centre of zeros.

    One factorisation for each ridge; a ridge too small to factor is left out.
    """
    rights = [train.cross if centre is None else train.cross - train.gram @ centre for centre in centres]
    for ridge in ridges:
        shifted = train.gram.clone()
        shifted.diagonal().add_(ridge * mean)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        del shifted
        for number, (centre, right) in enumerate(zip(centres, rights, strict=True)):
            if not failed:
                step = torch.cholesky_solve(right, factor)
                yield step if centre is None else step.add_(centre), number, ridge


def token_weights(target: Float64[Tensor, "tokens width"], power: int) -> Float64[Tensor, " tokens"]:
    """1/|target|^power of every token."""
    norms: Tensor = torch.linalg.vector_norm(target, dim=-1)
    return norms.clamp_min(_TINY**0.5).pow(-power)


def _of_output(train: UpdateSums, heldout: UpdateSums, weight: Float64[Tensor, "inner width"]) -> Float64[Tensor, "inner width"]:
    """W (T - I) for the best transform of the layer's output, itself shrunk toward I."""
    own = UpdateSums(weight.T @ train.gram @ weight, weight.T @ train.cross, train.missed, train.aimed)
    mean = float(own.gram.diagonal().mean())
    best, least = torch.zeros_like(train.cross), heldout.error(None)
    for step, _, _ in _path(own, [None], mean) if mean > 0 else ():
        change = weight @ step
        error = heldout.error(change)
        if error < least:
            best, least = change, error
    return best


def condition(gram: Float64[Tensor, "inner inner"], shift: float) -> float:
    """Of gram + shift, from power iterations: from below, since a few steps find the ends of the spectrum only nearly."""
    shifted = gram.clone()
    shifted.diagonal().add_(shift)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        return inf
    most = _end(shifted.__matmul__, len(gram), gram)
    least = _end(lambda rows: torch.cholesky_solve(rows, factor), len(gram), gram)
    return most * least if isfinite(least) else inf


def _end(apply: Callable[[Tensor], Tensor], size: int, like: Tensor) -> float:
    """The largest eigenvalue of a symmetric map, from below: subspace iteration with a few vectors."""
    vectors = torch.randn(size, min(size, _VECTORS), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    for _ in range(_POWER_STEPS):
        vectors = torch.linalg.qr(apply(vectors)).Q
    return float(torch.linalg.eigvalsh(vectors.T @ apply(vectors))[-1])


def rows_of(real: Bool[Tensor, "batch length"], *states: Float[Tensor, "batch length any"]) -> tuple[Tensor, ...]:
    """The real tokens of each state as rows."""
    return tuple(state.reshape(*real.shape, -1)[real.to(state.device)] for state in states)
