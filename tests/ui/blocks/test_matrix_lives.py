"""The matrix while the pass runs: shown from the first stretch on, usable meanwhile, and kept where somebody has enough."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from replaceme_core import pipeline
from replaceme_core.artifacts import Measurement, Span
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.blocks.clicks import chart_key
from ui.session import work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import Job
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]
TEXT = CalibrationSection(max_tokens=2500, max_length=64)


class Gate:
    """Stops the pass after each picture until it is let on."""

    job: Job | None = None

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn, self.on = threading.Semaphore(0), threading.Semaphore(0)
        shown = Job.show

        def show(job: Job, can_end: bool) -> bool:
            said = shown(job, can_end)
            self.drawn.release()
            assert self.on.acquire(timeout=60)
            return said or job.enough.is_set()

        monkeypatch.setattr(Job, "show", show)

    def wait(self) -> None:
        assert self.drawn.acquire(timeout=60), "there was no picture"

    def open(self) -> None:
        for _ in range(99):
            self.on.release()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gate]:
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path))  # no pass of another test is found
    found = Gate(monkeypatch)
    yield found
    if found.job is not None:
        found.job.cancel.set()  # the next test's jobs stand behind it
    found.open()


@pytest.fixture
def loaded() -> Studio:
    """A session with the demo model loaded and nothing measured."""
    state = Studio()
    finish(work.load_model(state, ModelSection(path="demo")))
    return state


def started(state: Studio, gate: Gate) -> Job:
    """A pass that waits behind its first picture."""
    job = gate.job = work.measure_set(state, Chosen(TEXT))
    gate.wait()
    return job


def test_the_matrix_is_there_after_the_first_stretch_with_its_n(loaded: Studio, gate: Gate) -> None:
    job = started(loaded, gate)
    assert loaded.measurement is None
    app = open_page("pages/2_Blocks.py", loaded)
    assert loaded.partial is not None
    n = loaded.partial.n_tokens
    assert 512 <= n < 640
    assert f"from {n:,} of 2,500 tokens so far" in text_of(app)
    assert f"{n:,} of 2,500 tokens so far" in text_of(app).split("**Calibration set** demo")[1], "the sidebar says so too"
    assert any(slider.label.startswith("Blocks to remove") for slider in app.slider)
    assert "known when the pass has ended" in text_of(app)
    assert not app.error
    assert "Working on it" in text_of(open_page("pages/3_Fit.py", loaded)), "a fit needs the sums"
    gate.on.release()
    gate.wait()
    again = text_of(run(app))
    assert loaded.partial.n_tokens > n
    assert f"from {loaded.partial.n_tokens:,} of 2,500 tokens so far" in again
    gate.open()
    finish(job)
    assert loaded.partial is None
    assert loaded.measurement.n_tokens == 2500
    assert "so far" not in text_of(run(app))


def test_every_layer_and_criterion_says_what_is_known_of_a_pass_under_way(loaded: Studio, gate: Gate) -> None:
    started(loaded, gate)
    app = open_page("pages/2_Blocks.py", loaded)
    for name in ("cosine_last", "angular", "error", "norm_ratio"):
        app.session_state["matrix_layer"] = name
        app.session_state[f"criterion_{loaded.model}"] = "missed"
        said = text_of(run(app))
        assert not app.error, name
        assert "until then the distance ranks the places" in said, name
        assert ("possible when the pass has ended" in said) is (name == "error"), name


def test_a_span_that_is_clicked_meanwhile_stays_and_enough_keeps_what_was_read(loaded: Studio, gate: Gate) -> None:
    job = started(loaded, gate)
    app = open_page("pages/2_Blocks.py", loaded)
    app.session_state[chart_key(loaded)] = {"selection": {"cell": [{"start": 3, "end": 5}]}}
    run(app)
    assert loaded.span == Span(3, 5)
    click(app, "Enough")
    assert job.enough.is_set()
    gate.open()
    finish(job)
    assert loaded.span == Span(3, 5), "a choice is not taken back by the end of the pass"
    kept, section = loaded.measurement, loaded.calibration_section
    assert kept.n_tokens < 2500
    assert kept.n_heldout_tokens > 0
    assert kept.distances["all"].n_tokens == kept.n_tokens
    assert Span(3, 5) in kept.spans()
    assert section.first_sequences == kept.distances["all"].n_sequences == len(loaded.calibration.sequences)
    again = pipeline.prepare_for(loaded.resident.handle, section)
    assert again.fingerprint == kept.calibration_fingerprint == loaded.calibration.fingerprint, "the plan repeats it"
    said = text_of(open_page("pages/2_Blocks.py", loaded))
    assert f"first {section.first_sequences} sequences** · " not in said
    assert f"first {section.first_sequences} sequences · {kept.n_tokens:,} tokens" in said
    assert not open_page("pages/3_Fit.py", loaded).error
    model = open_page("pages/1_Model.py", loaded)
    assert f"{kept.n_tokens:,} tokens in" in text_of(model)
    assert "Measure" in [button.label for button in model.button], "the whole text is another pass"


def test_the_suggestion_follows_the_matrix_until_somebody_chooses(demo: Studio) -> None:
    def least(start: int) -> Measurement:
        """The matrix with its least distant quarter moved there."""
        matrix = demo.measurement.distances["all"]
        values = matrix.values.clone()
        values[start, start + 3] = 1e-9
        return replace(demo.measurement, distances={"all": replace(matrix, values=values)})

    state = Studio()
    for start in (4, 7):
        state.use_partial(least(start), 100)
        assert state.span == Span(start, start + 3)
    moves = state.span_moves
    state.use_partial(least(7), 100)
    assert state.span_moves == moves, "the chart stays where the span does, so that a click is not lost"
    state.choose(Span(7, 10))
    state.use_partial(least(2), 100)
    assert state.span == Span(7, 10), "chosen, though it was the suggestion"


def test_a_pass_that_is_cancelled_leaves_what_was_there(loaded: Studio, gate: Gate) -> None:
    gate.open()
    finish(work.measure_set(loaded, Chosen(TEXT.model_copy(update={"max_tokens": 700}))))
    before = loaded.measurement
    while gate.drawn.acquire(blocking=False):
        pass
    while gate.on.acquire(blocking=False):
        pass
    job = started(loaded, gate)
    assert loaded.partial is not None
    assert not open_page("pages/3_Fit.py", loaded).error, "the fit of the pass before is still there"
    job.cancel.set()
    gate.open()
    assert job.finished.wait(60)
    assert job.state == "cancelled"
    assert loaded.partial is None
    assert loaded.measurement is before
    assert f"{before.n_tokens:,} tokens" in text_of(open_page("pages/2_Blocks.py", loaded))


def test_the_page_redraws_itself_for_every_picture_and_only_where_it_shows_one(loaded: Studio, gate: Gate) -> None:
    from ui.parts.job_panel import JobPanel

    job = started(loaded, gate)
    open_page("pages/2_Blocks.py", loaded)
    panel = loaded.slot(JobPanel)
    assert (panel.follows, panel.seen) == (True, job.pictures)
    open_page("pages/6_Export.py", loaded)
    assert not loaded.slot(JobPanel).follows


def test_too_few_sequences_decide_nothing(demo: Studio) -> None:
    from replaceme_core.selection import spans
    from ui.blocks.places import _verdict
    from ui.blocks.profile import profile_rows

    rows = profile_rows(spans.profile(demo.measurement.distances["all"], 3))
    assert "too few" in _verdict(rows, 4)
    assert "too few" not in _verdict(rows, 5)
