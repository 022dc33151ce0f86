"""The Blocks page: clicks, the slider, the criterion, the search; whoever moves the span last decides."""

from dataclasses import replace

import pytest

from replaceme_core.artifacts import Span
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.selection import criteria, sinks, spans
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.blocks import words
from ui.blocks.clicks import chart_key, places_key
from ui.blocks.layers import LAYERS
from ui.blocks.state import BlocksState, MeasuredState
from ui.session import live, work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


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
    before, again = chart_key(demo), before
    assert before != again, "a stale highlight would stay"
    slider.set_value((3, 5))
    run(app)
    assert chart_key(demo) == before, "without a highlight the browser keeps its chart"
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
    for layer in ("cosine_last", "angular", "norm_ratio"):
        app.session_state["matrix_layer"] = layer
        run(app)
        assert LAYERS[layer].help in text_of(app)


@needs_demo
def test_a_span_that_meets_one_put_aside_takes_it_back() -> None:
    state = Studio(span=Span(6, 8), more=[Span(2, 4)])
    state.choose(Span(3, 6))
    assert state.more == []
    state = Studio(span=Span(6, 8), more=[Span(2, 4)])
    state.choose(Span(5, 7))
    assert state.more == [Span(2, 4)]


@needs_demo
def test_from_a_third_of_the_depth_on_two_places_are_one_press_away(demo: Studio) -> None:
    assert demo.resident is not None
    state = replace(demo, owner="spread")
    state.choose(Span(5, 8))
    app = open_page("pages/2_Blocks.py", state)
    assert words.SPREAD not in text_of(app), "at a quarter one place costs less"
    state.choose(Span(4, 8))
    run(app)
    assert words.SPREAD in text_of(app)
    click(app, "Spread 4 blocks over two places")
    assert state.cut is not None
    assert state.cut == spans.several(sinks.kept(live.shown(state)), 4, 2)
    assert [len(state.cut), len(state.cut.spans)] == [4, 2]
    assert words.SPREAD not in text_of(app)


@needs_demo
def test_timing_a_span_shows_milliseconds_per_token(demo: Studio) -> None:
    click(open_page("pages/2_Blocks.py", demo), "Time it")
    finish(runner().latest(demo.owner))
    assert "ms per token" in text_of(open_page("pages/2_Blocks.py", demo))


@needs_demo
def test_suggestion_profile_and_table_follow_the_criterion_and_the_layers_stay(demo: Studio) -> None:
    state = replace(demo, owner="criteria")
    app = open_page("pages/2_Blocks.py", state)
    assert not any("removes" in frame.value.columns for frame in app.dataframe), "the table is made when it is opened"
    app.session_state["profile_as"] = "Table"
    assert state.span is not None
    length = len(state.span)
    for name in ("path", "missed", "distance"):
        app.selectbox(key=f"criterion_{state.model}").set_value(name)
        run(app)
        assert state.slot(BlocksState).criterion == name
        matrix, note = criteria.rank(live.measured(state), length, name)
        assert note == ""
        best = spans.best(matrix, length)
        label = f"Best {length} blocks: blocks {best.start}–{best.end - 1}"
        assert label in [button.label for button in app.button]
        table = next(frame.value for frame in app.dataframe if criteria.CRITERIA[name].title.lower() in frame.value.columns)
        assert list(table[criteria.CRITERIA[name].title.lower()]) == pytest.approx([v for _, v in spans.top(matrix, length, 99)])
        state.choose(Span(1, 1 + length))
        run(app)
        click(app, label)
        assert state.span == best
    assert app.session_state["matrix_layer"] == "cosine_all"


@needs_demo
def test_where_nothing_could_be_stored_the_page_says_so_and_that_the_distance_chose(demo: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLACEME_STORE_GIB", "0.001")
    state = replace(demo, owner="no room")
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=601))))
    state.slot(BlocksState).criterion = "missed"
    app = open_page("pages/2_Blocks.py", state)
    assert any("the distance chose instead" in item.value for item in app.info)
    assert any("there is room for 1 MiB" in item.value for item in app.info)
    fit = open_page("pages/3_Fit.py", state)
    assert any("room for 1 MiB" in item.value and "A refit needs nothing stored" in item.value for item in fit.info)


@needs_demo
def test_the_search_shows_chart_and_table_and_a_click_on_a_point_chooses_its_blocks(demo: Studio) -> None:
    state = replace(demo, owner="search")
    app = open_page("pages/2_Blocks.py", state, {words.PART: words.TABS[1]})
    assert state.slot(MeasuredState).places is None
    app.number_input(key="places_k").set_value(1)
    run(app)
    click(app, "Find the best places")
    finish(runner().latest(state.owner))
    run(app)
    assert state.slot(MeasuredState).places is not None
    points = state.slot(MeasuredState).places.points
    assert [point.candidate.n_removed for point in points] == [2, 3, 4, 6]
    table = next(frame.value for frame in app.dataframe if "best here" in frame.value.columns)
    assert list(table["KL"]) == pytest.approx([point.quality.kl for point in points])
    quality = points[0].quality
    assert quality.part == "held-out", "the test part is left to Compare"
    assert f"Measured on {quality.n_tokens:,} held-out tokens of demo:mixture" in text_of(app)
    for number in (2, 0):
        app.session_state[f"places_{places_key(state)}_{state.cut}"] = {"selection": {"place": [{"place": number}]}}
        run(app)
        assert state.cut == points[number].candidate.cut
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600))))
    assert state.slot(MeasuredState).places is None, "of another measurement"
