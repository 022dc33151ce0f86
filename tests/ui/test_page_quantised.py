"""The whole flow of a model held quantised or spread: load, matrix, fit, keep into a folder, proofs, compare, benchmarks, reload."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from replaceme_core import pipeline
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ExportSection, ModelSection, PruningPlan
from tests.support.app_session import click, finish, open_page, run, save_wide, text_of
from ui.benchmarks import jobs as benchmark_runs
from ui.compare import jobs as scoring
from ui.export import jobs as export_work
from ui.look.systems import ORIGINAL
from ui.session import live, variants, work
from ui.session.calibration_choice import Chosen, pasted
from ui.session.hub import hub
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
SMALL = {"max_tokens": 1200, "max_length": 32}


def loaded(folder: Path, **changes: str) -> Studio:
    """A session with this model loaded and measured."""
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(folder), **changes)))
    finish(work.measure_set(state, Chosen(CalibrationSection(**SMALL))))
    return state


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wide(tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def merged(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Studio, Path]:
    """A session in nf4 with one variant kept, and the folder it was merged into."""
    state, folder = loaded(wide, quantisation="nf4"), tmp_path_factory.mktemp("merged") / "model"
    assert state.span is not None
    finish(variants.keep_variant(state, "first", live.transform(state, state.span, state.method), str(folder)))
    return state, folder


def choose(app, label: str, value: str):
    """Another value in the select box called `label`."""
    next(box for box in app.selectbox if box.label == label).set_value(value)
    return run(app)


def figures(app) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def test_the_memory_check_follows_the_choice_before_any_weight_is_read(wide: Path) -> None:
    app = open_page("pages/1_Model.py")
    app.session_state["model_source"] = "folder"
    app.session_state["model_folder"] = str(wide)
    run(app)
    seen = []
    for held in ("whole", "int8", "nf4"):
        shown = figures(choose(app, "Weights in memory", held))
        seen.append(float(shown["Weights"].split()[0]))
        assert {"Blocks", "Parameters", "Peak of the pass"} <= shown.keys()
    assert seen[0] > seen[1] > seen[2]
    assert "float32 1.0 MiB · bfloat16 0.5 MiB" in text_of(app)
    assert "free." in text_of(choose(app, "Device", "spread"))
    assert hub().get(app.session_state["studio"].model) is None


def test_a_model_is_loaded_in_4_bits_from_the_form(wide: Path) -> None:
    app = open_page("pages/1_Model.py")
    app.session_state["model_source"] = "folder"
    app.session_state["model_folder"] = str(wide)
    run(app)
    choose(app, "Weights in memory", "nf4")
    click(app, "Load this model")
    state = app.session_state["studio"]
    finish(runner().latest(state.owner))
    assert state.resident.section.quantisation == "nf4"
    assert "Held in 4 bits (NF4), for measuring" in text_of(run(app))
    plain = Studio()
    finish(work.load_model(plain, ModelSection(path=str(wide))))
    assert state.resident.block_parameters == plain.resident.block_parameters, "packed weights are counted as what they stand for"


def test_keep_asks_for_a_folder_and_writes_the_merged_model_there(wide: Path, tmp_path: Path) -> None:
    state = loaded(wide, quantisation="int8")
    app = open_page("pages/3_Fit.py", state)
    assert "writes the merged model to this folder" in text_of(app)
    box = next(item for item in app.text_input if item.label == "Folder")
    assert box.value.startswith("exports/blocks-")
    box.set_value(str(tmp_path / "kept"))
    run(app)
    click(app, "Save and stay")
    finish(runner().latest(state.owner))
    shown = text_of(run(app))
    assert "Saved variants" in shown
    assert "✓ merged = original, then T" in app.dataframe[-1].value["checks"][0]
    assert load_file(tmp_path / "kept" / "model.safetensors")["model.layers.0.mlp.down_proj.weight"].is_floating_point()


def test_a_folder_that_exists_is_one_sentence_and_keeps_nothing(merged: tuple[Studio, Path], tmp_path: Path) -> None:
    state, _ = merged
    before = list(state.variants)
    job = variants.keep_variant(state, "second", live.transform(state, state.span, state.method), str(tmp_path))
    job.finished.wait(60)
    assert "exists already" in text_of(open_page("pages/3_Fit.py", state))
    assert list(state.variants) == before
    runner().forget(job)


def test_every_page_works_for_a_quantised_model_and_says_what_is_compared(merged: tuple[Studio, Path]) -> None:
    state, _ = merged
    assert "so no blocks are removed in memory to be timed" in text_of(open_page("pages/2_Blocks.py", state))
    for path in ("pages/4_Compare.py", "pages/5_Benchmarks.py"):
        app = open_page(path, state)
        assert not app.error
        assert "The original is held in 4 bits (NF4)" in text_of(app)
    columns = variants.systems(state, ["first"])
    assert list(columns) == [ORIGINAL, "first"]
    finish(scoring.measure_quality(state, columns, "calibration", 2048))
    assert "which no fit and no choice has read" in text_of(open_page("pages/4_Compare.py", state))


def test_the_export_page_shows_the_proofs_the_folder_and_adds_the_scores(merged: tuple[Studio, Path]) -> None:
    state, folder = merged
    app = open_page("pages/6_Export.py", state)
    assert "not touched is that of the original checkpoint" in "".join(str(item.value) for item in app.get("html"))
    assert str(folder) in text_of(app)
    assert next(button for button in app.button if button.label == "Complete the folder").disabled
    assert not [button for button in app.button if button.label == "Export"]
    finish(benchmark_runs.run(state, variants.systems(state, ["first"]), EvaluationSection(tasks="demo", limit=2)))
    click(open_page("pages/6_Export.py", state), "Complete the folder")
    finish(runner().latest(state.owner))
    assert json.loads((folder / "report.json").read_text())["scores"]
    assert "| task |" in (folder / "README.md").read_text()


def test_the_merged_folder_loads_as_a_model_of_its_own(merged: tuple[Studio, Path]) -> None:
    _, folder = merged
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(folder))))
    assert state.resident is not None
    assert not state.resident.merges_on_disk
    assert state.resident.handle.n_blocks < 6


def test_the_recipe_of_a_merged_model_repeats_it_with_its_pasted_text(wide: Path, tmp_path: Path) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(wide), quantisation="nf4")))
    given = pasted([f"w{i} w{i + 1} w{i * 7 % 150} w{i * 5 % 150}" for i in range(200)])
    finish(work.measure_set(state, Chosen(CalibrationSection(source=given.source, **SMALL), given=given)))
    assert state.measurement.calibration_name == "pasted text"
    finish(variants.keep_variant(state, "again", live.transform(state, state.span, state.method, None), str(tmp_path / "kept")))
    click(open_page("pages/6_Export.py", state), "Complete the folder")
    finish(runner().latest(state.owner))
    repeated = pipeline.run(PruningPlan.read(tmp_path / "kept" / "recipe.yaml"), tmp_path / "run")
    assert repeated.measurement.calibration_fingerprint == state.measurement.calibration_fingerprint
    left, right = (load_file(path / "model.safetensors") for path in (tmp_path / "kept", tmp_path / "run" / "model"))
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)


def test_a_variant_merged_on_disk_counts_for_the_memory_until_it_is_deleted(wide: Path, tmp_path: Path) -> None:
    state = loaded(wide, quantisation="int8")
    state.owner = "memory"
    before = state.resident.n_bytes
    finish(variants.keep_variant(state, "one", live.transform(state, state.span, state.method, None), str(tmp_path / "one")))
    assert state.resident.n_bytes == before + state.variants["one"].handle.n_bytes
    app = open_page("pages/3_Fit.py", state)
    click(app, "Delete it")
    assert state.resident.n_bytes == before
    assert (tmp_path / "one" / "config.json").is_file(), "the folder stays"


def test_a_spread_model_is_merged_on_disk_and_a_plain_one_in_memory_again(wide: Path, tmp_path: Path) -> None:
    plain = loaded(wide)
    finish(variants.keep_variant(plain, "in memory", live.transform(plain, plain.span, plain.method)))
    spread = loaded(wide, device="spread")
    assert spread.model == plain.model, "the same values"
    assert spread.resident.merges_on_disk
    finish(variants.keep_variant(spread, "on disk", live.transform(spread, spread.span, spread.method), str(tmp_path / "spread")))
    assert "in memory" in plain.variants
    left, right = (load_file(path / "model.safetensors") for path in (export(plain, tmp_path / "plain"), tmp_path / "spread"))
    assert left.keys() == right.keys()
    assert all((left[name] - right[name]).abs().max() < 1e-5 for name in left)
    for path in ("pages/2_Blocks.py", "pages/3_Fit.py", "pages/4_Compare.py", "pages/6_Export.py"):
        assert not open_page(path, spread).error
    finish(work.load_model(plain, ModelSection(path=str(wide))))
    assert not plain.resident.merges_on_disk


def export(state: Studio, folder: Path) -> Path:
    finish(export_work.export_variant(state, state.variants["in memory"], str(folder), ExportSection()))
    return folder


def test_widths_that_4_bits_cannot_hold_are_named(small: Path) -> None:
    state = Studio()
    work.load_model(state, ModelSection(path=str(small), quantisation="nf4", device="cpu")).finished.wait(60)
    assert "Choose int8, or no quantisation" in text_of(open_page("pages/1_Model.py", state))


def test_a_checkpoint_that_cannot_be_rewritten_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = save_wide(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.extra": tensors["model.norm.weight"].clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    state = Studio()
    work.load_model(state, ModelSection(path=str(folder), quantisation="int8")).finished.wait(60)
    assert "cannot be rewritten tensor by tensor" in text_of(open_page("pages/1_Model.py", state))
    assert state.resident is None
