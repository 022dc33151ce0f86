"""The cosine objective, exact: min mean 1 - cos(M T + Y, H_end), or simplified: min mean 1 - cos(M T, Z) (arXiv 2505.02819).

Solved by reweighted least squares on the stored train tokens, started from weighted least squares. With u = M T + Y,
s = |u|, t = H_end / |H_end| and c = cos(u, t), one step is the weighted least-squares problem with token weight c / s^2
and row target t s / c - Y; its fixed points have zero gradient. The simplified form is the same with Y = 0 and t = Z / |Z|.
It leaves T's scale free, which is then that of least squares. The step with the least held-out loss is kept, the start
included, so that the result is never worse on held-out tokens than what it started from.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.plans.plan import MethodSection
from replaceme_core.progress import SILENT, Progress
from replaceme_core.solvers import least_squares
from replaceme_core.solvers.descent import rescaled
from replaceme_core.solvers.evidence import report
from replaceme_core.solvers.objectives import Directions, require_stored
from replaceme_core.solvers.spectrum import Spectrum, decompose

STEPS = 8
_LEAST_COSINE = 0.05
"""least weight, times |u|^2: tokens that point elsewhere would get a negative one"""
_ENOUGH = 2e-3
"""gain of a step, as a share of the train loss, under which the iteration ends"""


@dataclass(frozen=True, eq=False)
class _Best:
    """The step of least held-out loss; number 0 is the start."""

    loss: float
    number: int
    matrix: Tensor
    condition: float


def solve(measurement: Measurement, span: Span, section: MethodSection, progress: Progress) -> LinearTransform:
    """Reweighted least squares. A ridge of None takes that of the weighted least-squares start."""
    began = time.perf_counter()
    simplified, most = section.name == "cosine_simplified", section.max_iterations or STEPS
    require_stored(measurement)
    start = least_squares.solve(measurement, span, MethodSection(ridge=section.ridge), SILENT)
    assert start.matrix is not None
    ridge = start.report.ridge
    train = Directions.of(measurement.train_sample, span, simplified)
    heldout = Directions.of(measurement.sample, span, simplified)
    matrix, loss = start.matrix, float("inf")
    best = _Best(heldout.loss(matrix), 0, matrix, start.report.condition)
    converged = False
    step = 0
    while True:
        now, spectrum = _step(train, matrix)
        converged = loss - now < _ENOUGH * now
        if converged or step == most:
            break
        loss, step = now, step + 1
        progress.update(step, most, "steps", "reweighted least squares")
        matrix = spectrum.solve(ridge)
        if heldout.loss(matrix) < best.loss:
            best = _Best(heldout.loss(matrix), step, matrix, spectrum.condition(ridge))
    seconds = time.perf_counter() - began
    fitted = rescaled(measurement, span, best.matrix) if simplified else best.matrix
    identity = torch.eye(len(fitted), dtype=torch.float64)
    unit = best.matrix * (len(identity) ** 0.5 / best.matrix.norm()) if simplified else best.matrix
    slopes = [float(train.value_and_gradient(at)[1].norm()) for at in (unit, identity)]
    evidence = report(
        measurement,
        span,
        measurement.moments[span, "end_norm"],
        fitted,
        condition=best.condition,
        rank=start.report.rank,
        ridge=ridge,
        seconds=seconds,
        notes=start.report.notes + _notes(best, converged, most),
        iterations=step,
        gradient=slopes[0] / max(slopes[1], 1e-300),
        converged=converged,
    )
    return LinearTransform(span, section.label, fitted, evidence)


def _notes(best: _Best, converged: bool, most: int) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if best.number == 0:
        notes += ("No step lowered the held-out loss, so this is the weighted least-squares transform; use more calibration tokens.",)
    if not converged:
        notes += (f"The loss was still falling after {most} steps; raise max_iterations (now {most}) or the ridge.",)
    return notes


def _step(tokens: Directions, matrix: Tensor) -> tuple[float, Spectrum]:
    """The loss at T, and the weighted least-squares problem whose solution comes next."""
    gram, cross, total = torch.zeros_like(matrix), torch.zeros_like(matrix), 0.0
    for piece in tokens.pieces():
        patched = piece.patched(matrix)
        size, cosine = piece.sizes(patched)
        total += float(cosine.sum())
        kept = cosine.clamp_min(_LEAST_COSINE)
        target = piece.unit * (size / kept)
        low = (cosine < _LEAST_COSINE).squeeze(1)
        target[low] += patched[low] * (1 - cosine[low] / kept[low])  # so that the fixed point has zero gradient there too
        if piece.beside is not None:
            target -= piece.beside
        weighted = (piece.written * (kept / size.square())).T
        gram.addmm_(weighted, piece.written)
        cross.addmm_(weighted, target)
    return 1 - total / len(tokens.written), decompose(gram, cross)
