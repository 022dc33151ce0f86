"""Score files of other versions and programs: the same figures and the same average, whichever layout they have."""

import json
from contextlib import suppress

import pytest

from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation.harness_files import from_files
from replaceme_core.evaluation.paired import common

FIGURES = {"boolq": 0.5, "mmlu": 0.25, "mmlu_stem": 0.2, "mmlu_physics": 0.1, "mmlu_chemistry": 0.3, "mmlu_history": 0.3}
ALIASES = {"mmlu_stem": " - stem", "mmlu_physics": "  - physics", "mmlu_chemistry": "  - chemistry", "mmlu_history": " - history"}
GROUPS = ("mmlu", "mmlu_stem")
AVERAGE = (0.5 + 0.25) / 2


def early() -> dict:
    """0.4.0 and 0.4.1: groups among the tasks, and what they hold only printed below them."""
    rows = {task: {"acc,none": value, "acc_stderr,none": 0.01, "alias": ALIASES.get(task, task)} for task, value in FIGURES.items()}
    tasks = [task for task in FIGURES if task not in GROUPS]
    return {
        "results": rows, "groups": {group: rows[group] for group in GROUPS}, "configs": {task: {"task": task} for task in tasks},
        "versions": dict.fromkeys(FIGURES, 1), "n-shot": dict.fromkeys(FIGURES, 5), "config": {"model": "hf"}, "git_hash": "x",
    }  # fmt: skip


def old() -> dict:
    """0.3: no filters, no configs, one number of examples."""
    rows = {task: {"acc": value, "acc_stderr": 0.01} for task, value in FIGURES.items() if task in ("boolq", "mmlu")}
    return {"results": rows, "versions": dict.fromkeys(rows, 0), "config": {"model": "hf-causal", "num_fewshot": 5, "limit": None}}


def bare(wrapped: bool) -> dict:
    """What simple_evaluate returns under 'results', written by itself."""
    rows = {
        task: {"alias": task, "acc,none": value, "acc_stderr,none": 0.01} for task, value in FIGURES.items() if task in ("boolq", "mmlu")
    }
    return {"results": rows} if wrapped else rows


LAYOUTS = {"0.4.0": early(), "0.3": old(), "results alone": bare(True), "a mapping of tasks": bare(False)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_average_counts_every_benchmark_once(layout: str) -> None:
    scores = from_files("results.json", json.dumps(LAYOUTS[layout]).encode())
    assert scores.average == pytest.approx(AVERAGE)
    assert scores.shown == ["mmlu", "boolq"] or set(scores.shown) == {"boolq", "mmlu"}
    assert scores.results["boolq"]["acc"].stderr == 0.01
    assert scores.tasks["boolq"].few_shot == (5 if layout in ("0.4.0", "0.3") else 0)


def test_groups_without_aliases_hold_what_begins_with_their_name() -> None:
    data = early()
    for row in data["results"].values():
        row.pop("alias")
    data["groups"].pop("mmlu_stem")
    data["results"].pop("mmlu_stem")
    assert from_files("results.json", json.dumps(data).encode()).average == pytest.approx(AVERAGE)


@pytest.mark.parametrize("data", [{"results": {}}, {"results": {"boolq": {"alias": "boolq"}}}, {"steps": 3}, {"results": 3}])
def test_what_holds_no_figures_is_said_without_a_contradiction(data: dict) -> None:
    with pytest.raises(EvaluationError, match=rf"results.json holds no figures of tasks \(it has {next(iter(data))}\)"):
        from_files("results.json", json.dumps(data).encode())


@pytest.mark.parametrize(("key", "value"), [("configs", 3), ("n-shot", []), ("groups", [1]), ("config", [2]), ("versions", 1), ("group_subtasks", 7), ("n-samples", 3)])  # fmt: skip
def test_a_part_that_is_no_mapping_is_read_around_or_told(key: str, value: object) -> None:
    said = "results.json"
    with suppress(EvaluationError):
        said = str(from_files("results.json", json.dumps(early() | {key: value}).encode()).settings["imported"])
    assert said == "results.json"


def logged(order: tuple[str, ...], right: dict[str, list[int]]) -> tuple[bytes, dict[str, bytes]]:
    """A task with two filters, logged in this order."""
    figures = {"alias": "gsm8k"} | {f"exact_match,{kind}": sum(right[kind]) / 3 for kind in order}
    results = {"results": {"gsm8k": figures}, "configs": {"gsm8k": {}}, "n-shot": {"gsm8k": 5}}
    rows = [
        {"doc_id": number, "doc": {}, "target": "4", "arguments": [["2 + 2?", {}]], "resps": [["4"]], "filtered_resps": ["4"], "filter": kind,
         "metrics": ["exact_match"], "exact_match": float(right[kind][number])}
        for kind in order for number in range(3)
    ]  # fmt: skip
    return json.dumps(results).encode(), {"samples_gsm8k_x.jsonl": "\n".join(map(json.dumps, rows)).encode()}


def test_the_same_filter_is_paired_on_both_sides_whatever_the_order_of_a_log() -> None:
    right = {"strict-match": [0, 0, 1], "flexible-extract": [1, 1, 1]}
    left, other = (
        from_files("results_x.json", *logged(order, right)) for order in (("strict-match", "flexible-extract"), tuple(reversed(right)))
    )
    pairs = common(left, other, "gsm8k")
    assert len(pairs) == 3
    assert all(a.filter == b.filter == "flexible-extract" and a.correct == b.correct for a, b in pairs)
    assert left.average == other.average == 1.0
    strict = from_files("results_x.json", *logged(("strict-match",), {"strict-match": right["strict-match"]}))
    assert common(left, strict, "gsm8k") == []
