"""Work beside the pages, with progress, time left and cancel: a worker for long jobs and one for short ones, which take turns (`session.turns`).

A worker never calls streamlit.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import streamlit as st

from replaceme_core import extras
from replaceme_core.errors import Cancelled, ReplaceMeError, quoted
from replaceme_core.memory import is_short
from replaceme_core.storage.folders import said_by_system
from ui.session.turns import DRAWING, LANES, STOPPED, Lane, Turn, stand_back

logger = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "failed", "cancelled"]
ACTIVE = ("waiting", "running")
_DOUBLE = 1.0
"""seconds within which the same request is the second half of a double click"""


def sentence(error: BaseException) -> str:
    """What a person reads about an error: the library's own sentence, or a plain one for the unexpected."""
    error = extras.missing(error) or error
    if isinstance(error, ReplaceMeError):
        return str(error)
    if is_short(error):
        return "The memory was not enough for this step. Choose a smaller model, a smaller precision or fewer tokens, then try again."
    if isinstance(error, OSError):
        return said_by_system(error)
    words = quoted(error)
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return f"This step stopped for a reason the app did not expect ({said}). The server's log has the details."


@dataclass(eq=False)
class Job:
    """One piece of work. It is the library's `Progress`: `update` raises `Cancelled` once cancel was pressed."""

    title: str
    owner: str
    work: Callable[["Job"], Any]
    settings: str = ""
    """what tells this job from another of the same title"""
    lane: Lane = "long"
    moves: bool = False
    """whether it sets the model or the measurement, on which all else stands"""
    turn: Turn | None = field(default=None, repr=False)
    """shared with all jobs of the process, once it is queued"""
    state: State = "waiting"
    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    what: str = ""
    error: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)
    enough: threading.Event = field(default_factory=threading.Event)
    """somebody has enough: the work ends where it can and keeps what it has"""
    stoppable: bool = False
    """whether a person is offered to have enough"""
    can_end: bool = False
    """whether the work would end now with a result"""
    background: bool = False
    """nobody asked for it: it ends, with what it has, as soon as anybody wants anything else done"""
    pictures: int = 0
    """results on the way that pages can show already; they redraw for each"""
    finished: threading.Event = field(default_factory=threading.Event)
    asked_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    """seconds in which others had the turn"""
    _phase: tuple[str, float, float, float] = ("", 0.0, 0.0, 0.0)
    """unit, total, and the time and amount at which this count was first seen; what is being done may change while it goes on"""

    def update(self, done: float, total: float, unit: str, what: str) -> None:
        if self.cancel.is_set():
            raise Cancelled(STOPPED)
        if self._phase[:2] != (unit, total) or done < self.done:
            self._phase = (unit, total, time.monotonic(), done)
        self.done, self.total, self.unit, self.what = done, total, unit, what
        if self.turn is not None:
            waited = self.turn.give_way(self) + (DRAWING.give_way() if self.lane == "long" else 0.0)
            self.waited += waited
            self._phase = (unit, total, self._phase[2] + waited, self._phase[3])

    def show(self, can_end: bool) -> bool:
        """There is something new to be seen; True once somebody has enough."""
        self.pictures, self.can_end, self.stoppable = self.pictures + 1, can_end, True
        return self.enough.is_set()

    def tell(self) -> None:
        """There is something new to be seen; the work goes on to its own end."""
        self.pictures += 1

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def paused(self) -> bool:
        """Whether it has begun and lets a short one go first."""
        return self.state == "running" and self.turn is not None and not self.turn.is_held_by(self)

    @property
    def fraction(self) -> float:
        return min(1.0, max(0.0, self.done / self.total)) if self.total else 0.0

    @property
    def rate(self) -> float | None:
        """Units per second in the present phase, once it has lasted long enough to tell."""
        _, _, since, first = self._phase
        elapsed = time.monotonic() - since
        return (self.done - first) / elapsed if elapsed > 0.3 and self.done > first else None

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate else None

    def run(self) -> None:
        """Do the work; every ending is recorded, none is raised. The work is let go, since it may hold a model that is to be unloaded."""
        self.started_at = time.monotonic()
        try:
            with self.turn.taken(self) if self.turn is not None else nullcontext():
                self.started_at = time.monotonic()
                self.state = "running"
                self.update(0, 0, "", "starting")
                self.work(self)
            self.state = "done"
        except Cancelled as error:
            self.state, self.error = "cancelled", str(error)
        except Exception as error:
            if not isinstance(error, ReplaceMeError):
                logger.exception("job '%s' failed", self.title)
            self.state, self.error = "failed", sentence(error)
        finally:
            self.seconds = time.monotonic() - self.started_at - self.waited
            self.work = _done
            self.finished.set()


def _done(_job: Job) -> None:
    """What stands in for work that is over."""


class Runner:
    """One worker for long jobs and one for short ones; of all of them one computes, so that two tabs never compete for processor and memory.

    Work in the background has a worker of its own that stands back; it makes room for whatever is asked for, and is seen by nobody who asks
    for the newest job.
    """

    def __init__(self) -> None:
        self._pools = {lane: ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{lane} job") for lane in LANES}
        self._behind = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background job", initializer=stand_back)
        self._turn = Turn()
        self._jobs: list[Job] = []
        self._lock = threading.Lock()

    def submit(self, job: Job) -> Job:
        """Queue the job and return it; or return the one that is there already, if this is the second half of a double click."""
        with self._lock:
            twin = next((old for old in reversed(self._jobs) if _same(old, job)), None)
            if twin is not None:
                return twin
            self._turn.ask(job)
            if not job.background:
                for other in self._jobs:
                    if other.background and other.active:
                        other.enough.set()
            self._jobs = [
                *[old for old in self._jobs if old.active or old.owner != job.owner or old.background != job.background][-50:],
                job,
            ]
        job.turn = self._turn
        (self._behind if job.background else self._pools[job.lane]).submit(job.run)
        return job

    def latest(self, owner: str, lane: Lane | None = None) -> Job | None:
        """The newest job that this owner asked for, running or ended; of one lane, or of both."""
        with self._lock:
            return next(
                (job for job in reversed(self._jobs) if job.owner == owner and lane in (None, job.lane) and not job.background), None
            )

    def behind(self, owner: str) -> Job | None:
        """The newest job in the background of this owner, running or ended."""
        with self._lock:
            return next((job for job in reversed(self._jobs) if job.owner == owner and job.background), None)

    def active(self, owner: str) -> list[Job]:
        """What this owner asked for and runs or waits, in the order in which it was asked for."""
        with self._lock:
            return [job for job in self._jobs if job.owner == owner and job.active and not job.background]

    def forget(self, job: Job) -> None:
        """Drop an ended job from the list."""
        with self._lock:
            self._jobs = [other for other in self._jobs if other is not job]

    def queue(self) -> list[Job]:
        """Every job that was asked for and runs or waits, in the order in which they were asked for, whoever did."""
        with self._lock:
            return [job for job in self._jobs if job.active and not job.background]

    def titles_ahead(self, job: Job) -> list[str]:
        """What the jobs are called that run before this one; of another session only that there is one."""
        return [other.title if other.owner == job.owner else "somebody else's" for other in self._before(job)]

    def ahead(self, job: Job) -> int:
        """How many jobs run before this one."""
        return len(self._before(job))

    def _before(self, job: Job) -> list[Job]:
        """Those of its own lane that were asked for earlier."""
        queue = self.queue()
        return [other for other in queue[: queue.index(job)] if other.lane == job.lane] if job in queue else []


def _same(old: Job, new: Job) -> bool:
    """Whether both ask for the same, and the older one is still active or was done only a moment after it was asked for."""
    if (old.owner, old.title, old.settings) != (new.owner, new.title, new.settings) or old.cancel.is_set():
        return False
    return old.active or (old.state == "done" and new.asked_at - old.asked_at < _DOUBLE)


@st.cache_resource(show_spinner=False)
def runner() -> Runner:
    return Runner()
