"""The lesson: alone, without a model, without torch; every card, predictions with their score, and the loaded model in its pictures."""

import subprocess
import sys

import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core.span import Span
from tests.support.app_session import ROOT, click, needs_demo, open_page, run, text_of
from ui.lesson import game as lesson_game
from ui.lesson import words
from ui.lesson.cards import CARDS
from ui.lesson.data import DROP, FITTED, Traces, traces
from ui.lesson.state import LessonState
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
LESSON = "pages/7_Lesson.py"


def at_card(card: int, state: Studio | None = None) -> AppTest:
    state = state or Studio()
    state.slot(LessonState).card = card
    return open_page(LESSON, state)


def pick(app: AppTest, label: str) -> AppTest:
    next(group for group in app.get("button_group") if group.label == "Your choice").set_value(label)
    return run(app)


def test_the_lesson_runs_by_itself_and_begins_with_the_first_card() -> None:
    app = run(AppTest.from_file(str(ROOT / LESSON), default_timeout=60))
    assert words.TITLES[0] in text_of(app)
    assert not app.error


@pytest.mark.parametrize("present", [False, True], ids=["reader", "room"])
def test_next_walks_through_every_card_and_previous_back(present: bool) -> None:
    app = open_page(LESSON, Studio(present=present))
    for number, title in enumerate(words.TITLES, start=1):
        assert f"{number} · {title}" in text_of(app)
        said = app.get("progress")[0].proto.text if present else app.get("button_group")[0].label
        assert said == f"Card {number} of {len(CARDS)}"
        assert not app.error, number
        if number < len(CARDS):
            click(app, "Next")
    assert next(button for button in app.button if button.label == "Next").disabled
    click(app, "Previous")
    assert words.TITLES[-2] in text_of(app)


def test_a_card_is_reached_by_its_number() -> None:
    app = open_page(LESSON)
    next(group for group in app.get("button_group") if group.label.startswith("Card ")).set_value(6)
    assert words.TITLES[5] in text_of(run(app))


def test_the_lesson_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from ui.lesson import charts as lesson_charts, cards as lesson_cards, frame as lesson_frame\n"
        "from ui.lesson.data import traces\n"
        "from ui.look.palette import LIGHT\n"
        "lesson_charts.block_bars(traces().stream, LIGHT)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_every_figure_says_how_many_tokens_it_is_from() -> None:
    for card in range(1, len(CARDS) + 1):
        if card == 4:
            continue  # says it once the damage is revealed: below
        assert " tokens" in text_of(at_card(card)), card


def test_a_prediction_is_revealed_with_the_measured_damage_and_points() -> None:
    app = at_card(4)
    assert next(button for button in app.button if button.label == "Reveal the damage").disabled
    pick(app, "blocks 1–3")
    click(app, "Reveal the damage")
    found = traces()
    worst, best = found.removals[Span(1, 4), DROP], found.best(3)
    assert app.metric[0].value == f"{round(100 * best.kl / worst.kl)} of 100"
    assert f"KL {worst.kl:.3f}" in text_of(app)
    assert f"{found.made['heldout_tokens']:,} tokens" in text_of(app)
    assert len(app.dataframe[0].value) == len(found.of_length(3, DROP))


def test_all_rounds_of_best_guesses_score_full_points_and_can_be_played_again() -> None:
    state, found = Studio(), traces()
    app = at_card(4, state)
    for at, length in enumerate(lesson_game.ROUNDS):
        span = found.best(length).span
        pick(app, f"block {span.start}" if length == 1 else f"blocks {span.start}–{span.end - 1}")
        click(app, "Reveal the damage")
        if at + 1 < len(lesson_game.ROUNDS):
            click(app, "Next round")
    assert f"{100 * len(lesson_game.ROUNDS)}** of {100 * len(lesson_game.ROUNDS)}" in text_of(app)
    click(app, "Play again")
    assert state.slot(LessonState).revealed == {}


def test_a_click_on_the_matrix_is_a_prediction_only_where_the_length_fits() -> None:
    state = Studio()
    app = at_card(4, state)
    app.session_state["lesson_guess_3"] = {"selection": {"cell": [{"start": 2, "end": 4}]}}
    run(app)
    assert state.slot(LessonState).picked == {}
    app.session_state["lesson_guess_3"] = {"selection": {"cell": [{"start": 2, "end": 5}]}}
    run(app)
    assert state.slot(LessonState).picked == {3: Span(2, 5)}
    click(app, "Reveal the damage")
    assert state.slot(LessonState).revealed == {3: Span(2, 5)}


def test_points_are_full_for_the_least_damage_alone() -> None:
    found = traces()
    for length in lesson_game.ROUNDS:
        scores = {row.span: lesson_game.points(found, row.span) for row in found.of_length(length, DROP)}
        assert scores[found.best(length).span] == 100 == max(scores.values())
        assert min(scores.values()) < 60, "a round in which every place is as good teaches nothing"


def test_a_clicked_cell_is_read_out() -> None:
    app = at_card(3)
    app.session_state["lesson_matrix_False"] = {"selection": {"cell": [{"start": 1, "end": 2}]}}
    assert f"{traces().stream.values[1, 2]:.3f}" in text_of(run(app))


def test_missing_figures_are_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from ui.lesson import frame as lesson_frame

    monkeypatch.setattr(lesson_frame, "FOLDER", tmp_path)
    app = open_page(LESSON)
    assert "demo.lesson_traces" in app.error[0].value


@needs_demo
def test_the_loaded_model_can_stand_in_the_first_pictures(demo: Studio) -> None:
    app = at_card(1, demo)
    next(toggle for toggle in app.toggle if toggle.label.startswith("Show the loaded model")).set_value(True)
    run(app)
    assert demo.slot(LessonState).live
    assert demo.measurement is not None
    assert demo.measurement.calibration_name in text_of(app)
    for card in (2, 3, 10):
        assert not at_card(card, demo).error
    demo.slot(LessonState).live = False


@needs_demo
def test_the_bundled_matrix_is_the_one_that_the_app_measures(demo: Studio) -> None:
    assert demo.measurement is not None
    bundled, live = traces().stream, demo.measurement.distances["all"]
    assert (bundled.n_tokens, bundled.n_sequences) == (live.n_tokens, live.n_sequences)
    assert live.values.numpy() == pytest.approx(bundled.values, rel=1e-3, nan_ok=True)


def test_the_claims_in_the_texts_are_borne_out_by_the_figures() -> None:
    """Sentences without a figure that a new demo model could make false."""
    found: Traces = traces()
    for length in found.lengths():
        first, best = found.of_length(length, DROP)[0], found.best(length)
        assert first.kl > 2 * best.kl, "the first blocks are a wrong choice"
    assert found.removals[Span(9, 12), FITTED].kl > 1.5 * found.best(3, FITTED).kl, "the last blocks are a wrong choice"
    assert found.best(6, FITTED).kl > 2 * found.best(3, FITTED).kl, "damage grows faster than the number of blocks"
    few = next(row for row in found.starved if row.no_ridge)
    assert few.unseen > 5 * few.train, "a fit on few tokens has learnt them by heart"
    assert found.sources["random"].kl > found.sources["mixture"].kl, "the wrong text"
