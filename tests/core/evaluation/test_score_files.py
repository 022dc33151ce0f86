"""Scores as files: lm-eval's layout there and back, its real files read, unknown layouts refused, tables in the paper's layout."""

import csv
import io
import json

import pytest

from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation import harness_files, tables
from replaceme_core.evaluation.evaluate import evaluate
from replaceme_core.evaluation.paired import paired_all
from replaceme_core.evaluation.scores import Sample, Score, Scores, TaskScores, lower_is_better
from replaceme_core.plans.plan import EvaluationSection
from tests.core.evaluation.test_evaluate import write_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))[0]


@pytest.fixture(scope="module")
def pair(llama, variant, folder):
    """The tiny llama and its pruned variant on two tasks and a writing task."""
    section = EvaluationSection(tasks=f"{folder},probe:copy", batch_size=4, exact=True)
    return {"original": evaluate(llama, section), "pruned": evaluate(variant.handle, section)}


def test_what_is_written_in_lm_evals_layout_is_read_back_whole(pair, tmp_path):
    written = harness_files.write(pair["pruned"], tmp_path / "results_mine.json")
    assert sorted(path.name for path in written) == [
        "results_mine.json", "samples_probe_copy_mine.jsonl", "samples_toy_choice_mine.jsonl", "samples_toy_perplexity_mine.jsonl",
    ]  # fmt: skip
    back = harness_files.read(tmp_path / "results_mine.json")
    assert back.results == pair["pruned"].results
    assert (back.average, back.settings["few_shot"]) == (pair["pruned"].average, pair["pruned"].settings["few_shot"])
    assert paired_all(pair["original"], back) == paired_all(pair["original"], pair["pruned"])
    assert back.samples["toy_choice"] == pair["pruned"].samples["toy_choice"]
    assert harness_files.read(tmp_path) == back


def test_the_files_that_lm_eval_itself_writes_are_read(llama, folder, pair, tmp_path):
    """Its own evaluation tracker writes them, from its own run of the exported tasks."""
    import yaml
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    from replaceme_core.distribution import ALONE
    from replaceme_core.evaluation.lm_eval_model import BorrowedLM
    from replaceme_core.progress import SILENT

    specs = []
    for name in ("choice", "perplexity"):
        spec = yaml.safe_load((folder / f"{name}.yaml").read_text())
        spec["dataset_kwargs"] = {"data_files": {"test": str(folder / spec["dataset_kwargs"]["data_files"]["test"])}}
        specs.append(spec)
    tracker = EvaluationTracker(output_path=str(tmp_path))
    raw = simple_evaluate(
        model=BorrowedLM(llama, 4, SILENT, ALONE), tasks=specs, task_manager=TaskManager(include_defaults=False), evaluation_tracker=tracker
    )
    samples = raw.pop("samples")
    tracker.general_config_tracker.model_name_sanitized = "tiny"
    tracker.save_results_aggregated(results=raw, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    read = harness_files.read(tmp_path)
    ours = pair["original"]
    for task in ("toy_choice", "toy_perplexity"):
        assert {m: s.value for m, s in read.results[task].items()} == {m: s.value for m, s in ours.results[task].items()}
        assert [s.correct for s in read.samples[task]] == [s.correct for s in ours.samples[task]]
    found = paired_all(ours, read)
    assert {test.difference for test in found.values()} == {0.0}
    assert set(found) == {("toy_choice", "acc"), ("toy_perplexity", "word_perplexity")}
    assert [(s.answer, s.target, s.choices, s.doc_hash) for s in read.samples["toy_choice"]] == [
        (s.answer, s.target, s.choices, s.doc_hash) for s in ours.samples["toy_choice"]
    ]


GOOD = {
    "results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.1}},
    "configs": {"t": {}},
    "n-shot": {"t": 0},
    "n-samples": {"t": {"effective": 4}},
}
VLLM = GOOD | {
    "config": {"model": "vllm", "model_args": {"pretrained": "exports/first", "dtype": "bfloat16", "tensor_parallel_size": 2}, "batch_size": "auto", "limit": None},
    "model_source": "vllm", "model_name": "exports/first", "lm_eval_version": "0.4.13", "chat_template": None,
}  # fmt: skip
"""what lm-eval leaves of a run through vLLM: no dtype and no count of parameters, which it asks of transformers' models alone"""


def test_a_run_through_vllm_is_read_beside_ours():
    read = harness_files.from_files("results_vllm.json", json.dumps(VLLM).encode())
    assert (read.model, read.results) == ("exports/first", {"t": {"acc": Score(0.5, 0.1, 4)}})
    assert (read.settings["lm_eval"], read.settings["batch_size"], read.settings["dtype"]) == ("0.4.13", "auto", None)


BROKEN = {
    "another version": (GOOD | {"lm_eval_version": "0.5.1"}, "was written by lm-eval 0.5.1; files of lm-eval 0.3 and 0.4 are read"),
    "no figures": (GOOD | {"results": {"t": {"alias": "t"}}}, "holds no figures of tasks .it has results, configs"),
    "a list": ([1], "is a JSON list, not lm-eval's object"),
    "an empty object": ({}, "it has nothing"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_unknown_layout_is_refused_in_a_sentence(what):
    data, sentence = BROKEN[what]
    with pytest.raises(EvaluationError, match=sentence):
        harness_files.from_files("r.json", json.dumps(data).encode())


def test_broken_files_are_named_with_their_line():
    with pytest.raises(EvaluationError, match=r"r\.json is not JSON"):
        harness_files.from_files("r.json", b"{")
    good = json.dumps(GOOD).encode()
    assert harness_files.from_files("r.json", good).results == {"t": {"acc": Score(0.5, 0.1, 4)}}
    for rows in (b'{"doc_id": 0}', b"[1]", b"nonsense"):
        with pytest.raises(EvaluationError, match=r"samples_t_x\.jsonl, line 2 is not a sample of lm-eval 0\.4"):
            harness_files.from_files("r.json", good, {"samples_t_x.jsonl": b"\n" + rows})
    with pytest.raises(EvaluationError, match=r"samples_other_x\.jsonl belongs to no task of the results file \(t\)"):
        harness_files.from_files("r.json", good, {"samples_other_x.jsonl": b""})


def test_a_missing_file_or_folder_is_a_sentence(tmp_path):
    with pytest.raises(EvaluationError, match="holds no results_"):
        harness_files.read(tmp_path)
    with pytest.raises(EvaluationError, match="cannot be read"):
        harness_files.read(tmp_path / "results_x.json")


def system(values: dict[str, float], n: int = 100, n_all: int = 100, stderr: float = 0.05, **shots: int) -> Scores:
    results = {task: {"acc": Score(value, stderr, n)} for task, value in values.items()}
    held = {task: TaskScores(task, results[task], [], "1", shots.get(task, 0), n_all) for task in values}
    settings = {
        "few_shot": {t: h.few_shot for t, h in held.items()},
        "versions": dict.fromkeys(values, "1"),
        "lm_eval": "0.4.13",
        "limit": None,
        "seed": 1,
    }
    return Scores("m", results, sum(values.values()) / len(values), settings, tasks=held)


def test_the_papers_layout_has_the_average_and_the_share_kept():
    systems = {"original": system({"boolq": 0.8, "piqa": 0.6}), "cut": system({"boolq": 0.4, "piqa": 0.6})}
    head, rows = tables.paper_rows(systems, "original")
    assert head == ["system", "boolq", "piqa", "average", "relative accuracy, %"]
    assert rows == [
        ["original", "80.0 ± 5.0", "60.0 ± 5.0", "70.0 ± 3.5", "100.0"],
        ["cut", "40.0 ± 5.0", "60.0 ± 5.0", "50.0 ± 3.5", "71.4"],
    ]
    markdown = tables.to_markdown(systems, "original").splitlines()
    assert markdown[0] == "| system | boolq | piqa | average | relative accuracy, % |"
    assert markdown[3] == "| cut | 40.0 ± 5.0 | 60.0 ± 5.0 | 50.0 ± 3.5 | 71.4 |"
    latex = tables.to_latex({"a_b & 1": systems["original"]}, None)
    assert r"a\_b \& 1 & 80.0 $\pm$ 5.0" in latex
    assert r"relative accuracy, \%" in latex
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(systems, "original"))))
    assert [(r["system"], r["task"], r["value"], r["stderr"], r["n"], r["kept"]) for r in rows[2:]] == [
        ("cut", "boolq", "0.4", "0.05", "100", "0.5"),
        ("cut", "piqa", "0.6", "0.05", "100", "1.0"),
    ]


def test_averages_are_over_the_tasks_that_all_systems_have():
    systems = {"original": system({"boolq": 0.8, "piqa": 0.6}), "other": system({"piqa": 0.5, "sciq": 0.9})}
    assert tables.common_tasks(systems) == ["piqa"]
    assert tables.averages(systems) == {"original": 0.6, "other": 0.5}


def test_a_share_is_kept_only_of_figures_where_more_is_better():
    scores = Scores("m", {}, None, {})
    assert tables.share_kept(0.4, 0.8, scores.less_is_better("task", "acc")) == 0.5
    assert tables.share_kept(9.0, 3.0, scores.less_is_better("task", "word_perplexity")) is None
    assert tables.share_kept(0.2, 0.1, scores.less_is_better("task", "repetition")) is None
    assert tables.share_kept(0.4, 0.0, scores.less_is_better("task", "acc")) is None


def test_which_figures_are_better_when_less_is_what_lm_eval_says():
    """Of its own metrics by their names; of what only a task knows (wer, likelihood_diff) by what the task says."""
    import lm_eval.api.metrics  # noqa: F401 - fills the registry
    from lm_eval.api.registry import HIGHER_IS_BETTER_REGISTRY

    theirs = dict(HIGHER_IS_BETTER_REGISTRY.items())
    assert theirs["bits_per_byte"] is False
    assert {name: not lower_is_better(name) for name in theirs} == theirs
    figures = {"wer": Score(0.2, None, 9), "wer,strict": Score(0.3, None, 9), "acc": Score(0.5, None, 9)}
    heard = Scores("m", {"heard": figures}, None, {}, tasks={"heard": TaskScores("heard", figures, [], higher_is_better={"wer": False})})
    assert [row["kept"] for row in tables.long_rows({"original": heard}, "original")] == [None, None, 1.0]
    said = Scores("m", {}, None, {}, tasks={"own": TaskScores("own", {}, [], higher_is_better={"interpreter": True})})
    assert (said.less_is_better("own", "interpreter"), said.less_is_better("other", "ter")) == (False, True), (
        "the task's word goes before a name"
    )


def test_a_limit_that_makes_the_average_meaningless_is_told_with_its_size():
    few = system({"boolq": 0.8, "piqa": 0.6}, n=50, n_all=3270, stderr=0.06)
    said = tables.doubtful_average(few, ["boolq", "piqa"])
    assert said is not None
    assert "±8.3 points" in said
    assert "2 of 2 tasks" in said
    said = tables.doubtful_average(system({"boolq": 0.8}, n=1000, n_all=3270, stderr=0.013), ["boolq"])
    assert said is not None, "2.5 points to either side at 95 %"
    assert "±2.5 points" in said
    assert tables.doubtful_average(system({"boolq": 0.8}, n=3270, n_all=3270, stderr=0.06), ["boolq"]) is None, "no limit, no warning"
    assert tables.doubtful_average(system({"boolq": 0.8}, n=3000, n_all=3270, stderr=0.007), ["boolq"]) is None, "enough questions"


def test_settings_that_differ_are_told():
    systems = {"original": system({"piqa": 0.6}), "file": system({"piqa": 0.6}, n=20, piqa=5)}
    said = " ".join(tables.unequal(systems))
    assert "piqa: the number of few-shot examples differs (original 0, file 5)" in said
    assert "piqa: the number of questions differs (original 100, file 20)" in said
    assert tables.unequal({"original": system({"piqa": 0.6}), "b": system({"piqa": 0.1})}) == []


def test_an_answer_that_stands_in_the_context_is_shown_as_the_choice():
    """Winogrande puts the choices into the context and asks for the same ending."""
    from replaceme_core.evaluation.samples import row_of, sample_of

    row = {
        "doc_id": 3, "target": "1", "arguments": {"gen_args_0": {"arg_0": "Ann", "arg_1": " won."}, "gen_args_1": {"arg_0": "Bob", "arg_1": " won."}},
        "filtered_resps": [["-2.5", "False"], ["-1.5", "False"]], "acc": 1.0, "metrics": ["acc"], "doc_hash": "h",
    }  # fmt: skip
    sample = sample_of(row)
    assert (sample.given, sample.right, sample.text, sample.logliks) == ("Bob", "Bob", " won.", [-2.5, -1.5])
    assert sample_of(row_of(sample)) == sample
    assert isinstance(sample, Sample)
