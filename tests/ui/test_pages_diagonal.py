"""A model in which only a diagonal T merges (Gemma 2): what each page offers, and T kept as a layer of its own, which may be any."""

from pathlib import Path

import pytest

from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.support.app_session import click, finish, open_page, run
from tests.support.tiny_models import save_tiny
from ui.blocks import words
from ui.blocks.state import MeasuredState
from ui.session import work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import runner
from ui.session.state import Studio
from ui.sweep.state import SweepState

pytestmark = pytest.mark.usefixtures("at_the_root")
FIT = "pages/3_Fit.py"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("gemma"), "gemma2")


@pytest.fixture
def state(gemma: Path) -> Studio:
    """Measured, with the Fit page set to a layer of its own, whose T is full."""
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(gemma), device="cpu")))
    finish(work.measure_set(state, Chosen(CalibrationSection(source="demo:mixture", max_tokens=1024, max_length=64))))
    app = open_page(FIT, state)
    assert app.selectbox(key="fit_structure").options == ["Diagonal"]
    app.toggle(key="fit_separate").set_value(True)
    run(app)
    app.selectbox(key="fit_structure").set_value("full")
    run(app)
    assert (state.method.structure, state.method.separate) == ("full", True)
    return state


def test_a_method_that_needs_a_layer_of_its_own_stays_chosen_and_is_kept(state: Studio) -> None:
    app = open_page(FIT, state)
    app.radio(key="fit_method").set_value("cosine")
    run(app)
    for _ in range(2):
        assert (state.method.name, state.method.separate) == ("cosine", True)
        assert app.toggle(key="fit_separate").value is True
        run(app)
    click(app, "Save and stay")
    finish(runner().latest(state.owner))
    assert [variant.transform.settings["separate"] for variant in state.variants.values()] == [True]
    app.radio(key="fit_method").set_value("gradient")
    run(app)
    run(app)
    assert (state.method.name, state.method.separate) == ("adam", True)
    app.toggle(key="fit_separate").set_value(False)
    run(app)
    assert (state.method.name, state.method.structure) == ("weighted_least_squares", "diagonal"), "nothing else merges"


def test_the_best_places_are_measured_with_the_transform_that_merges(state: Studio) -> None:
    app = open_page("pages/2_Blocks.py", state, {words.PART: words.TABS[1]})
    click(app, words.PLACES)
    finish(runner().latest(state.owner))
    found = state.slot(MeasuredState).places
    assert found is not None
    assert found.points


def test_a_sweep_tries_the_transform_that_merges(state: Studio, tmp_path: Path) -> None:
    state.slot(SweepState).folder = str(tmp_path / "sweep")
    app = open_page("pages/8_Sweep.py", state)
    methods = next(box for box in app.multiselect if box.label == "Methods")
    assert not [option for option in methods.options if "osine" in option]
    app.toggle(key="sweep_speed").set_value(False)
    app.selectbox(key=f"sweep_tasks_{state.model}").set_value("none")
    next(box for box in app.multiselect if box.label == "Shares of the depth").set_value([0.25])
    run(app)
    click(app, "Run the sweep")
    finish(runner().latest(state.owner))
    app = open_page("pages/8_Sweep.py", state)
    assert not app.error
    assert not [expander.label for expander in app.expander if "could not" in expander.label]
