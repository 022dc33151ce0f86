"""Every page alone, opened too early, in order on the demo model, and after its input changed. A traceback is a failure."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core.artifacts import Span
from replaceme_core.plans.plan import CalibrationSection, ExportSection, ModelSection
from tests.support.app_session import PAGES, ROOT, click, finish, needs_demo, open_page, run, text_of
from tests.support.tiny_models import save_tiny
from ui.blocks.clicks import chart_key
from ui.export import jobs as export_work
from ui.session import work
from ui.session.calibration_choice import Chosen
from ui.session.hub import hub
from ui.session.jobs import Job, runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.mark.parametrize("path", ["app.py", *PAGES])
def test_a_page_runs_by_itself_without_the_app(path: str) -> None:
    run(AppTest.from_file(str(ROOT / path), default_timeout=60))


@pytest.mark.parametrize("path", PAGES[1:])
def test_a_page_opened_too_early_says_what_is_missing_and_links_there(path: str) -> None:
    app = open_page(path)
    assert "No model is loaded yet" in app.info[0].value
    assert not app.error


def test_the_overview_alone_offers_the_lesson_first_then_a_real_model_and_then_the_demo() -> None:
    app = open_page("app.py")
    labels = [button.label for button in app.button[:3]]
    assert labels == ["Learn it in ten minutes", "Start with a real language model", "Start with the small demo, in seconds"]


@needs_demo
@pytest.mark.parametrize("path", PAGES[3:])
def test_a_page_that_needs_a_variant_sends_to_the_fit_page(demo: Studio, path: str) -> None:
    state = replace(demo, owner="somebody else")
    assert "Save and continue" in open_page(path, state).info[0].value


@needs_demo
def test_starting_the_demo_model_lands_on_the_matrix() -> None:
    app = open_page("app.py")
    click(app, "Start with the small demo, in seconds")
    state = app.session_state["studio"]
    finish(runner().latest(state.owner))
    run(app)
    assert "Blocks" in app.markdown[1].value or any("Blocks" in item.value for item in app.markdown)
    assert state.measurement is not None
    assert state.span is not None
    assert any(slider.label.startswith("Blocks to remove") for slider in app.slider)


@needs_demo
def test_every_page_in_order_on_the_demo_model(kept: Studio) -> None:
    for path in ["app.py", *PAGES]:
        app = open_page(path, kept)
        assert not app.error, path


@needs_demo
def test_recent_runs_are_listed_on_the_overview(kept: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(export_work.export_variant(kept, kept.variants["first"], str(tmp_path / "exports" / "one"), ExportSection()))
    monkeypatch.chdir(tmp_path)
    app = open_page("app.py", kept)
    assert app.dataframe[0].value["name"].tolist() == ["first"]


@needs_demo
def test_another_calibration_set_keeps_the_span_and_the_variants(kept: Studio) -> None:
    state = replace(kept)  # the session that other tests go on with keeps its own
    before = state.span
    finish(work.measure_set(state, Chosen(CalibrationSection(source="demo:random", max_tokens=2048))))
    assert state.span == before
    for path in PAGES:
        open_page(path, state)
    assert "first" in state.variants


@needs_demo
def test_a_model_with_fewer_blocks_resets_the_span_and_every_page_still_works(kept: Studio, small: Path) -> None:
    state, demo_model = replace(kept), kept.model
    finish(work.load_model(state, ModelSection(path=str(small))))
    assert "has not been measured yet" in text_of(open_page("pages/2_Blocks.py", state))
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=32))))
    assert state.span is not None
    assert state.span.end <= 6
    app = open_page("pages/2_Blocks.py", state)
    app.session_state[chart_key(state)] = {"selection": {"cell": [{"start": 9, "end": 11}]}}
    run(app)
    assert state.span.end <= 6, "a selection from the larger model must not count"
    for path in PAGES:
        open_page(path, state)
    finish(work.load_model(state, ModelSection(path="demo")))
    assert state.model == demo_model
    assert "first" in state.variants, "variants of a model come back with it"


@needs_demo
def test_after_a_reload_the_last_tab_can_be_picked_up(kept: Studio) -> None:
    hub().remember(kept)
    kept.tab = ""  # closed; to AppTest every other one is connected
    app = click(open_page("app.py"), "Pick up the last tab's work")
    assert app.session_state["studio"] is kept
    assert "first" in text_of(app)


@needs_demo
def test_a_model_that_left_the_memory_is_explained(small: Path) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    assert state.model is not None
    hub().unload(state.model)
    assert "unloaded to make room" in text_of(open_page("pages/2_Blocks.py", state))


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_models_of_one_and_two_blocks_do_not_break_a_page(tmp_path: Path, n_blocks: int) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(save_tiny(tmp_path, "llama", num_hidden_layers=n_blocks)))))
    job = work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=32)))
    job.finished.wait(60)
    for path in PAGES:
        app = open_page(path, state)
        assert not app.exception
    if n_blocks == 2:
        assert state.span == Span(1, 2)


def test_a_cancelled_job_says_so_and_the_page_goes_on() -> None:
    state = Studio()
    job = Job("Long work", state.owner, lambda job: [job.update(i, 10_000, "steps", "working") or time.sleep(0.01) for i in range(10_000)])
    runner().submit(job)
    app = open_page("app.py", state)
    click(app, "Cancel")
    assert job.finished.wait(30)
    assert job.state == "cancelled"
    assert "still here" in text_of(run(app))


def test_an_unexpected_error_in_a_job_is_one_sentence_without_a_traceback() -> None:
    state = Studio()
    job = Job("Odd work", state.owner, lambda _job: 1 / 0)
    runner().submit(job)
    job.finished.wait(30)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.session_state["studio"] = state
    shown = text_of(app.run())
    assert "ZeroDivisionError" in shown
    assert "Traceback" not in shown
