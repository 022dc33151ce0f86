"""The Blocks page beyond one click: the table of the matrix, the layer of errors, the pin, what is measured, several spans."""

from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core import solvers
from replaceme_core.artifacts import Cut, Span
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.blocks import pin as pin_view
from ui.blocks import savings as savings_of
from ui.blocks import table as matrix_table
from ui.blocks import words
from ui.blocks.layers import LAYERS, facts_of
from ui.blocks.state import BlocksState, PinnedState
from ui.look.palette import LIGHT
from ui.parts import heatmap as matrix_charts
from ui.session import live, methods
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]
PAGE = "pages/2_Blocks.py"


@pytest.fixture
def state(demo: Studio) -> Studio:
    """The measured demo model, with a choice of its own."""
    return replace(demo, owner="blocks", more=[], span=Span(5, 8))


def stand_on(app: AppTest, state: Studio, row: int, column: str) -> AppTest:
    """Move to a cell of the matrix's table."""
    app.session_state[f"cells_{state.model}_{state.slot(BlocksState).table_moves[0]}"] = {"selection": {"cells": [[row, column]]}}
    return run(app)


def test_the_table_of_the_matrix_chooses_the_span_and_gives_way_to_the_slider(state: Studio) -> None:
    app = open_page(PAGE, state)
    stand_on(app, state, 2, "to 4")
    assert state.span == Span(3, 5)
    stand_on(app, state, 2, "to 6")
    assert state.span == Span(3, 7)
    stand_on(app, state, 5, "to 2")
    assert state.span == Span(3, 7), "a cell below the diagonal is no span"
    before = state.slot(BlocksState).table_moves[0]
    slider = next(item for item in app.slider if item.label.startswith("Blocks to remove"))
    slider.set_value((1, 2))
    run(app)
    assert state.span == Span(1, 3), "the table's old selection must not win"
    assert state.slot(BlocksState).table_moves[0] == before + 1
    stand_on(app, state, 2, "to 6")
    assert state.span == Span(3, 7), "the same cell again counts"


def test_the_table_holds_the_figures_of_the_cells(state: Studio) -> None:
    values = LAYERS["cosine_all"].values(state)
    assert values is not None
    frame = matrix_table.frame_of(values)
    assert frame.shape == (11, 11)
    assert frame.loc["from 5", "to 7"] == values[5, 8]
    assert frame.loc["from 11", "to 11"] == values[11, 12]
    assert np.isnan(frame.loc["from 5", "to 4"])
    cells = matrix_charts.matrix_rows(values, ".3f")
    assert int(frame.notna().to_numpy().sum()) == sum(cell["choosable"] for cell in cells)


def test_the_errors_of_all_fits_are_made_once_as_a_job_and_then_stay(state: Studio) -> None:
    app = open_page(PAGE, state)
    app.session_state["matrix_layer"] = "error"
    run(app)
    assert words.ERRORS_HELP in text_of(app)
    click(app, "Fit all 66 spans")
    finish(runner().latest(state.owner))
    run(app)
    assert words.ERRORS_HELP not in text_of(app)
    values = LAYERS["error"].values(state)
    assert values is not None
    best = min(point.heldout_error for point in solvers.ridge_path(live.measured(state), Span(5, 8), methods.closed_form(state)))
    assert values[5, 8] == best
    for start in range(1, 9):  # as many fits as a session of sliding makes
        for end in range(start + 1, 12):
            live.ridge_path(state, Span(start, end), methods.closed_form(state))
            LAYERS["error"].values(state)
    assert LAYERS["error"].values(state) is values


def test_the_tooltip_of_a_cell_has_the_figures_of_all_layers_with_spread_and_n(state: Studio) -> None:
    measured = live.measured(state)
    matrix = measured.distances["all"]
    facts = facts_of(state)
    error = float(matrix.spread[5, 8]) / matrix.n_sequences**0.5
    assert facts["distance, all tokens"][5, 8] == f"{float(matrix.values[5, 8]):.4f} ± {error:.4f}"
    assert facts["error after the fit"][5, 8] == "not known"
    assert facts["measured on"][5, 8] == "8,192 tokens, 144 sequences"
    marks = matrix_charts.Marks(Span(5, 8))
    cells = matrix_charts.matrix_rows(matrix.values.numpy(), ".3f", facts)
    chart = matrix_charts.matrix_chart(cells, 12, LAYERS["cosine_all"].look, marks, LIGHT)
    shown = {tip["field"] for tip in chart["layer"][0]["encoding"]["tooltip"]}
    assert shown == {"removes", *facts}


def test_a_pinned_span_stands_beside_another_with_every_figure(state: Studio) -> None:
    app = open_page(PAGE, state)
    click(app, "Pin this choice")
    assert state.slot(PinnedState).cut == Cut((Span(5, 8),))
    assert "pinned choice itself" in text_of(app)
    state.choose(Span(2, 6))
    run(app)
    assert state.cut is not None
    table = pin_view.rows(state, state.slot(PinnedState).cut, state.cut)
    measured = live.measured(state)
    assert table.loc["removes"].tolist() == ["blocks 5–7", "blocks 2–5", ""]
    gap = measured.distances["all"].at(Span(2, 6)) - measured.distances["all"].at(Span(5, 8))
    assert table.loc["distance, all tokens", "difference"] == f"{gap:+.4f}"
    report = live.transform(state, Span(2, 6), methods.closed_form(state)).report
    assert table.loc["error after the fit, held-out", "now"] == f"{report.heldout_error:.1%}"
    assert table.loc["place by distance, sinks kept", "pinned"] == "1 of 9"
    assert table.loc["depth"].tolist() == ["−25%", "−33%", "−8 points"]
    assert table.loc["ms per token, measured", "now"] == "not timed"
    assert "The distances differ" in text_of(app)
    click(app, "Go back to the pinned one")
    assert (state.span, state.slot(PinnedState).cut) == (Span(5, 8), Cut((Span(2, 6),)))
    click(app, "Unpin")
    assert state.slot(PinnedState).cut is None


def test_two_cuts_are_timed_in_turn_with_the_original_and_a_cut_may_have_several_spans(state: Studio) -> None:
    app = open_page(PAGE, state)
    click(app, "Pin this choice")
    state.more, state.span = [Span(2, 3)], Span(6, 8)
    run(app)
    assert "from the first to the last, on the Fit page" in text_of(app)
    click(app, "Time both")
    finish(runner().latest(state.owner))
    run(app)
    for cut in (state.slot(PinnedState).cut, state.cut):
        time = savings_of.time_per_token(state, cut)
        assert time is not None
        assert time.before > 0
        assert time.after > 0
    assert state.slot(PinnedState).cut is not None
    assert state.cut is not None
    table = pin_view.rows(state, state.slot(PinnedState).cut, state.cut)
    assert "to the original" in table.loc["ms per token, measured", "now"]
    assert table.loc["place by distance, sinks kept", "now"].count(" of ") == 2
    assert "ms per token" in text_of(app)


def test_another_model_takes_the_pin_away(state: Studio) -> None:
    state.slot(PinnedState).cut = state.cut
    assert state.resident is not None
    resident = replace(state.resident, handle=replace(state.resident.handle, fingerprint="another"))
    state.use_model(resident)
    assert state.slot(PinnedState).cut is None
