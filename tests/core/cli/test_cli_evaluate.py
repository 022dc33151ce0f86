"""`evaluate` on the command line: what is kept, exports by ending, scores from elsewhere beside, and refusals before any work."""

import json

import pytest

from tests.core.cli.test_cli import inside, strict
from tests.core.evaluation.test_evaluate import write_tasks


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))[0]


@pytest.fixture(scope="module")
def first(llama_folder, tasks, tmp_path_factory):
    """A run that is exported in every format."""
    out = tmp_path_factory.mktemp("out")
    exports = [part for ending in ("csv", "tex", "md", "json") for part in ("--export", out / f"results_a.{ending}")]
    done = inside("evaluate", "--model", llama_folder, "--tasks", tasks, "--num-fewshot", 1, "--seed", 5, *exports, "--json")
    assert done.exit_code == 0, done.output
    return out, strict(done.stdout)


def test_settings_are_in_the_answer_and_every_export_is_written(first):
    out, data = first
    assert (data["settings"]["num_fewshot"], data["settings"]["seed"], data["settings"]["batch_size"]) == (1, 5, "auto")
    assert data["settings"]["few_shot"] == {"toy_choice": 1, "toy_perplexity": 1}
    assert sorted(path.name for path in out.iterdir()) == [
        "results_a.csv", "results_a.json", "results_a.md", "results_a.tex", "samples_toy_choice_a.jsonl", "samples_toy_perplexity_a.jsonl",
    ]  # fmt: skip
    written = json.loads((out / "results_a.json").read_text())
    assert written["results"]["toy_choice"]["acc,none"] == data["results"]["toy_choice"]["acc"]["value"]
    assert (out / "results_a.md").read_text().startswith("| system | toy_choice | average | relative accuracy, % |")


def test_a_second_run_asks_nothing_and_fresh_asks_again(llama_folder, tasks, first):
    again = ("evaluate", "--model", llama_folder, "--tasks", tasks, "--num-fewshot", 1, "--seed", 5, "--json")
    kept, fresh = inside(*again), inside(*again, "--fresh")
    assert strict(kept.stdout) == strict(fresh.stdout) == first[1]
    assert "benchmarks on" not in kept.stderr
    assert "benchmarks on" in fresh.stderr


def test_scores_from_elsewhere_are_set_beside_with_their_paired_tests(llama_folder, tasks, first):
    base = ("evaluate", "--model", llama_folder, "--tasks", tasks)
    data = strict(inside(*base, "--num-fewshot", 1, "--seed", 5, "--import", first[0] / "results_a.json", "--json").stdout)
    (name, rows), = data["paired"].items()  # fmt: skip
    assert name.endswith("(2)")
    assert [(row["task"], row["metric"], row["difference"], row["p_value"]) for row in rows] == [
        ("toy_choice", "acc", 0.0, 1.0), ("toy_perplexity", "word_perplexity", 0.0, 1.0),
    ]  # fmt: skip
    assert data["unequal"] == []
    other = inside(*base, "--limit", 8, "--import", first[0])
    assert other.exit_code == 0, other.output
    assert "toy_choice: the number of few-shot examples differs" in other.stdout
    assert "McNemar, n = 8" in other.stdout


def test_files_alone_are_read_without_a_model(first):
    data = strict(inside("evaluate", "--import", first[0], "--json").stdout)
    assert data["results"] == first[1]["results"]
    assert data["average"] == first[1]["average"]


def test_own_questions_need_no_yaml(llama_folder, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"question": "w1 w2", "choices": ["w3", "w4"], "answer": "w4"}\n')
    data = strict(inside("evaluate", "--model", llama_folder, "--tasks", tmp_path / "mine.jsonl", "--json").stdout)
    assert data["results"]["own_mine"]["acc"]["n"] == 1


REFUSED = [
    (("--export", "scores.xlsx"), 1, "ends in '.xlsx'; scores are written as .csv, .tex, .md or .json"),
    (("--tasks", "demo:none"), 1, "The demo suite has no task 'none'"),
    (("--tasks", "BROKEN"), 1, "mine.jsonl, line 1: 'choices' must be a list of two or more texts"),
    (("--import", "/no/such/results_x.json"), 1, "results_x.json' cannot be read"),
    (("--batch-size", "0"), 2, "'0' is neither 'auto' nor a whole number above 0"),
]


@pytest.mark.parametrize(("arguments", "code", "sentence"), REFUSED, ids=[a[0] + " " + a[1][-9:] for a, *_ in REFUSED])
def test_what_cannot_be_done_is_one_sentence(llama_folder, tmp_path, arguments, code, sentence):
    (tmp_path / "mine.jsonl").write_text('{"question": "w1", "choices": ["w3"], "answer": 0}')
    arguments = [str(tmp_path / "mine.jsonl") if argument == "BROKEN" else argument for argument in arguments]
    done = inside("evaluate", "--model", llama_folder, "--limit", 1, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert sentence in " ".join(done.stderr.split())


def test_neither_a_model_nor_a_file_is_wrong_usage():
    done = inside("evaluate")
    assert done.exit_code == 2
    assert "Missing option '--model'" in done.stderr
