"""Jobs wait for the libraries: two threads that import transformers at once can each see the other's half."""

import sys
import threading
import time
import types

from ui.overview import view as overview
from ui.parts.job_panel import period_of, progress_line
from ui.session import work
from ui.session.jobs import Job
from ui.session.state import Studio


def test_a_job_starts_only_when_the_libraries_are_imported(monkeypatch):
    events = []
    slow = threading.Thread(target=lambda: (time.sleep(0.4), events.append("imported")))
    slow.start()
    monkeypatch.setattr(work, "warm", lambda: slow)
    job = work.submit(Studio(), "early", lambda _job: events.append("worked"))
    assert job.finished.wait(10)
    assert events == ["imported", "worked"]
    assert job.state == "done"


def test_the_hardware_line_waits_for_a_torch_that_is_there_by_half(monkeypatch):
    half = types.ModuleType("torch")  # what sys.modules holds in the middle of the import
    release = threading.Event()
    importing = threading.Thread(target=release.wait)
    importing.start()
    monkeypatch.setitem(sys.modules, "torch", half)
    monkeypatch.setattr(overview, "warm", lambda: importing)
    assert overview._device() == ""
    release.set()
    importing.join()


def test_the_time_left_is_that_of_the_whole_count_while_what_is_being_done_changes(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    job = Job("count", "me", lambda _job: None)
    for done, what in ((0, "first task"), (30, "second task"), (60, "third task")):
        job.update(done, 120, "questions", what)
        clock[0] += 10
    assert job.rate == 2.0
    assert job.seconds_left == 30.0
    assert progress_line(job) == "third task: 60 of 120 questions · 2.0 questions/s · 30 s left"
    clock[0] += 1470
    assert progress_line(job) == "third task: 60 of 120 questions · 25 s each · 25 min left", "not '0.0 questions/s'"
    job.update(0, 120, "questions", "counted anew")
    assert job.rate is None


def test_a_job_that_lasts_is_looked_at_less_often() -> None:
    job = Job("long", "me", lambda _job: None)
    at_first = period_of(job)
    job.asked_at -= 11
    assert 3 * at_first <= period_of(job) <= 2, "the browser shares the processor with it, and its end is still seen at once"
