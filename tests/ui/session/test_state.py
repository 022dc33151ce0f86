"""The parts of a session: made once, dropped with what they belong to; and steps that are done only while their result is there."""

import threading
import time
from dataclasses import dataclass, field
from typing import ClassVar

from ui.session.state import Lifetime, Slot, Studio


@dataclass(eq=False)
class OfTheSession(Slot):
    held: list[int] = field(default_factory=list)


@dataclass(eq=False)
class OfTheModel(Slot):
    lifetime: ClassVar[Lifetime] = "model"


@dataclass(eq=False)
class OfTheMeasurement(Slot):
    lifetime: ClassVar[Lifetime] = "measurement"


@dataclass(eq=False)
class Slow(Slot):
    made: ClassVar[list[int]] = []

    def __post_init__(self) -> None:
        time.sleep(0.02)
        self.made.append(1)


def test_a_part_is_made_on_first_use_and_belongs_to_one_session() -> None:
    state, other = Studio(), Studio()
    state.slot(OfTheSession).held.append(1)
    assert state.slot(OfTheSession).held == [1]
    assert other.slot(OfTheSession).held == []


def test_threads_that_ask_at_once_get_the_same_part() -> None:
    state, found = Studio(), []
    threads = [threading.Thread(target=lambda: found.append(state.slot(Slow))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert Slow.made == [1]


def test_a_part_goes_with_what_it_belongs_to() -> None:
    state = Studio()
    before = {kind: state.slot(kind) for kind in (OfTheSession, OfTheModel, OfTheMeasurement)}
    state._drop("measurement")
    assert state.slot(OfTheModel) is before[OfTheModel]
    assert state.slot(OfTheMeasurement) is not before[OfTheMeasurement]
    state.forget_model()
    assert state.slot(OfTheModel) is not before[OfTheModel]
    assert state.slot(OfTheSession) is before[OfTheSession]


def test_a_step_is_done_only_while_its_result_is_there() -> None:
    state = Studio()
    state.mark_done("blocks", lambda state: bool(state.slot(OfTheSession).held))
    assert state.done_steps == set()
    state.slot(OfTheSession).held.append(1)
    assert state.done_steps == {"blocks"}
    state.slot(OfTheSession).held.clear()
    assert state.done_steps == set()
