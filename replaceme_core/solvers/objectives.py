"""The losses that iterative methods lower, with their gradients and curvature, checked against autograd in the tests.

    cosine              mean 1 - cos(M T + Y, H_end)     exact form of the paper's objective
    cosine_simplified   mean 1 - cos(M T, Z)             the paper's simplified form; T's scale is free
    mse                 sum |M T - Z|^2 / sum |Z|^2      least squares as a share of the target
    relative_mse        the same with token weights 1/|H_end|

The cosines need single tokens and read the stored ones; the squares read the moments of all train tokens. Penalties are on
T itself, toward 0, as the paper writes them: l1 sum |T_ij| / width + l2 sum T_ij^2 / width, so that T = I costs l1 + l2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from replaceme_core.artifacts import Measurement, Span, SpanMoments, TokenSample, Weighting
from replaceme_core.errors import NumericsError
from replaceme_core.plans.plan import Loss
from replaceme_core.solvers.spectrum import require_signal

_TINY = 1e-30
_PIECE = 1024
"""tokens worked on at a time"""


class Objective(Protocol):
    """A loss of T with its first two derivatives."""

    def value_and_gradient(self, matrix: Tensor) -> tuple[float, Tensor]: ...

    def hessian(self, matrix: Tensor) -> Callable[[Tensor], Tensor]:
        """The second derivative at `matrix`, as the product with a direction."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Tokens for a cosine: what is written, what the stream holds beside it (0 in the simplified form), the unit target."""

    written: Float[Tensor, "tokens width"]
    beside: Float[Tensor, "tokens width"] | None
    unit: Float[Tensor, "tokens width"]

    @classmethod
    def of(cls, sample: TokenSample, span: Span, simplified: bool, dtype: torch.dtype = torch.float64) -> "Directions":
        written, end = sample.writers[span.carrier].to(dtype), sample.boundaries[span.end].to(dtype)
        beside = sample.boundaries[span.start].to(dtype) - written
        target = end - beside if simplified else end
        return cls(written, None if simplified else beside, target / target.norm(dim=-1, keepdim=True).clamp_min(_TINY))

    def rows(self, chosen: Tensor) -> "Directions":
        return Directions(self.written[chosen], None if self.beside is None else self.beside[chosen], self.unit[chosen])

    def pieces(self) -> "list[Directions]":
        """The same tokens a few at a time: what is worked out for them stays in the processor's cache."""
        parts = [self.written.split(_PIECE), self.unit.split(_PIECE)]
        parts.insert(1, (None,) * len(parts[0]) if self.beside is None else self.beside.split(_PIECE))
        return [Directions(*part) for part in zip(*parts, strict=True)]

    def patched(self, matrix: Tensor) -> Tensor:
        """M T + Y, or M T in the simplified form."""
        return self.written @ matrix if self.beside is None else torch.addmm(self.beside, self.written, matrix)

    def sizes(self, patched: Tensor) -> tuple[Tensor, Tensor]:
        """|u| and cos(u, t) of every token, as columns."""
        size = patched.norm(dim=-1, keepdim=True).clamp_min(_TINY)
        return size, torch.linalg.vecdot(patched, self.unit).unsqueeze(-1) / size

    def loss(self, matrix: Tensor) -> float:
        """mean 1 - cos"""
        return 1 - sum(float(piece.sizes(piece.patched(matrix))[1].sum()) for piece in self.pieces()) / len(self.written)

    def value_and_gradient(self, matrix: Tensor) -> tuple[float, Tensor]:
        total, gradient = 0.0, torch.zeros_like(matrix)
        for piece in self.pieces():
            patched = piece.patched(matrix)
            size, cosine = piece.sizes(patched)
            total += float(cosine.sum())
            pull = patched.mul_(cosine / size).sub_(piece.unit).div_(size)
            gradient.addmm_(piece.written.T, pull)
        return 1 - total / len(self.written), gradient / len(self.written)

    def hessian(self, matrix: Tensor) -> Callable[[Tensor], Tensor]:
        pieces = [(piece, *piece._bend(matrix)) for piece in self.pieces()]

        def product(direction: Tensor) -> Tensor:
            total = torch.zeros_like(direction)
            for piece, along, inward, size, cosine in pieces:
                moved = piece.written @ direction
                stretch = torch.linalg.vecdot(along, moved).unsqueeze(-1)
                turned = moved.sub_(along * stretch).div_(size)
                change = torch.linalg.vecdot(turned, piece.unit).unsqueeze(-1)
                pull = turned.mul_(cosine).add_(along * change).add_(inward * stretch).div_(size)
                total.addmm_(piece.written.T, pull)
            return total / len(self.written)

        return product

    def _bend(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the second derivative needs at a point: u / |u|, (t - c u / |u|) / |u|, |u| and c of every token."""
        patched = self.patched(matrix)
        size, cosine = self.sizes(patched)
        along = patched.div_(size)
        return along, (self.unit - cosine * along).div_(size), size, cosine


@dataclass(frozen=True, eq=False)
class Squares:
    """Least squares from its sums."""

    moments: SpanMoments

    @classmethod
    def over(cls, written: Tensor, target: Tensor, weight: Tensor) -> "Squares":
        """Of single tokens, as Adam's batches need it."""
        weighted = written * weight
        energy = float((weight * target.square()).sum())
        return cls(SpanMoments(weighted.T @ written, weighted.T @ target, energy, len(written)))

    def loss(self, matrix: Tensor) -> float:
        return self.moments.error(matrix)

    def value_and_gradient(self, matrix: Tensor) -> tuple[float, Tensor]:
        moved, energy = self.moments.gram @ matrix, max(self.moments.energy, _TINY)
        value = float(((moved - 2 * self.moments.cross) * matrix).sum()) / energy + 1
        return value, (moved - self.moments.cross) * (2 / energy)

    def hessian(self, _matrix: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda direction: self.moments.gram @ direction * (2 / max(self.moments.energy, _TINY))


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A loss with l2 sum T_ij^2 / width added."""

    loss: Objective
    l2: float

    def value_and_gradient(self, matrix: Tensor) -> tuple[float, Tensor]:
        value, gradient = self.loss.value_and_gradient(matrix)
        strength = self.l2 / len(matrix)
        return value + strength * float(matrix.square().sum()), gradient + 2 * strength * matrix

    def hessian(self, matrix: Tensor) -> Callable[[Tensor], Tensor]:
        product = self.loss.hessian(matrix)
        return lambda direction: product(direction) + 2 * self.l2 / len(matrix) * direction


@dataclass(frozen=True, eq=False)
class Pinned:
    """The simplified cosine with (|T|^2 / width - 1)^2 / 2 added: it does not see T's scale, so that this fixes it and costs nothing."""

    loss: Directions

    def value_and_gradient(self, matrix: Tensor) -> tuple[float, Tensor]:
        value, gradient = self.loss.value_and_gradient(matrix)
        excess = float(matrix.square().sum()) / len(matrix) - 1
        return value + excess**2 / 2, gradient + 2 * excess / len(matrix) * matrix

    def hessian(self, matrix: Tensor) -> Callable[[Tensor], Tensor]:
        product, width = self.loss.hessian(matrix), len(matrix)
        excess = float(matrix.square().sum()) / width - 1
        return lambda direction: (
            product(direction) + 2 * excess / width * direction + 4 / width**2 * float((matrix * direction).sum()) * matrix
        )


def weighting_of_loss(loss: Loss) -> Weighting:
    """The token weights under which a fit to `loss` reports its errors."""
    return "uniform" if loss == "mse" else "end_norm"


def objective_of(measurement: Measurement, span: Span, loss: Loss) -> Objective:
    """The loss on the train part. Raises `NumericsError` where the carrier writes nothing, or too few tokens are stored."""
    moments = measurement.moments[span, weighting_of_loss(loss)].train
    require_signal(moments.gram)
    if loss in ("mse", "relative_mse"):
        return Squares(moments)
    require_stored(measurement)
    tokens = Directions.of(measurement.train_sample, span, loss == "cosine_simplified")
    return Pinned(tokens) if tokens.beside is None else tokens


def require_stored(measurement: Measurement) -> None:
    """An error if fewer tokens are stored than T has rows."""
    stored, width = measurement.train_sample.n_tokens, measurement.train_sample.width
    if stored < width:
        raise NumericsError(
            f"The cosine fit needs its tokens at hand: {stored} are stored for a width of {width}. "
            "Use more calibration tokens, or choose least squares, which reads sums."
        )
