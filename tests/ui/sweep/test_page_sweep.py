"""The Sweep page: too early, its form, a small sweep, a click that makes a variant, a folder that is resumed, and its charts."""

from dataclasses import replace
from pathlib import Path

import pytest

from replaceme_core.errors import Cancelled
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from replaceme_core.plans.sweep_section import Sweep
from replaceme_core.studies.sweep.store import Store
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.look.palette import DARK, LIGHT
from ui.session import work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import runner
from ui.session.state import Studio
from ui.sweep import charts as sweep_charts
from ui.sweep import form as sweep_form
from ui.sweep import jobs as sweep_work
from ui.sweep.state import SweepState

pytestmark = pytest.mark.usefixtures("at_the_root")
PAGE = "pages/8_Sweep.py"


def small_sweep(state: Studio, **changes) -> Sweep:
    data = {
        "model": {"path": "demo"},
        "calibration": state.calibration_section.model_dump(),
        "methods": ["drop", "weighted_least_squares"],
        "cuts": {"spans": [[6, 8], [[2, 3], [6, 8]], [9, 14]]},
        "measure": {"test_tokens": 256, "repeats": 1, "prompt_tokens": 8, "new_tokens": 2},
    }
    return Sweep.parse(data | changes)


def in_folder(state: Studio, folder: Path) -> Studio:
    """Another session with the same model and measurement, at a folder of its own."""
    other = replace(state)
    other.slot(SweepState).folder = str(folder)
    return other


@pytest.fixture(scope="module")
def little() -> Studio:
    """The demo model measured on little text."""
    state = Studio()
    finish(work.load_model(state, ModelSection(path="demo")))
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=64))))
    return state


@pytest.fixture(scope="module")
def swept(little: Studio, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """The demo session with a finished sweep of six points, of which two could not be made."""
    finish(sweep_work.run_sweep(little, small_sweep(little), str(tmp_path_factory.mktemp("sweeps") / "first")))
    return little


def test_without_a_model_the_page_says_what_is_missing() -> None:
    assert "No model is loaded yet" in text_of(open_page(PAGE, Studio()))


@needs_demo
def test_the_form_says_how_many_points_and_how_long_and_names_its_problems(little: Studio, tmp_path: Path) -> None:
    state = in_folder(little, tmp_path / "new")
    app = open_page(PAGE, state)
    assert "8 points, about" in text_of(app)
    app.text_input(key="sweep_hand").set_value("6:9; 2:4,6:8")
    assert "12 points, about" in text_of(run(app))
    app.text_input(key="sweep_hand").set_value("6-9")
    assert "'6-9' is not a span" in text_of(run(app))
    assert next(button for button in app.button if button.label == "Run the sweep").disabled
    app.text_input(key="sweep_hand").set_value("")
    app.multiselect(key="sweep_shares_12").set_value([])
    assert "name at least one of spans, shares and lengths" in text_of(run(app))
    app.multiselect(key=f"sweep_methods_{state.model}").set_value([])
    assert "methods" in text_of(run(app))


@needs_demo
def test_the_page_runs_the_sweep_of_its_form(little: Studio, tmp_path: Path) -> None:
    state = in_folder(little, tmp_path / "run")
    app = open_page(PAGE, state)
    app.multiselect(key="sweep_shares_12").set_value([0.25])
    app.multiselect(key=f"sweep_methods_{state.model}").set_value(["drop"])
    app.select_slider(key="sweep_tokens").set_value(512)
    app.selectbox(key=f"sweep_tasks_{state.model}").set_value("none")
    app.toggle(key="sweep_speed").set_value(False)
    assert "1 point, about" in text_of(run(app))
    click(app, "Run the sweep")
    finish(runner().latest(state.owner))
    said = text_of(run(app))
    assert "Click a point" in said
    assert "really gained" not in said, "no time was measured"
    assert len(Store(tmp_path / "run").found().made) == 1
    assert "from the 1 points that are there" in said


@needs_demo
def test_a_click_on_a_point_makes_it_the_current_variant_with_the_weights_that_were_measured(swept: Studio) -> None:
    swept.slot(SweepState).current = ""
    app = open_page(PAGE, swept)
    found = Store(swept.slot(SweepState).folder).found()
    table = next(frame.value for frame in app.dataframe if "front" in frame.value.columns)
    assert table["removes"].tolist().count("blocks 6–7") == 2
    assert "2 point(s) could not be made" in [item.label for item in app.expander]
    assert "What is really gained?" in text_of(app)
    result = next(
        result for result in found.made if result.planned.section.name == "weighted_least_squares" and len(result.planned.cut.spans) == 1
    )
    app.session_state[f"sweep_points_{swept.slot(SweepState).nonce}_kl_depth"] = {"selection": {"point": [{"key": result.planned.key}]}}
    run(app)
    finish(runner().latest(swept.owner))
    said = text_of(run(app))
    assert "**blocks 6–7, weighted** is the current variant, checked. Its weights are those that were measured." in said
    variant = list(swept.variants.values())[-1]
    assert variant.handle.fingerprint == result.weights
    assert all(proof.passed for proof in variant.proofs)
    assert str(swept.cut) == "6:8"
    assert swept.method.name == "weighted_least_squares"
    table = next(frame.value for frame in app.dataframe if "front" in frame.value.columns)
    assert table[""].tolist().count("●") == 1
    for page in ("pages/3_Fit.py", "pages/4_Compare.py", "pages/6_Export.py"):
        open_page(page, swept)


@needs_demo
def test_a_row_of_the_table_does_the_same_and_a_point_that_is_kept_already_is_not_fitted_again(swept: Studio) -> None:
    fit = open_page("pages/3_Fit.py", swept)
    app = open_page(PAGE, swept)
    before = dict(swept.variants)
    found = Store(swept.slot(SweepState).folder).found()
    two = next(i for i, result in enumerate(found.made) if len(result.planned.cut.spans) == 2 and result.planned.section.name == "drop")
    app.session_state[f"sweep_table_{swept.slot(SweepState).nonce}"] = {"selection": {"rows": [two], "columns": [], "cells": []}}
    run(app)
    finish(runner().latest(swept.owner))
    run(app)
    assert list(swept.variants)[-1] == "blocks 2 and 6–7, drop"
    assert len(swept.more) == 1
    run(fit)
    assert (swept.method.name, fit.radio(key="fit_method").value) == ("drop", "drop"), "the Fit page shows the method of the point"
    job = runner().latest(swept.owner)
    first = next((key for key, name in swept.slot(SweepState).kept.items() if name in before), None)
    if first is not None:
        app.session_state[f"sweep_points_{swept.slot(SweepState).nonce}_kl_depth"] = {"selection": {"point": [{"key": first}]}}
        run(app)
        assert runner().latest(swept.owner) is job, "no new job"
        assert list(swept.variants)[-1] == swept.slot(SweepState).kept[first]


@needs_demo
def test_a_sweep_that_was_stopped_is_resumed_from_its_folder(swept: Studio, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    sweep = small_sweep(swept, measure={"test_tokens": 256, "speed": False})

    class Stop:
        def update(self, done: float, _total: float, unit: str, _what: str) -> None:
            if unit == "points" and done >= 1.5:
                raise Cancelled("stopped by the test")

    from replaceme_core.studies.sweep import run as stage

    with pytest.raises(Cancelled):
        stage.run_on(swept.resident.handle, swept.calibration, sweep, folder, Stop(), swept.measurement)
    state = in_folder(swept, folder)
    app = open_page(PAGE, state)
    assert "5 of 6 points are not done yet" in text_of(app)
    click(app, "Resume: 5 of 6")
    finish(runner().latest(state.owner))
    assert "not done yet" not in text_of(run(app))
    assert Store(folder).found().unfinished == 0


@needs_demo
def test_points_of_another_text_or_model_are_not_mixed_up(swept: Studio) -> None:
    other = in_folder(swept, swept.slot(SweepState).folder)
    other.calibration = replace(swept.calibration, fingerprint="another")
    app = open_page(PAGE, other)
    assert "fitted on another calibration set" in text_of(app)
    index = Store(swept.slot(SweepState).folder).index()
    Store(swept.slot(SweepState).folder).write_index(replace(index, model_fingerprint="another", model="another model"))
    try:
        app = open_page(PAGE, swept)
        assert "a sweep of another model (another model)" in text_of(app)
        assert next(button for button in app.button if button.label == "Run the sweep").disabled
    finally:
        Store(swept.slot(SweepState).folder).write_index(index)


def _rules(chart: dict) -> list[dict]:
    """The rows that have an interval along the y axis drawn."""
    rules = [each for each in chart["layer"] if each["mark"]["type"] == "rule" and each["encoding"]["y"].get("field") == "low"]
    assert len(rules) == 1
    return chart["datasets"][rules[0]["data"]["name"]]


@needs_demo
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("against", ["depth", "ms"])
def test_the_charts_are_valid_and_their_tooltips_hold_all_figures(swept: Studio, colours, against) -> None:
    found = Store(swept.slot(SweepState).folder).found()
    rows = sweep_charts.point_rows(found.made, "kl", against, found.made[0].planned.key)
    assert len(rows) == 4
    assert rows["front"].any()
    assert rows["low"].isna().all(), "so few documents have no interval"
    assert rows["current"].sum() == 1
    chart = sweep_charts.pareto_chart(rows, "kl", against, 0.0, colours).to_dict()
    points = next(layer for layer in chart["layer"] if layer.get("name") == "points")
    assert {tip["field"] for tip in points["encoding"]["tooltip"]} == set(sweep_charts._TIPS)
    assert [parameter["name"] for parameter in chart["params"]] == ["point"]
    assert _rules(chart) == []
    bounded = rows.assign(low=[*rows["y"][:3] * 0.9, None], high=[*rows["y"][:3] * 1.1, None])
    assert len(_rules(sweep_charts.pareto_chart(bounded, "kl", against, 0.0, colours).to_dict())) == 3
    for sizes in (False, True):
        gains = sweep_charts.gain_rows(found.made, 12, sizes)
        assert len(gains) == 8
        sweep_charts.gain_chart(gains, sizes, colours).to_dict()
    assert (sweep_charts.gain_rows(found.made, 12, True)["value"] < 1).all()


@needs_demo
def test_a_model_merged_on_disk_is_refused_with_a_sentence(little: Studio) -> None:
    held = replace(little.resident, handle=replace(little.resident.handle, checkpoint=Path("x")))

    class Held(Studio):
        resident = held

    assert not sweep_form.can_sweep(Held())


def test_another_model_than_the_demo_is_asked_the_plain_suite(small: Path) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=32))))
    box = next(box for box in open_page(PAGE, state).selectbox if box.label == "Benchmarks")
    assert (box.options, box.value) == (["none", "plain"], "plain")
    methods = open_page("pages/9_Methods.py", state)
    assert [field.value for field in methods.number_input if field.label == "Questions per task (plain)"] == [10]


@needs_demo
def test_the_demo_is_asked_its_own_questions(demo: Studio) -> None:
    box = next(box for box in open_page(PAGE, demo).selectbox if box.label == "Benchmarks")
    assert (box.options, box.value) == (["none", "demo"], "demo")
