"""The plain suite: the shipped files are what the generator writes, every item has one right answer, and nobody gains by guessing."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import binomtest

from plain.drafts import Draft, credit, items_of
from plain.measure import misplaced, moved, rows, table, wilson, write_control
from plain.tasks import FAMILIES, ITEMS, TASKS, items, write
from plain.words import passages, words
from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation.evaluate import evaluate, list_tasks
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import EvaluationSection, ModelSection
from tests.support.app_session import needs_demo

_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]
NUMBERS = {word: number for number, word in enumerate(_WORDS)}


def shipped(family: str) -> list[dict]:
    return [json.loads(line) for line in (TASKS / f"{family}.jsonl").read_text(encoding="utf-8").splitlines()]


def right(row: dict) -> str:
    return row["choices"][row["answer"]]


def test_the_shipped_files_are_what_the_generator_writes_to_the_byte(tmp_path: Path) -> None:
    write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in TASKS.iterdir()}
    assert sum(map(len, written.values())) < 2e6


def test_another_seed_gives_other_items() -> None:
    maker, choices, _ = FAMILIES["capitals"]
    assert items_of(maker, choices, 20, "a") == items_of(maker, choices, 20, "a")
    assert items_of(maker, choices, 20, "a") != items_of(maker, choices, 20, "b")


def test_there_are_at_least_twelve_families_of_150_items_and_forty_passages_of_prose() -> None:
    assert len(FAMILIES) >= 12
    assert ITEMS >= 150
    prose = passages()
    assert len(set(prose)) == len(prose) >= 40
    assert all(50 <= len(text.split()) <= 130 for text in prose)
    assert [json.loads(line)["text"] for line in (TASKS / "perplexity.jsonl").read_text(encoding="utf-8").splitlines()] == prose


@pytest.mark.parametrize("family", FAMILIES)
def test_every_item_is_there_once_and_has_one_right_answer_among_distinct_choices(family: str) -> None:
    found = shipped(family)
    assert len(found) == ITEMS
    assert len({(row["question"], *sorted(row["choices"])) for row in found}) == ITEMS
    for row in found:
        assert len(set(row["choices"])) == len(row["choices"]) == FAMILIES[family][1]
        assert 0 <= row["answer"] < len(row["choices"])
        assert not re.search(r"[{}|]|  |^\s|\s$", "\n".join([row["question"], *row["choices"]])), row


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_gives_its_answers_away_by_place_or_length(family: str) -> None:
    found, choices = shipped(family), FAMILIES[family][1]
    chance = 1 / choices
    room = 2.5 * math.sqrt(chance * (1 - chance) / len(found))
    guessed = {f"place {place}": sum(row["answer"] == place for row in found) / len(found) for place in range(choices)}
    for name, extreme in (("longest", max), ("shortest", min)):
        wrong = [[choice for choice in row["choices"] if choice != right(row)] for row in found]
        guessed[name] = sum(credit(right(row), others, extreme) for row, others in zip(found, wrong, strict=True)) / len(found)
    assert {name: share for name, share in guessed.items() if abs(share - chance) > room} == {}


def test_a_family_that_cannot_be_filled_says_so() -> None:
    few = [Draft(f"question {number}", "yes", sure=["no"]) for number in range(3)]
    with pytest.raises(ValueError, match="3 distinct drafts for 4 items; add words or templates"):
        items_of(lambda _: iter(few), 2, 4, "few")
    with pytest.raises(ValueError, match="has 1 wrong choices, 3 are asked for"):
        items_of(lambda _: iter(few), 4, 2, "few")


def test_sums_are_right_by_another_way() -> None:
    checked = 0
    for row in shipped("sums"):
        bare = re.search(r"(\w+) plus (\w+) is$", row["question"])
        step = re.search(r"One (more|less) than (\w+) is$", row["question"])
        told = re.search(r"(\w+) \w+ (?:and|then|and then) ?(?:\w+ )*?(\w+)(?: more| of them)", row["question"])
        if bare:
            total = NUMBERS[bare[1].lower()] + NUMBERS[bare[2]]
        elif step:
            total = NUMBERS[step[2]] + (1 if step[1] == "more" else -1)
        else:
            assert told, row
            sign = 1 if "more." in row["question"] else -1
            total = NUMBERS[told[1]] + sign * NUMBERS[told[2]]
        assert NUMBERS[right(row).split()[0]] == total, row
        checked += 1
    assert checked == ITEMS


def test_what_is_copied_and_found_stands_in_the_text() -> None:
    for row in shipped("copying"):
        first, second = re.split(r"\. (?:Once more|He copied|I repeat)", row["question"])
        listed = first.split(": ")[1].split(", ")
        shown = second.split(": ")[1].rstrip(",").split(", ")
        assert listed[: len(shown) + 1] == [*shown, right(row)]
    for row in shipped("finding"):
        assert re.search(rf"\b{re.escape(right(row))}\b", row["question"]), row


def test_a_pronoun_family_asks_for_each_of_two_people_equally_often() -> None:
    girls = set(words("names")["girls"])
    asked = [right(row) in girls for row in shipped("pronouns") if right(row) in girls | set(words("names")["boys"])]
    assert len(asked) > 20
    assert binomtest(sum(asked), len(asked)).pvalue > 0.01


def test_every_story_ends_in_each_of_its_two_ways() -> None:
    names = "|".join(name for kind in words("names").values() for name in kind)
    ends = Counter(re.sub(rf"\b(?:she|he|her|his|him|{names})\b", "", right(row), flags=re.I) for row in shipped("endings"))
    assert len(ends) > 70
    assert max(ends.values()) <= 4


def test_the_suite_is_named_like_the_demo_suite() -> None:
    assert list_tasks("plain") == sorted(f"plain_{family}" for family in [*FAMILIES, "perplexity"])
    assert list_tasks("plain:capitals,plain_sums,piqa,demo:where") == ["plain_capitals", "plain_sums", "piqa", "demo_where"]
    with pytest.raises(EvaluationError, match="The plain suite has no task 'where'; it has agreement, "):
        list_tasks("plain:where")


@needs_demo
def test_the_demo_model_takes_the_whole_suite() -> None:
    scores = evaluate(load(ModelSection(path="demo")), EvaluationSection(tasks="plain", limit=2))
    assert set(scores.results) == {f"plain_{family}" for family in [*FAMILIES, "perplexity"]}
    shares = [scores.results[f"plain_{family}"]["acc_norm"] for family in FAMILIES]
    assert {share.n for share in shares} == {2}
    assert scores.average == pytest.approx(sum(share.value for share in shares) / len(shares))
    assert scores.results["plain_perplexity"]["bits_per_byte"].value > 1
    for family in FAMILIES:
        for sample in scores.samples[f"plain_{family}"]:
            assert sample.correct is (sample.answer == sample.target)


@needs_demo
def test_the_controls_are_measured_beside_the_suite(tmp_path: Path) -> None:
    write_control(tmp_path)
    model = load(ModelSection(path="demo"))
    scores, control = (evaluate(model, EvaluationSection(tasks=tasks, limit=2)) for tasks in ("plain", str(tmp_path)))
    found = rows(scores, control)
    assert [row.family for row in found] == list(FAMILIES)
    assert {row.n for row in found} == {2}
    assert found[0].acc_norm == scores.results["plain_capitals"]["acc_norm"].value
    assert found[0].misplaced == control.results["control_capitals"]["acc_norm"].value
    assert table(found).count("\n") == len(FAMILIES) + 1


def test_a_control_keeps_the_choices_and_takes_the_question_of_another_item() -> None:
    assert all(place != taken for place, taken in enumerate(moved(ITEMS, "a")))
    assert sorted(moved(ITEMS, "a")) == list(range(ITEMS))
    own, control = items("capitals"), misplaced("capitals")
    assert [item.choices for item in own] == [item.choices for item in control]
    assert all(a.question != b.question for a, b in zip(own, control, strict=True))


def test_the_interval_is_that_of_scipy() -> None:
    for right_ones in (0, 7, 160):
        theirs = binomtest(right_ones, 160).proportion_ci(method="wilson")
        assert wilson(right_ones / 160, 160) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
