"""Every question can be read: the answers of all systems to one question together, filtered by flip and by margin."""

import pandas as pd
import pytest

from replaceme_core.evaluation.paired import Paired
from replaceme_core.evaluation.scores import Sample, Scores
from ui.benchmarks import items as items_view
from ui.benchmarks.flips import _reading
from ui.benchmarks.items import FILTERS, Item, items_of, margin, rows_of


def sample(number: int, answer: int, logliks: list[float], content: str = "") -> Sample:
    """A question of three choices whose right one is the first."""
    return Sample(number, f"question {number}", ["a", "b", "c"], 0, answer, answer == 0, logliks=logliks, doc_hash=content)


@pytest.fixture
def systems() -> dict[str, Scores]:
    def scored(name: str, samples: list[Sample]) -> Scores:
        return Scores(name, {}, None, {}, samples={"demo_where": samples})

    return {
        "original": scored(
            "o", [sample(0, 0, [-1.0, -3.0, -2.5]), sample(1, 1, [-2.0, -1.9, -5.0]), sample(2, 0, [-1.0, -2.0, -3.0], "x")]
        ),
        "cut": scored("c", [sample(0, 1, [-3.0, -1.0, -2.0]), sample(1, 0, [-1.0, -1.5, -4.0])]),
        "first": scored(
            "f", [sample(1, 1, [-2.0, -1.0, -3.0]), sample(0, 0, [-1.0, -1.2, -9.0], "y"), sample(2, 0, [-1.0, -4.0, -3.0], "z")]
        ),
    }


def test_a_part_of_a_point_is_neither_right_nor_wrong() -> None:
    right, part, wrong = (Sample(0, "", [], -1, -1, correct, {"acc": value}) for correct, value in ((True, 1.0), (None, 0.9), (False, 0.0)))
    assert [FILTERS["worse"][1](right, now) for now in (right, part, wrong)] == [False, False, True]
    assert [FILTERS["better"][1](before, right) for before in (right, part, wrong)] == [False, False, True]


@pytest.mark.parametrize(("metric", "reads"), [("acc", "a gain"), ("perplexity", "a loss")])
def test_a_figure_that_rose_reads_as_a_gain_where_more_is_better(metric: str, reads: str) -> None:
    assert _reading(Paired(0, 0, 0.001, metric, "bootstrap", 100, 0.2), 0.001) == reads


def test_answers_to_one_question_stand_together_and_other_content_is_another_question(systems: dict[str, Scores]) -> None:
    found = items_of(systems, ["demo_where"])
    assert [(item.first.doc_id, sorted(item.samples)) for item in found] == [
        (0, ["cut", "first", "original"]),  # whose content is known to one of them only
        (1, ["cut", "first", "original"]),
        (2, ["original"]),
        (2, ["first"]),
    ]
    assert items_of(systems, ["another"]) == []


def test_a_margin_is_that_of_the_right_choice_over_the_best_wrong_one() -> None:
    assert margin(sample(0, 0, [-1.0, -3.0, -2.5])) == pytest.approx(1.5)
    assert margin(sample(0, 1, [-3.0, -1.0, -2.0])) == pytest.approx(-2.0)
    assert margin(Sample(0, "write", [], -1, -1, True, wanted="x", said="x")) is None
    assert not items_view._is_close(None, 1.0)
    assert items_view._is_close(sample(0, 0, [-1.0, -1.2, -9.0]), 0.3)


@pytest.mark.parametrize(("kind", "numbers"), [("all", [0, 1, 2, 2]), ("flips", [0, 1]), ("worse", [0]), ("better", [1]), ("wrong", [0])])
def test_filters_are_about_the_original_and_the_chosen_system(systems: dict[str, Scores], kind: str, numbers: list[int]) -> None:
    passes = FILTERS[kind][1]
    found = [item for item in items_of(systems, ["demo_where"]) if passes(item.samples.get("original"), item.samples.get("cut"))]
    assert [item.first.doc_id for item in found] == numbers


def test_the_list_marks_every_system_and_the_question_has_every_log_likelihood(systems: dict[str, Scores]) -> None:
    found = items_of(systems, ["demo_where"])
    rows = rows_of(found, list(systems), "cut")
    assert rows.loc[0, ["original", "cut", "first"]].tolist() == ["✓", "✗", "✓"]
    assert rows.loc[2, "cut"] == ""
    assert rows.loc[0, "margin"] == pytest.approx(-2.0)
    assert pd.isna(rows.loc[2, "margin"])
    shown = items_view._choices(found[0], ["original", "cut"])
    assert shown["cut"].tolist() == ["-3.00", "-1.00 ►", "-2.00"]
    assert "(right)" in shown.index[0]
    odd = Item("t", {"a*b": Sample(0, "q", ["$x$ [y](z)", "b"], 1, 0, False, logliks=[-1.0])})
    table = items_view._choices(odd, ["a*b"])
    assert table.columns.tolist() == ["a\\*b"], "a name is no Markdown"
    assert table.iloc[1, 0] == "–"
