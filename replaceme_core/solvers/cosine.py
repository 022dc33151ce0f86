"""The cosine objective, exact: min mean 1 - cos(M T + Y, H_end), or simplified: min mean 1 - cos(M T, Z) (arXiv 2505.02819).

Solved by reweighted least squares, started from weighted least squares. With u = M T + Y, s = |u|, t = H_end / |H_end| and
c = cos(u, t), one step is the weighted least-squares problem with token weight c / s^2 and row target t s / c - Y; its fixed points
have zero gradient. The simplified form is the same with Y = 0 and t = Z / |Z|. It leaves T's scale free, which is then that of least
squares.

A step needs single tokens, and a pass stores some of them only. Fitted to these alone, T follows them and loses what all train
tokens say: on a real model the first step raised the held-out loss, and the result was its start (benchmarks/LOG.md). So the stored
tokens may give what the new weights change, and the sums over all train tokens the rest: b (all - stored) is added to a step's sums,
`all` and `stored` under the weights 1/|H_end|, b the ratio of the step's weights to those. How much of it is added, all, half or
nothing, the held-out tokens decide, at the first step and before the last: where weighted least squares is far from the answer, its sums
say little of it.

A step that raises the held-out loss is halved toward where it came from, and what does not lower it is not taken, so that the
result is never worse on held-out tokens than weighted least squares. The steps end when one of them gains next to nothing there.
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
from replaceme_core.solvers.spectrum import decompose

STEPS = 8
_LEAST_COSINE = 0.05
"""least weight, times |u|^2: tokens that point elsewhere would get a negative one"""
_ENOUGH = 1e-3
"""gain of a step, as a share of the held-out loss, under which the iteration ends"""
_PIECE = 1024
"""stored tokens at a time"""
_TINY = torch.finfo(torch.float64).tiny
_SHARES = (1.0, 0.5, 0.0)
"""of what is beyond the stored tokens"""
_HALVINGS = 3
"""of a step that raises the held-out loss"""


@dataclass(frozen=True, eq=False)
class _At:
    """A transform, its held-out loss and the step that made it; number 0 is the start."""

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
    train = Directions.of(measurement.train_sample, span, simplified)
    heldout = Directions.of(measurement.sample, span, simplified)
    problem = _Problem(train, heldout, _beyond(measurement, span), start.report.ridge)
    best, steps, converged = _descended(problem, start, most, progress)
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
        ridge=start.report.ridge,
        seconds=seconds,
        notes=start.report.notes + _notes(measurement, span, best, converged, most),
        iterations=steps,
        gradient=slopes[0] / max(slopes[1], 1e-300),
        converged=converged,
    )
    return LinearTransform(span, section.label, fitted, evidence)


def _descended(problem: "_Problem", start: LinearTransform, most: int, progress: Progress) -> tuple[_At, int, bool]:
    """The best transform, the number of steps, and whether they ended by themselves."""
    assert start.matrix is not None
    best = _At(problem.heldout.loss(start.matrix), 0, start.matrix, start.report.condition)
    every = shares = _SHARES if problem.beyond is not None else (0.0,)
    for number in range(1, most + 1):
        moved, share = problem.step(best, number, shares)
        progress.update(number, most, "steps", "reweighted least squares")
        gain, best = best.loss - moved.loss, moved if moved.loss < best.loss else best
        enough = gain <= _ENOUGH * abs(best.loss)
        if enough and shares == every:
            return best, number, True
        shares = every if enough else (share,)
    return best, most, False


def _notes(measurement: Measurement, span: Span, best: _At, converged: bool, most: int) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if best.number == 0:
        stored, whole = measurement.train_sample.n_tokens, measurement.moments[span, "end_norm"].train.n_tokens
        notes += (
            f"No step lowered the held-out loss, so this is the weighted least-squares transform; {stored:,} of {whole:,} train tokens are "
            "looked at one by one, as this method needs them: use more calibration tokens.",
        )
    if not converged:
        notes += (f"The loss was still falling after {most} steps; raise max_iterations (now {most}) or the ridge.",)
    return notes


@dataclass(frozen=True, eq=False)
class _Beyond:
    """What all train tokens have beyond the stored ones, in the size of the stored ones, under the weights 1/|H_end|."""

    gram: Tensor
    cross: Tensor
    stored: float
    """trace of the stored tokens' own Gram matrix"""


@dataclass(frozen=True, eq=False)
class _Problem:
    """What the steps read."""

    train: Directions
    heldout: Directions
    beyond: _Beyond | None
    ridge: float

    def step(self, at: _At, number: int, shares: tuple[float, ...]) -> tuple[_At, float]:
        """Where one step leads, with that share of what is beyond the stored tokens which has the least held-out loss."""
        gram, cross = _sums(self.train, at.matrix)
        tried = []
        for share in shares:
            spectrum = decompose(*self._with(share, gram, cross))
            tried.append((self._nearer(at, spectrum.solve(self.ridge), number, spectrum.condition(self.ridge)), share))
        return min(tried, key=lambda pair: pair[0].loss)

    def _with(self, share: float, gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        if self.beyond is None or share == 0:
            return gram, cross
        ratio = share * float(gram.trace()) / self.beyond.stored
        return gram + ratio * self.beyond.gram, cross + ratio * self.beyond.cross

    def _nearer(self, at: _At, matrix: Tensor, number: int, condition: float) -> _At:
        """The whole step, or the first of its halves that does not raise the held-out loss."""
        loss = self.heldout.loss(matrix)
        for _ in range(_HALVINGS):
            if loss <= at.loss:
                break
            matrix = (matrix + at.matrix) / 2
            loss = self.heldout.loss(matrix)
        return _At(loss, number, matrix, condition)


def _beyond(measurement: Measurement, span: Span) -> _Beyond | None:
    """None where every train token is stored."""
    whole, sample = measurement.moments[span, "end_norm"].train, measurement.train_sample
    if sample.n_tokens == whole.n_tokens:
        return None
    gram, cross = torch.zeros_like(whole.gram), torch.zeros_like(whole.cross)
    states = (sample.writers[span.carrier], sample.boundaries[span.start], sample.boundaries[span.end])
    for pieces in zip(*(state.split(_PIECE) for state in states), strict=True):
        written, start, end = (piece.double() for piece in pieces)
        weighted = (written / torch.linalg.vector_norm(end, dim=-1, keepdim=True).clamp_min(_TINY)).T
        gram.addmm_(weighted, written)
        cross.addmm_(weighted, end - start + written)
    share = sample.n_tokens / whole.n_tokens
    return _Beyond(share * whole.gram - gram, share * whole.cross - cross, float(gram.trace()))


def _sums(tokens: Directions, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """M'M and M'Z of the weighted least-squares problem whose solution comes after T."""
    gram, cross = torch.zeros_like(matrix), torch.zeros_like(matrix)
    for piece in tokens.pieces():
        patched = piece.patched(matrix)
        size, cosine = piece.sizes(patched)
        kept = cosine.clamp_min(_LEAST_COSINE)
        target = piece.unit * (size / kept)
        low = (cosine < _LEAST_COSINE).squeeze(1)
        target[low] += patched[low] * (1 - cosine[low] / kept[low])  # so that the fixed point has zero gradient there too
        if piece.beside is not None:
            target -= piece.beside
        weighted = (piece.written * (kept / size.square())).T
        gram.addmm_(weighted, piece.written)
        cross.addmm_(weighted, target)
    return gram, cross
