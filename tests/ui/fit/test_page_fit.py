"""The Fit page beyond one fit: errors of single tokens, variants renamed, duplicated and deleted, methods that fold."""

import re
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.measurement import token_errors
from replaceme_core.plans.plan import MethodSection
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.fit import token_strip
from ui.fit import tokens as token_view
from ui.look.palette import DARK, LIGHT
from ui.look.systems import CUT, ORIGINAL
from ui.session import live, methods, variants
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]
PAGE = "pages/3_Fit.py"


@pytest.fixture
def state(demo: Studio, request: pytest.FixtureRequest) -> Studio:
    """The measured demo model, with a choice and variants of its own."""
    own = replace(demo, owner=request.node.name, more=[], span=Span(5, 8))
    own.method = MethodSection()
    return own


def test_the_worst_tokens_are_ranked_in_context_and_follow_the_fit(state: Studio) -> None:
    app = open_page(PAGE, state)
    assert state.span is not None
    fitted = live.transform(state, state.span, state.method)
    rows = token_view.token_rows(state, token_errors.stored(live.measured(state), fitted))
    report = fitted.report
    assert len(rows) == report.n_heldout_tokens
    assert rows["fitted"].is_monotonic_decreasing
    assert f"n = {report.n_heldout_tokens:,} held-out tokens" in text_of(app)
    first = rows.iloc[0]
    assert f"⟦{token_strip.shown_token(first['token'])}⟧" in first["context"]
    tokens = token_view.tokens_of(state, int(first["text"]))
    assert tokens[int(first["place"])] == first["token"]
    table = next(frame.value for frame in app.dataframe if "context" in frame.value.columns)
    assert list(table["fitted"]) == list(rows["fitted"].head(len(table)))
    app.session_state[f"tokens_{state.model}"] = {"selection": {"rows": [4]}}
    run(app)
    assert f"Held-out text {rows['text'].iloc[4]}" in text_of(app)
    app.selectbox(key="fit_structure").set_value("diagonal")
    run(app)
    other = next(frame.value for frame in app.dataframe if "context" in frame.value.columns)
    assert list(other["fitted"]) != list(table["fitted"]), "another fit, other errors"
    app.selectbox(key="fit_structure").set_value("full")
    run(app)


def test_words_that_occur_often_have_a_mean_and_an_n(state: Studio) -> None:
    fitted = live.transform(state, Span(5, 8), MethodSection())
    rows = token_view.token_rows(state, token_errors.stored(live.measured(state), fitted))
    words = token_view.by_word(rows)
    assert (words["n"] >= 3).all()
    assert words["fitted"].is_monotonic_decreasing
    dots = rows[rows["token"] == "."]
    said = words[words["token"] == "."].iloc[0]
    assert (said["n"], said["fitted"]) == (len(dots), pytest.approx(dots["fitted"].mean()))


def _strip(app: AppTest) -> dict[int, str]:
    """The blocks that the page's strip marks as changed."""
    found = [dict(re.findall(r'title="block (\d+): (\w+)"', frame.proto.body)) for frame in app.get("html")]
    return {int(block): kind for block, kind in max(found, key=len).items() if kind in ("solved", "carrier")}


def test_a_refit_shows_its_tokens_after_a_job_on_the_model(state: Studio) -> None:
    state.method = MethodSection(name="refit")
    assert state.resident is not None
    assert state.calibration is not None
    app = open_page(PAGE, state)
    app.radio(key="fit_method").set_value("refits")
    run(app)
    app.selectbox(key="fit_refit").set_value("local_refit")
    run(app)
    assert _strip(app) == {3: "solved", 4: "solved", 8: "solved"}, "before it is fitted: what it is going to solve"
    plain = live.transform(state, Span(5, 8), MethodSection()).report
    shown = {item.label: item.value for item in app.metric}
    assert shown == {"Held-out cosine, removed": f"{plain.removal_cosine:.4f}", "with one matrix T": f"{plain.heldout_cosine:.4f}"}
    assert "It takes about" in text_of(app)
    app.selectbox(key="fit_refit").set_value("exchange_refit")
    run(app)
    click(app, "Fit it")
    finish(runner().latest(state.owner))
    run(app)
    assert set(_strip(app)) <= {3, 4, 8}
    (parts,) = [frame.value["part"] for frame in app.dataframe if "part" in frame.value.columns]
    assert any(re.fullmatch(r"neurons, \d+ its own", part) for part in parts)
    assert "output projection" in set(parts)
    app.selectbox(key="fit_refit").set_value("refit")
    run(app)
    click(app, "Fit it")
    finish(runner().latest(state.owner))
    run(app)
    assert _strip(app) == {4: "solved"}
    assert not any("context" in frame.value.columns for frame in app.dataframe)
    click(app, "Look at single tokens")
    finish(runner().latest(state.owner))
    run(app)
    assert any("context" in frame.value.columns for frame in app.dataframe)
    fitted = live.transform(state, Span(5, 8), state.method)
    missed = float(token_errors.measured(state.resident.handle, state.calibration, fitted).fitted.mean())
    plain = pipeline.fit(
        state.resident.handle, state.calibration, live.measured(state), Span(5, 8), MethodSection(name="least_squares"), 2**30
    )
    assert missed < float(token_errors.stored(live.measured(state), plain).fitted.mean())


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_the_strip_says_by_line_and_text_what_it_says_by_colour_and_escapes_its_tokens(colours) -> None:
    shown = token_strip.strip_html(["a", "<b>", "\n", "c"], {0: (0.1, 0.2), 1: (0.6, 0.7), 2: (0.2, 0.9)}, 0.5, 1, colours)
    assert "<b>" not in shown
    assert shown.count("3px double") == 1
    assert shown.count("outline") == 1
    assert "relative error 60.0%; removed, no transform: 70.0%" in shown
    assert "⏎</span><br>" in shown


@pytest.mark.parametrize("name", [ORIGINAL, CUT, "Original"])
def test_no_variant_takes_the_name_of_a_system_that_every_comparison_has(state: Studio, name: str) -> None:
    app = open_page(PAGE, state)
    next(box for box in app.text_input if box.label == "Name of the variant").set_value(name)
    run(app)
    assert "This name is taken" in text_of(app)
    assert all(button.disabled for button in app.button if button.label.startswith("Save and"))
    finish(variants.keep_variant(state, "mine", live.transform(state, state.span, state.method)))
    app = open_page(PAGE, state)
    next(box for box in app.text_input if box.label == "New name").set_value(name)
    run(app)
    assert next(button for button in app.button if button.label == "Rename").disabled
    variants.delete(state, state.resident, "mine")
    assert variants.free_name(state, name) == f"{name} (2)", "one that was kept by an earlier version comes back under another name"


def test_a_variant_is_renamed_duplicated_and_deleted(state: Studio) -> None:
    app = open_page(PAGE, state)
    click(app, "Save and stay")
    finish(runner().latest(state.owner))
    run(app)
    assert list(state.variants) == ["blocks 5–7, weighted"]
    next(box for box in app.text_input if box.label == "New name").set_value("for the class")
    run(app)
    click(app, "Rename")
    assert list(state.variants) == ["for the class"]
    variant = state.variants["for the class"]
    assert (variant.name, variant.handle.name) == ("for the class", "for the class")
    click(app, "Duplicate")
    assert list(state.variants) == ["for the class", "for the class (2)"]
    copy = state.variants["for the class (2)"]
    with variant.handle.borrow() as one, copy.handle.borrow() as other:
        assert one is other, "a copy holds no weights of its own"
    next(box for box in app.text_input if box.label == "New name").set_value("for the class")
    run(app)
    assert "This name is taken" in text_of(app)
    assert next(button for button in app.button if button.label == "Rename").disabled
    click(app, "Delete it")
    assert list(state.variants) == ["for the class"]
    open_page("pages/4_Compare.py", state)
    open_page("pages/6_Export.py", state)
    click(open_page(PAGE, state), "Delete it")
    assert state.variants == {}


def test_the_list_of_methods_is_short_and_explains_the_chosen_one(state: Studio) -> None:
    app = open_page(PAGE, state)
    radio = app.radio(key="fit_method")
    assert radio.options[0].endswith("follows the slider")
    assert [option for option in radio.options if "recommended" in option] == ["Refit the weights · recommended, runs the model"]
    assert len(radio.options) == len(methods.live_methods(state)) + 2
    assert text_of(app).count("the direction of what the carrier should write") == 0
    radio.set_value("cosine_simplified")
    run(app)
    assert text_of(app).count("the direction of what the carrier should write") == 1
    app.radio(key="fit_method").set_value("weighted_least_squares")
    run(app)


def test_the_line_of_the_ridge_follows_the_slider(state: Studio) -> None:
    app = open_page(PAGE, state)
    app.toggle(key="fit_automatic").set_value(False)
    run(app)
    app.select_slider(key="fit_ridge").set_value(1.0)
    run(app)
    assert "the line stands at 1." in text_of(app)
    app.toggle(key="fit_automatic").set_value(True)
    run(app)
