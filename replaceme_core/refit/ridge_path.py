"""Held-out error and size of a layer's change along the ridge path, toward several centres. Pure sums, no model.

The change that minimises sum w |F D - R|^2 + a |D - D0|^2 is D = (G + a I)^-1 (C + a D0), with G = sum w f f' and C = sum w f r'.
`ByEigenvectors` decomposes G once; in that basis a ridge only scales rows, so that the whole path costs little more than one ridge.
`ByCholesky` factors G + a I at every ridge, which an accelerator does in a fraction of the time of a decomposition.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Protocol

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.refit.sums import UpdateSums

RIDGES: tuple[float, ...] = tuple(10.0**k for k in range(-6, 3))
"""relative to the mean eigenvalue of the Gram matrix"""
_VECTORS, _POWER_STEPS = 8, 10
"""of the estimate of a condition"""
Centre = Float64[Tensor, "inner width"] | None
"""a change that a large ridge ends at; None: no change"""


@dataclass(frozen=True)
class Candidate:
    """What one change is chosen by: the changes themselves, as large as the layer, are not kept beside one another."""

    error: float
    """held-out"""
    size: float
    """sum of its squares"""
    centre: int
    ridge: float | None
    """None: the centre itself"""


class RidgePath(Protocol):
    """The changes of one layer by centre and ridge."""

    def candidates(self) -> Iterator[Candidate]:
        """Of every centre and ridge; a ridge too small to factor is left out."""

    def change(self, centre: int, ridge: float) -> Float64[Tensor, "inner width"]:
        """One of them."""

    def condition(self, ridge: float) -> float:
        """Of the Gram matrix with this ridge; infinite where it is singular."""


def path_of(train: UpdateSums, heldout: UpdateSums, centres: Sequence[Centre]) -> RidgePath:
    """The quicker route on the device of the sums. The mean eigenvalue of the train Gram must be above 0 and finite."""
    return (ByEigenvectors if train.gram.device.type == "cpu" else ByCholesky)(train, heldout, centres)


class ByEigenvectors:
    """Everything in the basis of the eigenvectors, G = V diag(values) V': rows of V'D are those of V'C + a V'D0 over values + a."""

    def __init__(self, train: UpdateSums, heldout: UpdateSums, centres: Sequence[Centre]) -> None:
        self._heldout = heldout
        values, self._vectors = torch.linalg.eigh(train.gram)
        self._values, self._scale = values.clamp_min_(0), _mean(train)
        self._cross = self._vectors.T @ train.cross
        self._centres = [None if centre is None else self._vectors.T @ centre for centre in centres]

    def candidates(self) -> Iterator[Candidate]:
        shifts = torch.tensor([ridge * self._scale for ridge in RIDGES]).to(self._values)
        inverse = 1 / (self._values + shifts.unsqueeze(1))
        gram = self._vectors.T @ (self._heldout.gram @ self._vectors)
        aligned = self._vectors.T @ self._heldout.cross
        cross = self._cross

        def terms(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
            """tr D'GD on the held-out part and tr D'D by ridge, of D' = one' diag(1 / (values + a)) V' on the one side, the other on the other."""
            return ((inverse @ (gram * (one @ other.T))) * inverse).sum(1), inverse.square() @ (one * other).sum(1)

        curved, size = terms(cross, cross)
        straight = inverse @ (cross * aligned).sum(1)
        for number, centre in enumerate(self._centres):
            own = curved, size, straight
            if centre is not None:
                beside, alone = terms(cross, centre), terms(centre, centre)
                own = (
                    curved + 2 * shifts * beside[0] + shifts.square() * alone[0],
                    size + 2 * shifts * beside[1] + shifts.square() * alone[1],
                    straight + shifts * (inverse @ (centre * aligned).sum(1)),
                )
            for ridge, more, square in zip(RIDGES, (own[0] - 2 * own[2]).tolist(), own[1].tolist(), strict=True):
                yield Candidate(self._heldout.share(more), square, number, ridge)

    def change(self, centre: int, ridge: float) -> Float64[Tensor, "inner width"]:
        shift, toward = ridge * self._scale, self._centres[centre]
        right = self._cross if toward is None else self._cross + shift * toward
        found: Tensor = self._vectors @ (right / (self._values + shift).unsqueeze(1))
        return found

    def condition(self, ridge: float) -> float:
        least, most = (float(end) + ridge * self._scale for end in self._values.aminmax())
        return most / least if least > 0 else inf


class ByCholesky:
    """One factorisation for each ridge, and every change in full."""

    def __init__(self, train: UpdateSums, heldout: UpdateSums, centres: Sequence[Centre]) -> None:
        self._train, self._heldout, self._scale, self._centres = train, heldout, _mean(train), centres

    def candidates(self) -> Iterator[Candidate]:
        for ridge in RIDGES:
            factor = self._factor(ridge)
            if factor is None:
                continue
            for number in range(len(self._centres)):
                change = self._change(number, ridge, factor)
                yield Candidate(self._heldout.error(change), float(change.square().sum()), number, ridge)

    def change(self, centre: int, ridge: float) -> Float64[Tensor, "inner width"]:
        factor = self._factor(ridge)
        assert factor is not None, "only what was a candidate is asked for"
        return self._change(centre, ridge, factor)

    def condition(self, ridge: float) -> float:
        return condition(self._train.gram, ridge * self._scale)

    def _factor(self, ridge: float) -> Tensor | None:
        shifted = self._train.gram.clone()
        shifted.diagonal().add_(ridge * self._scale)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        return None if failed else factor

    def _change(self, number: int, ridge: float, factor: Tensor) -> Tensor:
        centre, cross = self._centres[number], self._train.cross
        right = cross if centre is None else cross + ridge * self._scale * centre
        return torch.cholesky_solve(right, factor)


def _mean(sums: UpdateSums) -> float:
    """Eigenvalue of the Gram matrix."""
    return float(sums.gram.diagonal().mean())


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
