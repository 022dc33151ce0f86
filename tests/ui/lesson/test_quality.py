"""The card on a real model: its figures are those of the measured table, and bear out what the card says."""

import pytest

from benchmarks.real_rows import MORE, OUT, Rows
from tests.support.app_session import run, text_of
from tests.ui.lesson.test_page_lesson import at_card
from ui.lesson.quality import measured
from ui.lesson.state import REAL

pytestmark = pytest.mark.usefixtures("at_the_root")


def test_its_figures_are_those_of_the_table() -> None:
    assert measured() == Rows(OUT).shown(8) | {"more": Rows(MORE).answered(8)}


@pytest.mark.parametrize("text", ["WikiText-2", "C4"])
def test_the_order_that_it_tells_of_is_measured_on_both_texts(text: str) -> None:
    kl = {row["name"]: row["kl"][text] for row in measured()["rows"]}
    assert [name for name, _ in sorted(kl.items(), key=lambda each: -each[1][0])] == list(kl), "each is better than the one above it"
    assert kl["paper"][1] > kl["drop"][2], "a matrix without the sink costs more than no matrix with it, intervals apart"


def test_the_answers_lie_between_guessing_and_the_original() -> None:
    found = measured()
    assert all(found["guessed"] < row["right"] < found["right"] for row in found["rows"])
    assert found["more"]["p"] < 0.05, "the card says that these questions tell them apart"
    assert found["more"]["local_refit"] > found["more"]["drop"] > found["more"]["paper"]
    assert abs(found["more"]["paper"] - found["guessed"]) < 0.01, "the card says that it answers as guessing does"


def test_another_text_shows_its_own_figures() -> None:
    app = at_card(11, model=REAL)
    wikitext, c4 = ({row["name"]: f"{row['kl'][text][0]:.2f}" for row in measured()["rows"]} for text in measured()["tokens"])
    assert f"from {wikitext['drop']} to {wikitext['least_squares']}" in text_of(app)
    app.button_group(key="lesson_quality_text").set_value("C4")
    assert f"from {c4['drop']} to {c4['least_squares']}" in text_of(run(app))
