"""Every method and structure on the Fit page, live or as a job, and keeping what came out."""

import time
from dataclasses import replace

import pytest

from replaceme_core import refit
from replaceme_core.artifacts import Span
from replaceme_core.measurement.moments import HeldMoments
from replaceme_core.plans.plan import CalibrationSection
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.blocks import words
from ui.session import live, methods, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@needs_demo
def test_moving_the_ridge_refits_at_once(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    app.toggle(key="fit_automatic").set_value(False)
    run(app)
    began = time.perf_counter()
    app.select_slider[0].set_value(app.select_slider[0].options and 1.0)
    run(app)
    assert demo.method.ridge == 1.0
    assert time.perf_counter() - began < 5
    app.toggle(key="fit_automatic").set_value(True)
    run(app)
    assert demo.method.ridge is None


@needs_demo
def test_every_method_fits_on_the_fit_page(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    for method in methods.live_methods(demo):
        app.radio[0].set_value(method)
        run(app)
        if any(button.label == "Fit it" for button in app.button):
            click(app, "Fit it")
            finish(runner().latest(demo.owner))
            run(app)
        assert "Save and stay" in [button.label for button in app.button], method
    app.radio[0].set_value("weighted_least_squares")
    run(app)


@needs_demo
def test_every_structure_follows_the_page_and_low_rank_asks_for_a_rank(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    for structure in methods.structures(demo):
        app.selectbox(key="fit_structure").set_value(structure)
        run(app)
        assert demo.method.structure == structure
        assert "Save and stay" in [button.label for button in app.button], structure
    app.slider(key="fit_rank").set_value(5)
    run(app)
    assert demo.method.rank == 5
    app.selectbox(key="fit_structure").set_value("full")
    run(app)
    assert demo.method.rank is None


@needs_demo
def test_a_gradient_method_runs_as_a_job_that_reports_itself_and_says_when_it_did_not_converge(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    app.radio[0].set_value("gradient")
    run(app)
    app.selectbox(key="fit_steps").set_value("proximal")
    run(app)
    app.selectbox(key="fit_loss").set_value("mse")
    app.number_input(key="fit_l1").set_value(0.1)
    app.number_input(key="fit_iterations").set_value(2)
    run(app)
    assert (demo.method.name, demo.method.l1, demo.method.max_iterations) == ("proximal", 0.1, 2)
    click(app, "Fit it")
    job = runner().latest(demo.owner)
    finish(job)
    run(app)
    assert any("Not converged: after 2 steps" in item.value for item in app.warning)
    assert "2 steps; the gradient is" in text_of(app)
    assert variants.recipe_of(demo, live.transform(demo, demo.span, demo.method))["method"]["l1"] == 0.1
    app.radio[0].set_value("weighted_least_squares")
    run(app)


@needs_demo
def test_a_refit_runs_as_a_job_says_what_it_needs_and_shows_what_each_block_gained(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    app.radio[0].set_value("refits")
    run(app)
    app.selectbox(key="fit_refit").set_value("refit")
    run(app)
    assert "needs about" in text_of(app)
    assert any("runs the model again" in item.value for item in app.info)
    click(app, "Fit it")
    finish(runner().latest(demo.owner))
    run(app)
    assert demo.span is not None
    fitted = live.transform(demo, demo.span, demo.method)
    assert {step.block for step in fitted.steps} == {demo.span.carrier}
    assert fitted.report.heldout_error < fitted.report.removal_error
    assert any("error before" in frame.value.columns for frame in app.dataframe)
    assert variants.recipe_of(demo, fitted)["method"]["name"] == "refit"
    click(app, "Save and stay")
    finish(runner().latest(demo.owner))
    app.radio[0].set_value("weighted_least_squares")
    run(app)


@needs_demo
def test_a_layer_of_its_own_is_priced_kept_and_not_exported(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    app.toggle(key="fit_separate").set_value(True)
    run(app)
    assert "Adds 16,384 parameters" in text_of(app)
    click(app, "Save and stay")
    finish(runner().latest(demo.owner))
    variant = list(demo.variants.values())[-1]
    assert variant.transform.settings["separate"]
    app = open_page("pages/6_Export.py", demo)
    if len(demo.variants) > 1:
        app.selectbox[0].set_value(variant.name)
        run(app)
    assert "stays in the app" in text_of(app)
    assert "Export" not in [button.label for button in app.button]
    app = open_page("pages/3_Fit.py", demo)
    app.toggle(key="fit_separate").set_value(False)
    run(app)
    assert not demo.method.separate


@needs_demo
def test_two_spans_are_put_together_fitted_in_sequence_and_kept(demo: Studio) -> None:
    first = demo.span
    assert first is not None
    app = open_page("pages/2_Blocks.py", demo, {words.PART: words.TABS[1]})
    click(app, "Keep this span and add another")
    assert demo.more == [first]
    assert demo.cut is not None
    assert len(demo.cut.spans) == 2
    assert "carriers: blocks" in demo.span_words(12)
    app = open_page("pages/3_Fit.py", demo)
    assert [option for option in app.radio[0].options if "plain" in option] == []
    click(app, "Fit it")
    finish(runner().latest(demo.owner))
    run(app)
    click(app, "Save and stay")
    finish(runner().latest(demo.owner))
    variant = list(demo.variants.values())[-1]
    assert variant.transform.cut == demo.cut
    assert variant.handle.n_blocks == 12 - len(demo.cut)
    assert variant.recipe["span"]["more"]
    app = open_page("pages/4_Compare.py", demo)
    app = open_page("pages/6_Export.py", demo)
    app = open_page("pages/2_Blocks.py", demo, {words.PART: words.TABS[1]})
    click(app, "Choose")
    assert len(demo.cut.spans) == 2
    click(app, "Take it back")
    assert demo.more == []
    demo.choose(first)


@needs_demo
def test_keeping_a_variant_proves_it_and_shows_it(demo: Studio) -> None:
    app = open_page("pages/3_Fit.py", demo)
    n_before = len(demo.variants)
    click(app, "Save and stay")
    finish(runner().latest(demo.owner))
    run(app)
    assert len(demo.variants) == n_before + 1
    assert "Saved variants" in text_of(app)


@needs_demo
def test_a_refit_is_kept_where_the_pass_stored_nothing_beside_its_cut(demo: Studio) -> None:
    """As where the disk was full."""
    assert demo.resident is not None
    assert demo.calibration is not None
    assert demo.measurement is not None
    poor = replace(demo, measurement=replace(demo.measurement, moments=HeldMoments()))
    fitted = refit.fit(demo.resident.handle, demo.calibration.first(1024), Span(7, 9), "refit")
    finish(variants.keep_variant(poor, "of another length", fitted))
    assert poor.variants["of another length"].transform is fitted
    assert demo.resident.cuts[fitted.cut].handle.n_blocks == 10


@needs_demo
def test_fewer_tokens_than_the_width_is_said_on_the_fit_page(demo: Studio) -> None:
    state = replace(demo, owner="few tokens")
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=80, max_length=16))))
    open_page("pages/2_Blocks.py", state)
    app = open_page("pages/3_Fit.py", state)
    assert any("tokens for a width of" in item.value for item in app.warning)
