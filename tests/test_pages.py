"""Every page alone (too early), in order on the demo model, and after its input changed. A traceback is a failure."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import save_tiny
from streamlit.testing.v1 import AppTest

from replaceme_core.artifacts import Span
from replaceme_core.plan import CalibrationSection, EvaluationSection, ExportSection, ModelSection
from ui import live, work
from ui.hub import hub
from ui.jobs import Job, runner
from ui.span_control import chart_key
from ui.state import Studio

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["pages/1_Model.py", "pages/2_Blocks.py", "pages/3_Fit.py", "pages/4_Compare.py", "pages/5_Benchmarks.py", "pages/6_Export.py"]
needs_demo = pytest.mark.skipif(not (ROOT / "assets/demo/model/config.json").is_file(), reason="the demo model is not built")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def open_page(path: str, state: Studio | None = None) -> AppTest:
    """The page with a given session state, run once; no exception, no unnamed error."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    if state is not None:
        app.session_state["studio"] = state
    if path != "app.py":
        app.switch_page(path)
    return run(app)


def run(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception
    assert not [shown.value for shown in app.error if "did not expect" in shown.value]
    return app


def click(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label.startswith(label)).click()
    return run(app)


def finish(job: Job | None) -> None:
    """Wait for a job and require that it succeeded."""
    assert job is not None
    assert job.finished.wait(120)
    assert job.state == "done", job.error


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.info, *app.error, *app.success, *app.warning]
    return "\n".join(str(part.value) for part in parts)


@pytest.fixture(scope="module")
def demo() -> Studio:
    """A session with the demo model measured, as *Start with the demo model* leaves it."""
    state = Studio()
    finish(work.start_demo(state))
    return state


@pytest.fixture(scope="module")
def kept(demo: Studio) -> Studio:
    """The same session with one variant kept."""
    assert demo.span is not None
    finish(work.keep_variant(demo, "first", live.transform(demo, demo.span, demo.method, None)))
    return demo


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with fewer blocks than the demo model."""
    return save_tiny(tmp_path_factory.mktemp("small"), "llama")


@pytest.mark.parametrize("path", ["app.py", *PAGES])
def test_a_page_runs_by_itself_without_the_app(path: str) -> None:
    run(AppTest.from_file(str(ROOT / path), default_timeout=60))


@pytest.mark.parametrize("path", PAGES[1:])
def test_a_page_opened_too_early_says_what_is_missing_and_links_there(path: str) -> None:
    app = open_page(path)
    assert "No model is loaded yet" in app.info[0].value
    assert not app.error


def test_the_overview_alone_offers_the_demo_model_first() -> None:
    app = open_page("app.py")
    assert app.button[0].label == "Start with the demo model"


def test_the_model_page_alone_asks_for_a_model() -> None:
    app = open_page("pages/1_Model.py")
    assert "Load this model" in [button.label for button in app.button]


@needs_demo
@pytest.mark.parametrize("path", PAGES[3:])
def test_a_page_that_needs_a_variant_sends_to_the_fit_page(demo: Studio, path: str) -> None:
    state = replace(demo, owner="somebody else")
    assert "Keep this variant" in open_page(path, state).info[0].value


@needs_demo
def test_starting_the_demo_model_lands_on_the_matrix() -> None:
    app = open_page("app.py")
    click(app, "Start with the demo model")
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
def test_a_click_on_a_cell_moves_the_slider_and_the_slider_the_outline(demo: Studio) -> None:
    app = open_page("pages/2_Blocks.py", demo)
    app.session_state[chart_key(demo)] = {"selection": {"cell": [{"start": 2, "end": 5}]}}
    run(app)
    assert demo.span == Span(2, 5)
    slider = next(item for item in app.slider if item.label.startswith("Blocks to remove"))
    assert slider.value == (2, 4)
    before = chart_key(demo)
    slider.set_value((3, 4))
    run(app)
    assert demo.span == Span(3, 5)
    assert chart_key(demo) != before, "a stale highlight would stay"
    app.session_state[chart_key(demo)] = {"selection": {"cell": [{"start": 2, "end": 5}]}}
    run(app)
    assert demo.span == Span(2, 5), "the same cell again counts"


@needs_demo
@pytest.mark.parametrize("cell", [{}, [{}], [{"start": 5, "end": 2}], [{"start": 3, "end": 99}], [{"start": "x", "end": None}]])
def test_an_impossible_selection_changes_nothing(demo: Studio, cell: object) -> None:
    app = open_page("pages/2_Blocks.py", demo)
    before = demo.span
    app.session_state[chart_key(demo)] = {"selection": {"cell": cell}}
    run(app)
    assert demo.span == before


@needs_demo
def test_a_click_on_row_zero_says_why_block_zero_stays(demo: Studio) -> None:
    app = open_page("pages/2_Blocks.py", demo)
    app.session_state[chart_key(demo)] = {"selection": {"cell": [{"start": 0, "end": 3}]}}
    run(app)
    assert "Block 0 always stays" in text_of(app)


@needs_demo
def test_every_layer_of_the_matrix_draws(demo: Studio) -> None:
    app = open_page("pages/2_Blocks.py", demo)
    for layer in ("cosine_last", "angular", "error", "norm_ratio"):
        app.session_state["matrix_layer"] = layer
        run(app)


@needs_demo
def test_moving_the_ridge_refits_at_once(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    app.toggle[0].set_value(False)
    run(app)
    began = time.perf_counter()
    app.select_slider[0].set_value(app.select_slider[0].options and 1.0)
    run(app)
    assert demo.ridge == 1.0
    assert time.perf_counter() - began < 5
    app.toggle[0].set_value(True)
    run(app)
    assert demo.ridge is None


@needs_demo
def test_every_method_fits_on_the_fit_page(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    for method in live.methods(demo):
        app.radio[0].set_value(method)
        run(app)
        if any(button.label == "Fit it" for button in app.button):
            click(app, "Fit it")
            finish(runner().latest(demo.owner))
            run(app)
        assert "Keep this variant" in [button.label for button in app.button], method
    app.radio[0].set_value("weighted_least_squares")
    run(app)


@needs_demo
def test_keeping_a_variant_proves_it_and_shows_it(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    n_before = len(demo.variants)
    click(app, "Keep this variant")
    finish(runner().latest(demo.owner))
    run(app)
    assert len(demo.variants) == n_before + 1
    assert "Kept variants" in text_of(app)


@needs_demo
def test_compare_shows_original_cut_and_variant(kept: Studio) -> None:
    app = open_page("pages/4_Compare.py", kept)
    next(item for item in app.slider if item.label == "Tokens to write").set_value(8)
    click(app, "Write")
    assert kept.generation is not None
    assert list(kept.generation.texts)[:2] == [work.ORIGINAL, work.CUT]
    assert len(kept.generation.texts) == 3
    assert "Where do they part?" in text_of(app)
    click(app, "Measure on held-out text")
    finish(runner().latest(kept.owner))
    assert "that the fit did not see" in text_of(run(app))


@needs_demo
def test_an_empty_prompt_is_one_sentence(kept: Studio) -> None:
    app = open_page("pages/4_Compare.py", kept)
    app.text_area[0].set_value("   ")
    click(app, "Write")
    assert "prompt is empty" in text_of(app)


@needs_demo
def test_benchmarks_score_all_columns_with_standard_errors(kept: Studio) -> None:
    section = EvaluationSection(tasks="demo", limit=4)
    newest = list(kept.variants)[-1:]
    finish(work.run_benchmarks(kept, work.systems(kept, newest), section))
    app = open_page("pages/5_Benchmarks.py", kept)
    app.number_input[0].set_value(4)
    run(app)
    assert "Which answers changed?" in text_of(app)


@needs_demo
def test_export_shows_proofs_and_the_recipe_and_writes_the_folder(kept: Studio, tmp_path: Path) -> None:
    app = open_page("pages/6_Export.py", kept)
    app.text_input[0].set_value(str(tmp_path / "model"))
    run(app)
    click(app, "Export")
    finish(runner().latest(kept.owner))
    assert "Exported to" in text_of(run(app))
    assert (tmp_path / "model" / "config.json").is_file()
    assert "weighted_least_squares" in app.code[0].value


@needs_demo
def test_recent_runs_are_listed_on_the_overview(kept: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(work.export_variant(kept, kept.variants["first"], str(tmp_path / "exports" / "one"), ExportSection()))
    monkeypatch.chdir(tmp_path)
    app = open_page("app.py", kept)
    assert app.dataframe[0].value["name"].tolist() == ["first"]


@needs_demo
def test_a_folder_that_exists_is_named_and_nothing_is_lost(kept: Studio, tmp_path: Path) -> None:
    variant = kept.variants["first"]
    job = work.export_variant(kept, variant, str(tmp_path), ExportSection())
    job.finished.wait(60)
    app = open_page("pages/6_Export.py", kept)
    assert "exists already" in text_of(app)
    assert "first" in kept.variants
    click(app, "Close")
    assert "exists already" not in text_of(app)


@needs_demo
def test_another_calibration_set_keeps_the_span_and_the_variants(kept: Studio) -> None:
    before = kept.span
    finish(work.measure_set(kept, CalibrationSection(source="demo:random", max_tokens=2048), None))
    assert kept.span == before
    for path in PAGES:
        open_page(path, kept)
    assert "first" in kept.variants
    finish(work.measure_set(kept, CalibrationSection(), None))


@needs_demo
def test_a_model_with_fewer_blocks_resets_the_span_and_every_page_still_works(kept: Studio, small: Path) -> None:
    demo_model = kept.model
    finish(work.load_model(kept, ModelSection(path=str(small))))
    assert "has not been measured yet" in text_of(open_page("pages/2_Blocks.py", kept))
    finish(work.measure_set(kept, CalibrationSection(max_tokens=600, max_length=32), None))
    assert kept.span is not None
    assert kept.span.end <= 6
    app = open_page("pages/2_Blocks.py", kept)
    app.session_state[chart_key(kept)] = {"selection": {"cell": [{"start": 9, "end": 11}]}}
    run(app)
    assert kept.span.end <= 6, "a selection from the larger model must not count"
    for path in PAGES:
        open_page(path, kept)
    finish(work.load_model(kept, ModelSection(path="demo")))
    assert kept.model == demo_model
    assert "first" in kept.variants, "variants of a model come back with it"
    finish(work.measure_set(kept, CalibrationSection(), None))


@needs_demo
def test_after_a_reload_the_last_tab_can_be_picked_up(kept: Studio) -> None:
    hub().remember(kept)
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
    job = work.measure_set(state, CalibrationSection(max_tokens=600, max_length=32), None)
    job.finished.wait(60)
    for path in PAGES:
        app = open_page(path, state)
        assert not app.exception
    if n_blocks == 2:
        assert state.span == Span(1, 2)


@needs_demo
def test_fewer_tokens_than_the_width_is_said_on_the_fit_page(demo: Studio) -> None:
    state = replace(demo, owner="few tokens")
    finish(work.measure_set(state, CalibrationSection(max_tokens=80, max_length=16), None))
    open_page("pages/2_Blocks.py", state)
    app = open_page("pages/3_Fit.py", state)
    assert any("tokens for a width of" in item.value for item in app.warning)


@needs_demo
def test_timing_a_span_shows_milliseconds_per_token(demo: Studio) -> None:
    click(open_page("pages/2_Blocks.py", demo), "Time it")
    finish(runner().latest(demo.owner))
    assert "ms per token" in text_of(open_page("pages/2_Blocks.py", demo))


@needs_demo
def test_an_upload_of_chats_without_a_chat_template_is_one_sentence(demo: Studio) -> None:
    app = open_page("pages/1_Model.py", demo)
    app.session_state["text_source"] = "upload"
    run(app)
    chat = b'{"messages": [{"role": "user", "content": "Hello"}]}\n'
    app.file_uploader[0].set_value(("chat.jsonl", chat, "application/json"))
    run(app)
    assert "template" in app.error[0].value


def test_a_hub_id_without_a_network_is_one_sentence_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    state = Studio()
    work.load_model(state, ModelSection(path="nobody/no-such-model")).finished.wait(60)
    app = open_page("pages/1_Model.py", state)
    assert "no-such-model" in app.error[0].value
    assert "demo model works offline" in app.error[0].value or "check the spelling" in app.error[0].value


def test_the_shared_profile_offers_listed_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLACEME_MODELS", "demo,org/one")
    app = open_page("pages/1_Model.py")
    app.session_state["model_source"] = "hub"
    run(app)
    assert app.selectbox[0].options == ["demo", "org/one"]
    assert not app.text_input or all(item.label != "Folder" for item in app.text_input)
    job = work.load_model(Studio(), ModelSection(path="/etc"))
    job.finished.wait(30)
    assert "offers only demo, org/one" in job.error


def test_an_unknown_model_is_one_sentence_with_a_way_out() -> None:
    state = Studio()
    job = work.load_model(state, ModelSection(path="/nowhere/at/all"))
    job.finished.wait(60)
    app = open_page("pages/1_Model.py", state)
    assert "does not exist" in app.error[0].value


@needs_demo
@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("empty.txt", b"", "empty"),
        ("binary.txt", bytes(range(256)), "binary.txt"),
        ("bad.jsonl", b'{"text": "one"}\n{"text": \n', "line 2"),
        ("column.jsonl", b'{"body": "one"}\n', "text"),
        ("table.csv", b"a,b\n1,2\n", "text"),
    ],
)
def test_a_bad_upload_is_named_with_file_and_line(demo: Studio, name: str, data: bytes, sentence: str) -> None:
    app = open_page("pages/1_Model.py", demo)
    app.session_state["text_source"] = "upload"
    run(app)
    app.file_uploader[0].set_value((name, data, "application/octet-stream"))
    run(app)
    assert app.error, "the upload was accepted"
    assert name in app.error[0].value
    assert sentence in app.error[0].value


@needs_demo
def test_pasted_text_that_is_too_short_is_refused_in_a_sentence(demo: Studio) -> None:
    app = open_page("pages/1_Model.py", demo)
    app.session_state["text_source"] = "paste"
    run(app)
    app.text_area[0].set_value("Hello there.")
    run(app)
    assert "at least 2 are needed" in app.error[0].value


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
