"""What every gradient method ends with: is the result usable, did it converge, and the report that says so."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.errors import NumericsError
from replaceme_core.figures import number
from replaceme_core.plans.plan import MethodSection
from replaceme_core.solvers.evidence import report
from replaceme_core.solvers.objectives import Objective, Shrunk, weighting_of_loss
from replaceme_core.solvers.spectrum import spectrum_of

TOLERANCE = 1e-4
"""gradient norm, relative to that at T = I, at which a descent has converged"""
_LIMITS = {"adam": 10, "lbfgs": 200, "nonlinear_cg": 200, "newton_cg": 30, "trust_region": 30, "proximal": 2000}
_HARDLY = 0.02
"""share of the loss at T = I that a descent must take away to be worth its name"""


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a gradient method ended."""

    matrix: Float64[Tensor, "width width"]
    iterations: int
    seconds: float
    ended: str = ""
    """why it stopped, where that was not its own choice"""


def subgradient(objective: Objective, matrix: Tensor, l1: float) -> tuple[float, Tensor]:
    """Loss with the l1 penalty, and the subgradient of least norm: zero exactly at a minimum."""
    value, gradient = objective.value_and_gradient(matrix)
    strength = l1 / len(matrix)
    at_zero = gradient.sign() * (gradient.abs() - strength).clamp_min(0)
    return value + strength * float(matrix.abs().sum()), torch.where(matrix == 0, at_zero, gradient + strength * matrix.sign())


def concluded(measurement: Measurement, span: Span, section: MethodSection, objective: Shrunk, end: Descent) -> LinearTransform:
    """The transform with its evidence. Raises `NumericsError` where the descent left the finite numbers."""
    matrix, weighting = end.matrix, weighting_of_loss(section.objective)
    identity = torch.eye(len(matrix), dtype=torch.float64)
    if not matrix.isfinite().all():
        raise NumericsError(
            f"'{section.name}' left the finite numbers; use 'cosine' or 'weighted_least_squares', which solve and do not step."
        )
    value, gradient = subgradient(objective, matrix, section.l1)
    before, reference = subgradient(objective, identity, section.l1)
    left = float(gradient.norm() / reference.norm()) if reference.any() else 0.0
    converged = left <= TOLERANCE
    notes = []
    if not converged:
        notes.append(
            f"Not converged: after {end.iterations} steps{end.ended} the gradient is {number(left)} of that at T = I "
            f"({number(TOLERANCE)} would be converged); raise max_iterations (now {limit_of(section)})"
            + ("." if section.objective == "cosine_simplified" else f", or the l2 penalty (now {number(section.l2, 6)}).")
        )
    if reference.any() and value > (1 - _HARDLY) * before and not converged:
        notes.append(
            f"{end.iterations} steps hardly moved T from the identity (loss {before:.4f} to {value:.4f}); "
            "use more tokens, or the methods 'cosine' and 'weighted_least_squares'."
        )
    if section.objective == "cosine_simplified":
        matrix = rescaled(measurement, span, matrix)
    moments = measurement.moments[span, weighting]
    spectrum = spectrum_of(moments.train)
    evidence = report(
        measurement,
        span,
        moments,
        matrix,
        condition=spectrum.condition(0.0),
        rank=spectrum.rank,
        ridge=0.0,
        seconds=end.seconds,
        notes=tuple(notes),
        iterations=end.iterations,
        gradient=left,
        converged=converged,
    )
    return LinearTransform(span, section.label, matrix, evidence)


def limit_of(section: MethodSection) -> int:
    """The most iterations that a gradient method may take."""
    return section.max_iterations or _LIMITS[section.name]


def rescaled(measurement: Measurement, span: Span, matrix: Tensor) -> Tensor:
    """T times the factor of least squares on the train tokens (weights 1/|H_end|): what the simplified cosine leaves free.

    Raises `NumericsError` where that factor is not positive: the direction found then says nothing about the target.
    """
    moments = measurement.moments[span, "end_norm"].train
    size = float((matrix * (moments.gram @ matrix)).sum())
    scale = float((matrix * moments.cross).sum()) / size if size > 0 else 0.0
    if not scale > 0:
        raise NumericsError(
            f"The simplified cosine found a direction whose least-squares scale is {number(scale)}, not positive; use the exact form, 'cosine'."
        )
    return matrix * scale
