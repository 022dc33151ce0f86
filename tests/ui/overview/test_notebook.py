"""Recent runs open: settings, figures, curves, differences; and a plan is opened in the app, or refused in a sentence."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from replaceme_core.artifacts import Variant
from replaceme_core.errors import InputError, ModelError, PlanError
from replaceme_core.export import runs
from replaceme_core.export.export import export
from tests.support.app_session import click, finish, open_page, run, text_of
from ui.overview import curves, plans
from ui.session.calibration_choice import pasted
from ui.session.jobs import runner
from ui.session.state import Studio

STEPS = [{"block": block, "part": "mlp", "ridge": 0.1, "before": 0.5, "after": 0.1 * block, "condition": 2.0} for block in (2, 3, 4)]


@pytest.fixture(scope="module")
def folder(variant: Variant, texts_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exports that differ in their ridge, with a curve each."""
    base = tmp_path_factory.mktemp("notebook")
    first = export(variant, base / "exports" / "first").folder
    second = Path(shutil.copytree(first, base / "exports" / "second"))
    for place, ridge in ((first, 0.01), (second, 0.1)):
        report = json.loads((place / "report.json").read_text())
        (place / "report.json").write_text(json.dumps(report | {"steps": STEPS}))
        recipe = yaml.safe_load((place / "recipe.yaml").read_text())
        recipe |= {
            "method": {"name": "least_squares", "ridge": ridge},
            "calibration": {"source": str(texts_file), "max_tokens": 600, "max_length": 32},
        }
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return base


def opened(rows: list[int]):
    app = open_page("app.py", Studio())
    app.session_state["recent_runs"] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    return run(app)


def test_a_run_that_is_chosen_opens_with_its_settings_figures_and_curve(folder, monkeypatch):
    monkeypatch.chdir(folder)
    app = opened([0])
    assert "#### tiny llama, 2:4" in [each.value for each in app.markdown]
    assert any("ridge:" in code.value for code in app.code)
    assert "removes" in app.dataframe[1].value.iloc[:, 0].tolist()
    assert "Refit: held-out error each block leaves" in text_of(app)
    assert [button.label for button in app.button if button.key == "run_open"] == ["Open it in the app"]


def test_several_runs_stand_side_by_side_with_what_their_plans_do_not_have_in_common(folder, monkeypatch):
    monkeypatch.chdir(folder)
    app = opened([0, 1])
    assert "2 runs side by side" in text_of(app)
    differ = app.dataframe[2].value
    assert differ["setting"].tolist() == ["method.ridge"]
    assert {differ.iloc[0]["exports/first"], differ.iloc[0]["exports/second"]} == {"0.01", "0.1"}


def test_the_curves_of_several_runs_lie_over_one_another(folder):
    found = [curve for name in ("first", "second") for curve in runs.curves(folder / "exports" / name)]
    assert [curve.points for curve in found] == [((2.0, 0.2), (3.0, pytest.approx(0.3)), (4.0, 0.4))] * 2
    chart = curves.overlay(found, "block", "error").to_dict(validate=True)
    assert len(next(iter(chart["datasets"].values()))) == 6
    assert chart["encoding"]["color"]["field"] == "run"


def opened_from_the_list() -> Studio:
    """A new session in which the newest run was opened."""
    state = Studio()
    app = open_page("app.py", state)
    app.session_state["recent_runs"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    run(app)
    click(app, "Open it in the app")
    finish(runner().latest(state.owner))
    return state


def test_a_plan_of_a_run_is_opened_in_the_app_model_text_span_and_method(folder, monkeypatch):
    monkeypatch.chdir(folder)
    state = opened_from_the_list()
    assert state.resident is not None
    assert state.resident.handle.n_blocks == 6
    assert str(state.span) == "2:4"
    assert state.method.ridge in (0.01, 0.1)
    assert state.calibration is not None
    assert state.calibration.n_tokens <= 600


def test_a_run_with_its_pasted_text_is_opened_from_its_own_folder_and_an_uploaded_plan_is_not(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own = Path(shutil.copytree(folder / "exports" / "first", tmp_path / "exports" / "first"))
    recipe = yaml.safe_load((own / "recipe.yaml").read_text())
    text = pasted([f"Number {i} of {i * 7} is w{i} w{i + 1} w{i + 2} and then w{i + 3}." for i in range(100)])
    (own / text.source).write_bytes(text.data)
    recipe["calibration"] = {"source": text.source, "max_tokens": 600, "max_length": 32}
    (own / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    state = opened_from_the_list()
    assert state.measurement is not None
    assert state.calibration_section.source == "exports/first/calibration-pasted.jsonl"

    job = plans.open_plan(Studio(), plans.read((own / "recipe.yaml").read_text(), "recipe.yaml"))
    assert job.finished.wait(60)
    assert "calibration-pasted.jsonl" in job.error


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: [", "plan.yaml is not YAML"),
        ("- 1", "plan.yaml holds no plan"),
        ("model: {path: demo}\nspam: 1", "unknown key"),
        ("calibration: {}", "model"),
    ],
)
def test_what_is_no_plan_is_a_sentence(text, sentence):
    with pytest.raises(PlanError, match=sentence):
        plans.read(text, "plan.yaml")


def test_a_span_that_the_model_does_not_have_ends_the_opening_before_the_pass(folder):
    data = yaml.safe_load(runs.plan_text(folder / "exports" / "first")) | {"span": {"start": 2, "end": 40}}
    state = Studio()
    job = plans.open_plan(state, plans.read(yaml.safe_dump(data), "plan.yaml"))
    assert job.finished.wait(60)
    assert "model of 6 blocks" in job.error
    assert state.measurement is None


def test_a_shared_server_opens_no_plan_that_reads_its_files(monkeypatch):
    monkeypatch.setenv("REPLACEME_MODELS", "demo")
    with pytest.raises(ModelError, match="offers only demo"):
        plans.open_plan(Studio(), plans.read("model: {path: /etc}", "plan.yaml"))
    with pytest.raises(PlanError, match="reads no files"):
        plans.open_plan(Studio(), plans.read("model: {path: demo}\ncalibration: {source: /etc/passwd}", "plan.yaml"))


def test_a_folder_without_a_plan_says_so(tmp_path):
    with pytest.raises(InputError, match=r"holds neither plan.yaml nor recipe.yaml"):
        runs.plan_text(tmp_path)
    assert runs.curves(tmp_path) == []
