"""Two lanes: short work does not wait behind long work, both do what they would do alone, and one of them computes at a time."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from replaceme_core.plans.plan import EvaluationSection
from tests.support.app_session import finish, open_page
from ui.benchmarks import jobs as benchmark_runs
from ui.compare import jobs as compare_jobs
from ui.session import jobs, live, variants
from ui.session.jobs import Job, Runner, runner
from ui.session.results import Results
from ui.session.state import Studio
from ui.session.turns import Drawing

pytestmark = pytest.mark.usefixtures("at_the_root")


class Steps:
    """Long work whose steps a test lets through, one by one."""

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        self.at, self.on, self.steps, self.between = threading.Semaphore(0), threading.Semaphore(0), 0, between

    def __call__(self, job: Job) -> None:
        for number in range(3):
            self.at.release()
            assert self.on.acquire(timeout=30)
            self.steps += 1
            self.between()
            job.update(number, 3, "steps", "working")


def waits_for_its_turn(job: Job) -> None:
    """Until it is counted among those that wait: a step that ends before gives way to nobody."""
    late = time.monotonic() + 30
    while not job.turn._short:
        assert time.monotonic() < late
        time.sleep(0.001)


def test_a_benchmark_gives_way_to_text_and_a_saved_fit_and_scores_what_it_scores_alone(
    foreign: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, section = variants.systems(foreign, ["first"]), EvaluationSection(tasks="demo", limit=1)
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "alone"))
    finish(benchmark_runs.run(foreign, columns, section))
    alone = {name: scores.results for name, scores in benchmark_runs.scored(foreign, columns, section).items()}
    foreign.slot(Results).scores.clear()
    foreign.slot(benchmark_runs.KnownScores).by_key.clear()
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "beside"))
    monkeypatch.setattr(jobs, "_DOUBLE", 0.0)  # a quick machine asks again within that second
    transform = live.transform(foreign, foreign.span, foreign.method)

    update, short, begun, seen = Job.update, list[Job](), threading.Event(), list[bool]()

    def told(job: Job, done: float, total: float, unit: str, what: str) -> None:
        if job.lane == "long" and done > 0 and not begun.is_set():
            begun.set()
            settings = {"max_new_tokens": 8, "temperature": 0.8, "seed": 1}
            short.append(compare_jobs.write(foreign, columns, "one two three", settings))
            short.append(variants.keep_variant(foreign, "beside", transform))
            assert all(each.finished.wait(0) is False for each in short)
        if job.lane == "short":
            seen.append(long.paused)
        update(job, done, total, unit, what)

    monkeypatch.setattr(Job, "update", told)
    long = benchmark_runs.run(foreign, columns, section)
    assert begun.wait(60)
    for job in short:
        finish(job)
        assert not long.finished.is_set(), "the benchmark goes on when the short work is done"
    finish(long)
    assert seen
    assert all(seen), "one computes at a time"
    assert {name: scores.results for name, scores in benchmark_runs.scored(foreign, columns, section).items()} == alone
    assert "beside" in foreign.variants
    assert 0 < long.waited < long.seconds + long.waited


def test_cancel_is_heard_by_the_one_that_waits_and_by_the_one_that_runs() -> None:
    own, held, free = Runner(), threading.Event(), threading.Event()
    steps = Steps()
    long = own.submit(Job("benchmarks", "me", steps))
    assert steps.at.acquire(timeout=30)
    waiting = own.submit(Job("write", "me", lambda _job: None, lane="short"))
    assert (waiting.state, own.ahead(waiting)) == ("waiting", 0)
    waiting.cancel.set()
    assert waiting.finished.wait(30)
    assert (waiting.state, long.state, long.paused) == ("cancelled", "running", False)

    def hold(_job: Job) -> None:
        held.set()
        assert free.wait(30)

    short = own.submit(Job("write", "me", hold, lane="short"))
    waits_for_its_turn(short)
    steps.on.release()
    assert held.wait(30)
    assert long.paused
    behind = own.submit(Job("sweep", "me", lambda _job: None))
    assert own.titles_ahead(behind) == ["benchmarks"]
    long.cancel.set()
    assert long.finished.wait(30)
    assert (long.state, steps.steps) == ("cancelled", 1)
    assert (short.state, behind.state) == ("running", "waiting"), "a long one does not begin while a short one runs"
    free.set()
    assert short.finished.wait(30)
    assert behind.finished.wait(30)
    assert (short.state, behind.state) == ("done", "done")


def test_a_job_that_holds_a_model_does_not_give_way_and_draws_the_same_numbers(foreign: Studio) -> None:
    own, drawn = Runner(), []
    handle = foreign.resident.handle

    def inside(job: Job) -> None:
        with handle.borrow():
            steps(job)
        job.update(3, 3, "steps", "outside")
        drawn.append((random.random(), float(torch.rand(()))))

    def write(_job: Job) -> None:
        with handle.borrow():
            random.seed(5)
            torch.manual_seed(5)

    for beside in (False, True):
        steps = Steps()
        random.seed(7)
        torch.manual_seed(7)
        long = own.submit(Job("benchmarks", "me", inside, settings=str(beside)))
        assert steps.at.acquire(timeout=30)
        short = own.submit(Job("write", "me", write, lane="short")) if beside else None
        if short is not None:
            waits_for_its_turn(short)
        for _ in range(3):
            steps.on.release()
        assert long.finished.wait(30)
        assert long.state == "done", long.error
        if short is not None:
            assert short.finished.wait(30)
            assert long.waited > 0
    assert drawn[0] == drawn[1]


def test_pages_offer_short_work_while_long_work_runs_and_show_both(foreign: Studio) -> None:
    steps, more = Steps(), Steps()
    long = runner().submit(Job("Benchmarks on 2 models", foreign.owner, steps))
    assert steps.at.acquire(timeout=30)
    page = open_page("pages/3_Fit.py", foreign)
    disabled = {button.label: button.disabled for button in page.button}
    assert not disabled["Save and stay"]
    assert disabled["Heal it (training)"], "long work has one place"
    short = runner().submit(Job("Generating", foreign.owner, more, lane="short"))
    waits_for_its_turn(short)
    steps.on.release()
    assert more.at.acquire(timeout=30)
    page = open_page("pages/3_Fit.py", foreign)
    assert sum(button.label == "Cancel" for button in page.button) == 2
    shown = [str(item.value) for item in [*page.sidebar.markdown, *page.sidebar.caption]]
    assert {"**Benchmarks on 2 models**", "**Generating**", "Lets a short job go first."} <= set(shown)
    assert any("Queue: 1 job" in each for each in shown)
    for gate in (steps, more):
        for _ in range(3):
            gate.on.release()
    finish(short)
    finish(long)
    steps = Steps()
    measuring = runner().submit(Job("Measuring", foreign.owner, steps, moves=True))
    assert steps.at.acquire(timeout=30)
    page = open_page("pages/3_Fit.py", foreign)
    assert next(button for button in page.button if button.label == "Save and stay").disabled, "what it is fitted on may change"
    for _ in range(3):
        steps.on.release()
    finish(measuring)


def test_work_pauses_while_a_page_is_drawn_but_not_for_one_that_takes_long() -> None:
    drawing = Drawing()
    drawing.MOST, drawing.AFTER = 0.2, 0.0
    assert drawing.give_way() < 0.1
    with drawing.page():
        assert drawing.give_way() > 0.1, "a page has just begun"
        assert drawing.give_way() < 0.1, "it may wait for this very work"
    drawing.MOST = 60.0
    with drawing.page():
        pass
    assert drawing.give_way() < 1.0, "the page is there"


def test_a_class_that_draws_pages_all_the_time_does_not_stop_work() -> None:
    drawing, over = Drawing(), threading.Event()
    drawing.MOST, drawing.AFTER = 0.1, 0.05

    def draw() -> None:
        while not over.is_set():
            with drawing.page():
                time.sleep(0.01)

    pages = threading.Thread(target=draw)
    pages.start()
    began, paused = time.monotonic(), 0.0
    try:
        while time.monotonic() - began < 1.0:
            paused += drawing.give_way()
            time.sleep(0.01)
    finally:
        over.set()
        pages.join()
    assert 0.2 < paused < 0.7, "it pauses, and works as long as it pauses"
