"""Proximal gradient steps with momentum (FISTA, Beck and Teboulle 2009): the method for an l1 penalty, which makes entries of T exactly 0.

With mse the problem is convex and the result is checked by its optimality conditions; with a cosine it is a stationary point.
Steps are found by backtracking, and the momentum restarts wherever the loss rises (O'Donoghue and Candes 2015).
"""

import time

import torch
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.plans.plan import MethodSection
from replaceme_core.progress import Progress
from replaceme_core.solvers.descent import TOLERANCE, Descent, concluded, limit_of, subgradient
from replaceme_core.solvers.objectives import Objective, Shrunk, objective_of

_SHORTEN, _LENGTHEN = 2.0, 1.05
_SHORTEST = 1e-20


def solve(measurement: Measurement, span: Span, section: MethodSection, progress: Progress) -> LinearTransform:
    """FISTA from T = I, on the loss with l1 and l2 (both: the elastic net)."""
    began = time.perf_counter()
    objective = Shrunk(objective_of(measurement, span, section.objective), section.l2)
    width = measurement.moments[span, "end_norm"].train.width
    fitted, steps = descend(objective, torch.eye(width, dtype=torch.float64), section.l1, limit_of(section), progress)
    seconds = time.perf_counter() - began
    return concluded(measurement, span, section, objective, Descent(fitted, steps, seconds))


def descend(objective: Objective, start: Tensor, l1: float, most: int, progress: Progress) -> tuple[Tensor, int]:
    """T and the number of steps; ends when the least subgradient is `TOLERANCE` of that at the start."""
    threshold = l1 / len(start)
    value, gradient = subgradient(objective, start, l1)
    enough = TOLERANCE * float(gradient.norm())
    matrix = ahead = start
    length, momentum = 1 / max(float(gradient.norm()), 1e-300), 1.0
    for step in range(1, most + 1):
        if enough == 0:
            return matrix, 0
        moved, length = _proximal_step(objective, ahead, length, threshold)
        now, gradient = subgradient(objective, moved, l1)
        progress.update(step, most, "steps", "proximal gradient")
        if now > value and ahead is not matrix:
            ahead, momentum = matrix, 1.0  # restart from the best point
            continue
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - matrix)
        matrix, value, momentum = moved, now, following
        length *= _LENGTHEN
        if float(gradient.norm()) <= enough:
            return matrix, step
    return matrix, most


def _proximal_step(objective: Objective, at: Tensor, length: float, threshold: float) -> tuple[Tensor, float]:
    """The longest tried step that the quadratic bound of the smooth part allows, and its length."""
    value, gradient = objective.value_and_gradient(at)
    while True:
        stepped = at - length * gradient
        moved = stepped.sign() * (stepped.abs() - length * threshold).clamp_min(0)
        change = moved - at
        bound = value + float((gradient * change).sum()) + float(change.square().sum()) / (2 * length)
        if objective.value_and_gradient(moved)[0] <= bound + 1e-14 * abs(value) or length < _SHORTEST:
            return moved, length
        length /= _SHORTEN
