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
from ui.lesson.data import AROUND, DROP, FITTED, REFIT, SEQUENTIAL, TITLES, Traces, models, traces
from ui.lesson.parts import agreement, marked
from ui.lesson.state import DEMO, REAL, LessonState
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
LESSON = "pages/7_Lesson.py"


BOTH = pytest.mark.parametrize("model", [REAL, DEMO])


def at_card(card: int, state: Studio | None = None, model: str = DEMO) -> AppTest:
    state = state or Studio()
    state.slot(LessonState).card, state.slot(LessonState).model = card, model
    return open_page(LESSON, state)


def pick(app: AppTest, label: str) -> AppTest:
    next(group for group in app.get("button_group") if group.label == "Your choice").set_value(label)
    return run(app)


def test_the_lesson_runs_by_itself_and_begins_with_the_first_card() -> None:
    app = run(AppTest.from_file(str(ROOT / LESSON), default_timeout=60))
    assert words.TITLES[0] in text_of(app)
    assert not app.error


@BOTH
@pytest.mark.parametrize("present", [False, True], ids=["reader", "room"])
def test_next_walks_through_every_card_and_previous_back(present: bool, model: str) -> None:
    app = at_card(1, Studio(present=present), model)
    for number, title in enumerate(words.TITLES, start=1):
        assert f"{number} · {title}" in text_of(app)
        said = app.get("progress")[0].proto.text if present else app.button_group(key="card_jump").label
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


@BOTH
def test_every_figure_says_how_many_tokens_it_is_from(model: str) -> None:
    for card in range(1, len(CARDS) + 1):
        if card == 5:
            continue  # says it once the damage is revealed: below
        assert " tokens" in text_of(at_card(card, model=model)), card


@BOTH
def test_a_prediction_is_revealed_with_the_measured_damage_and_points(model: str) -> None:
    found, app = traces(model), at_card(5, model=model)
    assert next(button for button in app.button if button.label == "Reveal the damage").disabled
    pick(app, f"blocks 1–{found.length}")
    click(app, "Reveal the damage")
    worst, best = found.removals[found.first, DROP], found.best(found.length)
    assert app.metric[0].value == f"{round(100 * best.kl / worst.kl)} of 100"
    assert f"KL {worst.kl:.3f}" in text_of(app)
    assert f"{found.made['heldout_tokens']:,} tokens" in text_of(app)
    assert len(app.dataframe[0].value) == len(found.of_length(found.length, DROP))


@BOTH
def test_all_rounds_of_best_guesses_score_full_points_and_can_be_played_again(model: str) -> None:
    state, found = Studio(), traces(model)
    app = at_card(5, state, model)
    for at, length in enumerate(found.rounds):
        span = found.best(length).span
        pick(app, f"block {span.start}" if length == 1 else f"blocks {span.start}–{span.end - 1}")
        click(app, "Reveal the damage")
        if at + 1 < len(found.rounds):
            click(app, "Next round")
    assert f"{100 * len(found.rounds)}** of {100 * len(found.rounds)}" in text_of(app)
    click(app, "Play again")
    assert state.slot(LessonState).game.revealed == {}


def test_a_click_on_the_matrix_is_a_prediction_only_where_the_length_fits() -> None:
    state = Studio()
    app = at_card(5, state)
    app.session_state["lesson_guess_12_3"] = {"selection": {"cell": [{"start": 2, "end": 4}]}}
    run(app)
    assert state.slot(LessonState).game.picked == {}
    app.session_state["lesson_guess_12_3"] = {"selection": {"cell": [{"start": 2, "end": 5}]}}
    run(app)
    assert state.slot(LessonState).game.picked == {3: Span(2, 5)}
    click(app, "Reveal the damage")
    assert state.slot(LessonState).game.revealed == {3: Span(2, 5)}


@BOTH
def test_points_are_full_for_the_least_damage_alone(model: str) -> None:
    found = traces(model)
    for length in found.rounds:
        scores = {row.span: lesson_game.points(found, row.span) for row in found.of_length(length, DROP)}
        assert scores[found.best(length).span] == 100 == max(scores.values())
        assert min(scores.values()) < 60, "a round in which every place is as good teaches nothing"


def test_a_clicked_cell_is_read_out() -> None:
    app = at_card(4)
    app.session_state["lesson_matrix_12_False"] = {"selection": {"cell": [{"start": 1, "end": 2}]}}
    assert f"{traces(DEMO).stream.values[1, 2]:.3f}" in text_of(run(app))


def test_missing_figures_are_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from ui.lesson import data as lesson_data

    monkeypatch.setattr(lesson_data, "FOLDER", tmp_path)
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
    for card in (2, 4, 11):
        assert not at_card(card, demo).error
    demo.slot(LessonState).live = False


@needs_demo
def test_the_bundled_matrix_is_the_one_that_the_app_measures(demo: Studio) -> None:
    assert demo.measurement is not None
    bundled, live = traces(DEMO).stream, demo.measurement.distances["all"]
    assert (bundled.n_tokens, bundled.n_sequences) == (live.n_tokens, live.n_sequences)
    assert live.values.numpy() == pytest.approx(bundled.values, rel=1e-3, nan_ok=True)


def test_the_claims_in_the_texts_are_borne_out_by_the_figures() -> None:
    """Sentences without a figure that a new demo model could make false."""
    found: Traces = traces(DEMO)
    for length in found.lengths():
        first, best = found.of_length(length, DROP)[0], found.best(length)
        assert first.kl > 2 * best.kl, "the first blocks are a wrong choice"
    assert found.removals[Span(9, 12), FITTED].kl > 1.5 * found.best(3, FITTED).kl, "the last blocks are a wrong choice"
    assert found.best(6, FITTED).kl > 2 * found.best(3, FITTED).kl, "damage grows faster than the number of blocks"
    few = next(row for row in found.starved if row.no_ridge)
    assert few.unseen > 5 * few.train, "a fit on few tokens has learnt them by heart"
    assert found.sources["random"].kl > found.sources["mixture"].kl, "the wrong text"


def test_the_real_model_comes_first_and_the_switch_shows_the_small_one_with_a_game_of_its_own() -> None:
    state = Studio()
    app = at_card(5, state, REAL)
    assert models() == [REAL, DEMO]
    assert open_page(LESSON).button_group(key="lesson_model").value == REAL
    pick(app, f"blocks 1–{traces(REAL).length}")
    app.button_group(key="lesson_model").set_value(DEMO)
    run(app)
    assert "three neighbouring blocks" in text_of(app)
    assert state.slot(LessonState).game.picked == {}
    click(app, "Next")
    assert f"{traces(DEMO).made['heldout_tokens']:,} tokens" in text_of(app)
    assert list(TITLES) == models()


def test_the_card_on_a_block_names_every_weight_with_its_shape_and_where_the_matrix_lands() -> None:
    for model in (REAL, DEMO):
        app, block = at_card(3, model=model), traces(model).block
        table = app.dataframe[0].value
        assert list(table["weight"]) == [name.removesuffix(".weight") for name in block.weights]
        assert list(table[table[""] != ""]["weight"]) == [block.writer] == ["mlp.down_proj"]
        html = "".join(str(part.proto.body) for part in app.get("html"))
        assert html.count("T lands here") == 1
        assert f"{traces(model).made['width']:,} numbers" in html


@pytest.mark.parametrize("model", [REAL, DEMO])
def test_refits_are_those_of_the_model_that_is_shown_and_at_the_closest_place_more_blocks_solved_cost_less(model: str) -> None:
    found = traces(model)
    closest = [found.removals[found.closest, method].kl for method in (DROP, FITTED, REFIT, AROUND, SEQUENTIAL)]
    assert closest == sorted(closest, reverse=True)
    for span in found.spans.values():
        assert all(found.removals[span, method].kl < found.removals[span, FITTED].kl for method in (REFIT, AROUND, SEQUENTIAL))
    assert not at_card(10, model=model).info


def test_words_that_are_not_the_originals_are_marked_wherever_they_stand() -> None:
    assert marked("a new <b> cat sat", "a cat sat") == 'a <mark class="differs">new</mark> <mark class="differs">&lt;b&gt;</mark> cat sat'
    assert agreement("a new cat sat", "a cat sat down") == (3, 4)


def test_the_claims_in_the_texts_are_borne_out_on_the_real_model() -> None:
    found: Traces = traces(REAL)
    fitted = found.of_length(found.length, FITTED)
    assert sum(row.kl < found.removals[row.span, DROP].kl for row in fitted) > len(fitted) / 2, "one solved matrix repairs much"
    for length in found.lengths():
        assert found.of_length(length, DROP)[0].kl > 2 * found.best(length).kl, "the first blocks are a wrong choice"
    assert found.removals[found.last, FITTED].kl > 1.5 * found.best(found.length, FITTED).kl, "the last blocks are a wrong choice"
    assert found.best(8, FITTED).kl > 2 * found.best(4, FITTED).kl, "damage grows faster than the number of blocks"
    few = next(row for row in found.starved if row.no_ridge)
    assert few.unseen > 5 * few.train, "a fit on few tokens has learnt them by heart"
    own, *others = found.sources.values()
    assert all(row.kl > own.kl for row in others), "the wrong text"
