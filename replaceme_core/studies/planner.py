"""How much to cut, and where: at each share of the depth the first few places by some criteria are fitted, merged and measured.

    found = search(handle, calibration, measurement, Aim(shares=(0.25, 0.5), k=3))
    [(str(point.candidate.cut), point.quality.kl) for point in found.front]

What a criterion says is cheap and what the pruned model says is true: the first makes a short list, the second decides. It decides on
the held-out part, which the fits were chosen on too, so that the least KL is a little too low; the test part is left to comparisons.
"""

import time
from dataclasses import dataclass, field, replace

from replaceme_core import refit, solvers
from replaceme_core.artifacts import Cut, LinearTransform, Measurement, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.comparison import compare
from replaceme_core.comparison.compare import Divergence
from replaceme_core.errors import InputError, ModelError, NumericsError, ProofError
from replaceme_core.measurement import needs
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import REFIT, MethodSection, PassCriterion, Structure
from replaceme_core.progress import SILENT, Portion, Progress
from replaceme_core.selection import criteria, sinks, spans
from replaceme_core.studies import pareto
from replaceme_core.surgery import surgery

SHARES = (0.125, 0.25, 0.375, 0.5)
PLACES = 3
_SAID = ("places", "fitting and comparing")
_AT_ONCE = 8
"""pruned models that are compared in one go; each shares all tensors but its carrier's with the original"""


@dataclass(frozen=True)
class Aim:
    """What is searched for."""

    shares: tuple[float, ...] = SHARES
    """of the blocks to remove"""
    k: int = PLACES
    """places to measure at each share"""
    spans: int = 1
    """above 1: also the best cut of two spans by the sum of the distances, of three, ... up to as many, fitted in sequence"""
    criteria: tuple[PassCriterion, ...] = ("sinks_kept", "missed")
    """that name the places, in turn: together they miss the best one less often than either alone (benchmarks/LOG.md)"""
    method: MethodSection = field(default_factory=MethodSection)
    """what is fitted in the removed blocks' place"""
    tokens: int = 4096
    """of the held-out part to measure on, if it has as many"""


@dataclass(frozen=True)
class Candidate:
    """Blocks that could go, in one span or in several."""

    cut: Cut
    criterion: PassCriterion
    """that named it first"""
    score: float
    """by this criterion; the less the better"""
    rank: int
    """in the short list of as many blocks and spans; the first is 1"""

    @property
    def n_removed(self) -> int:
        return len(self.cut)


@dataclass(frozen=True)
class Point:
    """A candidate that was fitted, merged and measured."""

    candidate: Candidate
    n_parameters: int
    """of the pruned model"""
    heldout_error: float
    quality: Divergence
    """on the held-out part, with 95 % intervals"""
    on_front: bool
    """no other point removes as many blocks or more at a lower KL"""


@dataclass(frozen=True)
class Places:
    """What a search measured, the fewest blocks first and the best of them first."""

    original: Divergence
    points: tuple[Point, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def front(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.on_front)


def search(
    handle: ModelHandle,
    calibration: CalibrationSet,
    measurement: Measurement,
    aim: Aim | None = None,
    progress: Progress = SILENT,
) -> Places:
    """Fits, merges and measures the first `aim.k` places of every share; KL and perplexity are those on the held-out part.

    Candidates that the pass did not store are measured in a second one. One that cannot be fitted, that fails a proof or
    whose logits are not finite, fails with a note and is in no place. Raises `InputError` for a bad aim, `ModelError` for a model that
    cannot be cut in memory or reads no text.
    """
    began, aim = time.perf_counter(), aim or Aim()
    require_comparable(handle)
    chosen, notes = candidates(measurement, aim, "diagonal" if handle.family.merge == "diagonal" else "full")
    measurement = _with_moments(handle, calibration, measurement, chosen, aim, progress)
    text, points = calibration.heldout_text(aim.tokens), list[Point]()
    at_once = 1 if aim.method.name in REFIT else _AT_ONCE
    for begin in range(0, len(chosen), at_once):
        group = chosen[begin : begin + at_once]
        made = _made(handle, calibration, measurement, group, aim, Portion(progress, begin, len(group) / 2, len(chosen), *_SAID), notes)
        step = Portion(progress, begin + len(group) / 2, len(group) / 2, len(chosen), *_SAID)
        original, *rows = compare.attempts(handle, [variant for _, _, variant in made], text, step)
        for (candidate, error, variant), row in zip(made, rows, strict=True):
            if isinstance(row, NumericsError):
                notes.append(f"{candidate.cut} failed: {row}")
            else:
                points.append(Point(candidate, variant.n_parameters, error, row, False))
    if not points:
        raise NumericsError("None of the candidates could be measured: " + " ".join(notes))
    assert isinstance(original, Divergence), "that of the original is raised"
    return Places(original, tuple(_with_front(points)), tuple(notes), time.perf_counter() - began)


def _made(
    handle: ModelHandle, calibration: CalibrationSet, measurement: Measurement, group: list[Candidate], aim: Aim, progress: Portion,
    notes: list[str],
) -> list[tuple[Candidate, float, ModelHandle]]:  # fmt: skip
    """Those of a group that can be fitted and cut, with the held-out error of the fit; the others leave a note."""
    made = []
    for index, candidate in enumerate(group):
        step = progress.part(index / len(group), (index + 1) / len(group))
        try:
            fitted = _fitted(handle, calibration, measurement, candidate.cut, aim, step)
            made.append((candidate, fitted.report.heldout_error, surgery.prune(handle, fitted, str(candidate.cut)).handle))
        except (NumericsError, ProofError) as error:
            notes.append(f"{candidate.cut} failed: {error}")
        step.update(1, 1, "", "")
    return made


def spans_for(aim: Aim) -> list[Span] | None:
    """What the first pass of a search stores (see `measure`): everything, or nothing where neither the fits nor the criteria read it."""
    return None if needs.reads_moments(aim.method) or "missed" in aim.criteria else []


def candidates(measurement: Measurement, aim: Aim, structure: Structure = "full") -> tuple[list[Candidate], list[str]]:
    """The first `aim.k` spans of each share, named by the criteria in turn, and the best cuts of several if they are asked for.

    The notes say where a criterion had to fall back on the distance.
    """
    if aim.k < 1 or not aim.criteria or not aim.shares or not all(0 < share < 1 for share in aim.shares):
        raise InputError(
            f"A search needs shares between 0 and 1, at least 1 place of each, and a criterion; these are {aim.shares}, {aim.k} and {aim.criteria}."
        )
    found: list[Candidate] = []
    notes: list[str] = []
    for length in sorted({spans.length_of_share(measurement.n_blocks, share) for share in aim.shares}):
        named: list[tuple[int, int, PassCriterion, Span, float]] = []
        for turn, criterion in enumerate(aim.criteria):
            matrix, note = criteria.rank(measurement, length, criterion, structure=structure)
            notes += [note] if note else []
            named += [(place, turn, criterion, span, score) for place, (span, score) in enumerate(spans.top(matrix, length, aim.k))]
        first: dict[Span, tuple[PassCriterion, float]] = {}
        for _, _, criterion, span, score in sorted(named):
            first.setdefault(span, (criterion, score))
        listed = list(first.items())[: aim.k]
        found += [Candidate(Cut((span,)), criterion, score, rank) for rank, (span, (criterion, score)) in enumerate(listed, start=1)]
        distances = sinks.kept(measurement)
        for count in range(2, min(aim.spans, length, measurement.n_blocks - length) + 1):
            cut = spans.several(distances, length, count)
            found.append(Candidate(cut, "sinks_kept", sum(map(distances.at, cut.spans)), 1))
    return found, notes


def _with_front(points: list[Point]) -> list[Point]:
    """The points in order, with those marked that no other one dominates."""
    ordered = sorted(points, key=lambda point: (point.candidate.n_removed, point.quality.kl))
    marked = pareto.on_front([(-point.candidate.n_removed, point.quality.kl) for point in ordered])
    return [replace(point, on_front=on_front) for point, on_front in zip(ordered, marked, strict=True)]


def _with_moments(
    handle: ModelHandle, calibration: CalibrationSet, measurement: Measurement, chosen: list[Candidate], aim: Aim, progress: Progress
) -> Measurement:
    """The measurement, or one of a second pass that stored every candidate, where the fits read what it lacks."""
    wanted = {span for candidate in chosen for span in candidate.cut.spans if len(candidate.cut.spans) == 1}
    if not needs.reads_moments(aim.method) or wanted <= set(measurement.spans()):
        return measurement
    return measure(handle, calibration, sorted(wanted), progress)


def _fitted(
    handle: ModelHandle, calibration: CalibrationSet, measurement: Measurement, cut: Cut, aim: Aim, progress: Progress
) -> LinearTransform:
    if aim.method.name in REFIT or len(cut.spans) > 1:
        return refit.fit(handle, calibration, cut, aim.method, progress=progress, store=measurement.store)
    return solvers.fit(measurement, cut.spans[0], aim.method, progress=progress)


def require_comparable(handle: ModelHandle) -> None:
    """A `ModelError` for a model that cannot be searched."""
    if handle.family.inputs != "text":
        raise ModelError("The search compares next-token probabilities, and this model reads images; choose its span by the distance.")
    if handle.checkpoint is not None:
        raise ModelError(
            f"'{handle.name}' is held quantised or spread over devices, so that no cut of it is made in memory. Load it unquantised on one "
            "device to search, or choose the span by a criterion."
        )
