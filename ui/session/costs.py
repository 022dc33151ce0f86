"""What places were measured to cost: kept for the process by model and calibration text, and filled by a job in the background."""

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import streamlit as st

from replaceme_core.errors import Cancelled, NumericsError
from ui.session import live
from ui.session.jobs import Job, runner
from ui.session.methods import structures
from ui.session.state import Lifetime, Slot, Studio
from ui.session.turns import DRAWING
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import DistanceMatrix, LinearTransform, Span
    from replaceme_core.comparison.places import Choice
    from replaceme_core.comparison.tails import Tail, Tails

T = TypeVar("T")
TITLE = "What each place costs"
REMOVED = "removed"
LIMIT = "REPLACEME_COST_SECONDS"
"""how long measuring may take to begin by itself; 0: it waits to be asked"""
_LIMIT = 300.0
_KEPT = 8
"""pairs of model and text whose figures are kept"""


@dataclass(eq=False)
class Costs:
    """Of one model on one text, by span and kind (`REMOVED`, or the structure of the closed-form T in the blocks' place)."""

    found: "dict[tuple[Span, str], Tail]" = field(default_factory=dict)
    failed: "dict[tuple[Span, str], str]" = field(default_factory=dict)
    """sentences"""

    def knows(self, span: "Span", kind: str) -> bool:
        return (span, kind) in self.found or (span, kind) in self.failed

    def of(self, kind: str) -> "list[Tail]":
        return [tail for (_, own), tail in list(self.found.items()) if own == kind]


@dataclass(eq=False)
class CostState(Slot):
    """What this session wants of it."""

    lifetime: ClassVar[Lifetime] = "measurement"
    stopped: bool = False
    """somebody pressed Stop"""
    asked: bool = False
    """somebody wants it, however long it takes"""
    told: tuple[int, float] = (0, 0.0)
    """figures that the page shows, and when it was drawn"""
    in_tooltips: tuple[int, float] = (0, float("-inf"))
    """figures that the cells of the matrix say, and when they were put in"""
    worked_out: "dict[Hashable, Any]" = field(default_factory=dict)
    """what `_once` keeps"""


class _Shelf:
    """The figures of the last few pairs of model and text."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Costs] = {}
        self._lock = threading.Lock()

    def of(self, key: tuple[str, str]) -> Costs:
        with self._lock:
            found = self._held.pop(key, None) or Costs()
            while len(self._held) >= _KEPT:
                self._held.pop(next(iter(self._held)))
            self._held[key] = found
            return found


@st.cache_resource(show_spinner=False)
def _shelf() -> _Shelf:
    return _Shelf()


def costs(state: Studio) -> Costs:
    """Of the present model and text, whoever had them measured."""
    measurement = live.measured(state)
    return _shelf().of((measurement.model_fingerprint, measurement.calibration_fingerprint))


def can_measure(state: Studio) -> bool:
    """Of language models, once a pass is over."""
    return state.measurement is not None and state.partial is None and not state.reads_images and state.resident is not None


def fitted_kind(state: Studio) -> str:
    """The most general T that merges."""
    return structures(state)[0]


def kind_of(state: Studio, span: "Span") -> str:
    """What the suggestion goes by: that T, or plain removal where the pass could store nothing to fit from."""
    return fitted_kind(state) if live.can_fit(state, span) else REMOVED


def n_known(state: Studio) -> int:
    """Figures there are, or are known not to be had. They only become more."""
    known = costs(state)
    return len(known.found) + len(known.failed)


def _once(state: Studio, key: Hashable, make: "Callable[[], T]") -> "T":
    """What `make` says of the figures there are, worked out once for all parts of a page."""
    held, whole = state.slot(CostState).worked_out, (n_known(state), key)
    if whole not in held:
        for old in [other for other in list(held) if other[0] != whole[0]]:
            held.pop(old, None)
        held[whole] = make()
    found: T = held[whole]
    return found


def places(state: Studio, length: int) -> "list[Span]":
    """Every span of this length."""
    from replaceme_core.artifacts import Span

    return [Span(start, start + length) for start in range(1, live.measured(state).n_blocks - length + 1)]


def pending(state: Studio, length: int) -> "Iterator[tuple[Span, str]]":
    """What is to be measured, in this order: single blocks removed, then the places of a length with T, then these without."""
    known = costs(state)
    wanted = [(span, REMOVED) for span in places(state, 1)]
    own = places(state, length)
    wanted += [(span, kind) for kind in dict.fromkeys((kind_of(state, own[0]), REMOVED)) for span in own]
    return (each for each in dict.fromkeys(wanted) if not known.knows(*each))


def is_complete(state: Studio, length: int) -> bool:
    """Whether every place of this length is measured, as far as it can be."""
    own, known = places(state, length), costs(state)
    kind = kind_of(state, own[0])
    return all(known.knows(span, kind) for span in own)


def choice(state: Studio, length: int) -> "Choice | None":
    """The place of this length to suggest: the first by distance, unless another was measured to cost clearly less; None before all are measured."""
    from replaceme_core.comparison import places as library
    from replaceme_core.selection import sinks, spans

    def make() -> "Choice | None":
        found = _of_length(state, length)
        return library.choice(found, spans.best(sinks.kept(live.measured(state)), length)) if found else None

    return _once(state, ("choice", length), make)


def undecided(state: Studio, length: int) -> "set[Span]":
    """The places of this length that the text cannot tell from the first one."""
    from replaceme_core.comparison import places as library

    return _once(state, ("undecided", length), lambda: library.undecided(_of_length(state, length)))


def _of_length(state: Studio, length: int) -> "list[Tail]":
    """None before all are measured."""
    if not can_measure(state) or not is_complete(state, length):
        return []
    own = places(state, length)
    found = [costs(state).found.get((span, kind_of(state, own[0]))) for span in own]
    return [tail for tail in found if tail is not None]


def matrix(state: Studio, kind: str) -> "DistanceMatrix | None":
    """KL of every span that was measured; None where none was."""
    from replaceme_core.comparison import places as library

    def make() -> "DistanceMatrix | None":
        found = costs(state).of(kind)
        return library.matrix(found, live.measured(state).n_blocks) if found else None

    return _once(state, ("matrix", kind), make)


def seconds(state: Studio, length: int) -> float:
    """How long the rest will take about, by the speed of this session's own pass."""
    from replaceme_core.comparison.places import AT_ONCE, TOKENS
    from replaceme_core.plans.plan import MethodSection
    from replaceme_core.solvers import cost

    measurement, resident, todo = live.measured(state), state.resident, list(pending(state, length))
    if resident is None or not todo:
        return 0.0
    n_blocks, width = measurement.n_blocks, resident.handle.width
    tokens = min(TOKENS, measurement.n_heldout_tokens)
    block = sum(resident.block_parameters) / n_blocks
    a_block = measurement.seconds / (measurement.n_tokens * n_blocks)
    head = len(resident.handle.tokenizer) * width  # about; asking the model would wait for whoever has borrowed it
    heads = head / block * len(todo) * (1 + 1 / AT_ONCE)
    run = tokens * a_block * (n_blocks + sum(n_blocks - span.end for span, _ in todo) + heads)
    fit = cost.seconds(width, measurement.n_tokens, MethodSection(), resident.handle.device)
    return float(run + sum(kind != REMOVED for _, kind in todo) * fit)


def limit() -> float:
    try:
        return float(os.environ.get(LIMIT, _LIMIT))
    except ValueError:
        return _LIMIT


def begin(state: Studio, length: int) -> Job | None:
    """The job in the background that measures what is left: begun if somebody asked, or by itself if it is short and nobody waits."""
    own, job = state.slot(CostState), runner().behind(state.owner)
    if job is not None and job.active:
        return job
    if own.stopped or failure(state) or runner().queue() or next(pending(state, length), None) is None:
        return None
    if not own.asked and seconds(state, length) > limit():
        return None
    return submit(state, TITLE, lambda job: _measure(state, job), str(id(state.measurement)), background=True)


def waits(state: Studio, length: int) -> bool:
    """Whether it would go on, but for work that somebody asked for."""
    return (
        bool(runner().queue())
        and not state.slot(CostState).stopped
        and not failure(state)
        and next(pending(state, length), None) is not None
    )


def failure(state: Studio) -> str:
    """Why the measuring of this text ended, if it failed."""
    job = runner().behind(state.owner)
    return job.error if job is not None and job.state == "failed" and job.settings == str(id(state.measurement)) else ""


def go_on(state: Studio) -> None:
    """Somebody wants it, however long it takes, also after it was stopped or failed."""
    own, job = state.slot(CostState), runner().behind(state.owner)
    own.stopped, own.asked = False, True
    if job is not None and not job.active:
        runner().forget(job)


def stop(state: Studio) -> None:
    """Ends it after the present step; what was measured stays."""
    job = runner().behind(state.owner)
    state.slot(CostState).stopped = True
    if job is not None:
        job.enough.set()


class _Patient:
    """The progress of one step: ends it at once where somebody wants something else."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def update(self, _done: float, _total: float, _unit: str, _what: str) -> None:
        if self._job.enough.is_set() or self._job.cancel.is_set():
            raise Cancelled("Others come first. What was measured before is still here.")
        DRAWING.give_way()


def _measure(state: Studio, job: Job) -> None:
    """Step after step, of whatever length the session looks at by then."""
    from replaceme_core.comparison import places as library
    from replaceme_core.comparison.tails import Tails

    measurement, resident, calibration = state.measurement, state.resident, state.calibration
    if measurement is None or resident is None or calibration is None:
        return
    known, patient, done, tails = costs(state), _Patient(job), 0, None
    while state.measurement is measurement and state.span is not None:
        todo = list(pending(state, len(state.span)))
        if not todo:
            return
        patient.update(0, 0, "", "")
        job.update(done, done + len(todo), "places", "measuring")
        if tails is None:
            tails = Tails(resident.handle, calibration.heldout_text(library.TOKENS, library.LENGTH), patient)
        kind = todo[0][1]
        step = [span for span, other in todo if other == kind][: library.AT_ONCE]
        _step(state, known, tails, step, kind, patient)
        done += len(step)
        job.tell()


def _step(state: Studio, known: Costs, tails: "Tails", step: "list[Span]", kind: str, patient: _Patient) -> None:
    from replaceme_core.comparison import places as library

    fit = None if kind == REMOVED else _fit_of(state, kind)
    for span, found in zip(step, library.measured(tails, step, fit, patient), strict=True):
        if isinstance(found, NumericsError):
            known.failed[span, kind] = str(found)
        else:
            known.found[span, kind] = found


def _fit_of(state: Studio, structure: str) -> "Callable[[Span], LinearTransform]":
    """Least squares, tokens weighed. Its moments are summed beside those that the pages keep, so that no page waits for them."""
    from replaceme_core import solvers
    from replaceme_core.measurement.moments import HeldMoments
    from replaceme_core.plans.plan import LEAST_SQUARES, MethodSection

    measurement, method = live.measured(state), MethodSection.parse({"name": LEAST_SQUARES[0], "structure": structure})

    def fit(span: "Span") -> "LinearTransform":
        moments = dict(measurement.moments.of_many([span], "end_norm"))[span]
        return solvers.fit(replace(measurement, moments=HeldMoments({(span, "end_norm"): moments})), span, method)

    return fit
