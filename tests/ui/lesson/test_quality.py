"""The card on a real model: its figures are those of the measured table, and bear out what the card says."""

import pytest

from benchmarks.real_rows import MORE, OUT, Rows
from tests.support.app_session import run, text_of
from tests.ui.lesson.test_page_lesson import at_card
from ui.lesson.quality import measured
from ui.lesson.state import REAL

pytestmark = pytest.mark.usefixtures("at_the_root")


def test_its_figures_are_those_of_the_table() -> None:
    assert measured() == Rows(OUT).shown(8, Rows(MORE))


@pytest.mark.parametrize("text", ["WikiText-2", "C4"])
def test_the_order_that_it_tells_of_is_measured_on_both_texts(text: str) -> None:
    kl = {row["name"]: row["kl"][text] for row in measured()["rows"]}
    assert [name for name, _ in sorted(kl.items(), key=lambda each: -each[1][0])] == list(kl), "each is better than the one above it"
    assert kl["paper"][1] > kl["drop"][2], "a matrix without the sink costs more than no matrix with it, intervals apart"


def test_the_answers_are_those_that_it_tells_of() -> None:
    found = measured()
    right = {row["name"]: row["right"] for row in found["rows"]}
    assert abs(right["paper"] - found["guessed"]) < 0.01, "without the sink one matrix answers as guessing does"
    assert found["guessed"] < right["drop"] < right["exchange_refit"] < found["right"]
    assert found["p"] < 0.05, "the card names the order of these two"


def test_another_text_shows_its_own_figures() -> None:
    app = at_card(11, model=REAL)
    wikitext, c4 = ({row["name"]: f"{row['kl'][text][0]:.2f}" for row in measured()["rows"]} for text in measured()["tokens"])
    assert f"from {wikitext['drop']} to {wikitext['least_squares']}" in text_of(app)
    app.button_group(key="lesson_quality_text").set_value("C4")
    assert f"from {c4['drop']} to {c4['least_squares']}" in text_of(run(app))
