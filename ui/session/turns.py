"""Who computes now: one job at a time in the whole process, a long one giving way to short ones between its own steps.

Long work (benchmarks, a pass, a sweep) and short work (writing text, one fit, saving) have a worker each. Only one of them computes, so that
they never compete for the processor and never meet inside a model. A long job reports its progress between its steps, and there it waits while
short work is to be done; where it holds a model at that moment, for the hooks it has on it or the weights it is moving, it goes on to
its next step. What it drew at random before is drawn the same after.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, Protocol

from replaceme_core.errors import Cancelled
from replaceme_core.handle import holds_a_model

Lane = Literal["long", "short"]
LANES: tuple[Lane, ...] = ("long", "short")
STOPPED = "Cancelled. What was computed before is still here."
_PERIOD = 0.2
"""seconds after which a job that waits looks whether it was cancelled"""


class Waits(Protocol):
    """What takes turns: a job."""

    lane: Lane
    background: bool
    cancel: threading.Event


class Turn:
    """The one turn of a process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: Waits | None = None
        self._short = 0
        """short jobs that have the turn or wait for it"""
        self._asked = 0
        """jobs that somebody asked for, and that have the turn or wait for it"""

    def ask(self, job: Waits) -> None:
        """The job will take the turn, as soon as its worker comes to it."""
        with self._changed:
            self._asked += not job.background

    @contextmanager
    def taken(self, job: Waits) -> Iterator[None]:
        """Within this block a job that has asked computes. Waits until it may, raises `Cancelled` if it is cancelled while it waits."""
        with self._changed:
            self._short += job.lane == "short"
        try:
            self._take(job)
            yield
        finally:
            with self._changed:
                self._short -= job.lane == "short"
                self._asked -= not job.background
            self._leave(job)

    def give_way(self, job: Waits) -> float:
        """Between two steps of a long job: lets short ones go first, and returns the seconds it waited. Raises `Cancelled`."""
        if job.lane != "long" or not self._short or self._holder is not job or holds_a_model():
            return 0.0
        began = time.monotonic()
        with _same_dice():
            self._leave(job)
            self._take(job)
        return time.monotonic() - began

    def is_held_by(self, job: Waits) -> bool:
        return self._holder is job

    def _take(self, job: Waits) -> None:
        with self._changed:
            while self._holder is not None or (job.lane == "long" and self._short) or (job.background and self._asked):
                if job.cancel.is_set():
                    raise Cancelled(STOPPED)
                self._changed.wait(_PERIOD)
            self._holder = job

    def _leave(self, job: Waits) -> None:
        with self._changed:
            if self._holder is job:
                self._holder = None
            self._changed.notify_all()


class Drawing:
    """The pages that are being drawn now: work pauses between its steps for as long as a page usually takes, and for what the browser does then.

    A page that takes longer, perhaps because it waits for that very work, is no longer waited for. However many pages a class draws, work has at
    least as much time as it paused for.
    """

    MOST: float = 0.6
    AFTER: float = 0.1
    """seconds from the begin of a page, and after its end"""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._until: dict[object, float] = {}
        """page -> when work goes on"""
        self._busy_until = 0.0
        """when work may pause again"""

    @contextmanager
    def page(self) -> Iterator[None]:
        """Within this block a page is being drawn."""
        one = object()
        with self._changed:
            self._until = {page: until for page, until in self._until.items() if until > time.monotonic()}
            self._until[one] = time.monotonic() + self.MOST
        try:
            yield
        finally:
            with self._changed:
                self._until[one] = min(self._until.get(one, 0.0), time.monotonic() + self.AFTER)
                self._changed.notify_all()

    def give_way(self) -> float:
        """Between two steps of work nobody waits for: the seconds it paused."""
        began = now = time.monotonic()
        if began < self._busy_until:
            return 0.0
        with self._changed:
            while (left := min(max(self._until.values(), default=0.0), began + self.MOST) - now) > 0:
                self._changed.wait(left)
                now = time.monotonic()
        self._busy_until = now + (now - began)
        return now - began


DRAWING = Drawing()
"""of this process"""
_NICE = 10
"""what the system takes off the priority of a thread that stands back: beside a busy browser it has a tenth of a core, alone it has all"""


def stand_back() -> None:
    """This thread, and those that compute for it from now on, give way to the browser and the pages on the same processor, where the system can."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


@contextmanager
def _same_dice() -> Iterator[None]:
    """The process's random generators are afterwards as they were before, whatever others drew in between."""
    restore: list[tuple[Callable[[Any], Any], Any]] = [(random.setstate, random.getstate())]
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        restore.append((numpy.random.set_state, numpy.random.get_state()))
    if torch is not None:
        restore.append((torch.set_rng_state, torch.get_rng_state()))
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            restore.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    try:
        yield
    finally:
        for put_back, state in restore:
            with suppress(Exception):
                put_back(state)
