"""Runs that are stopped go on, results are kept and found again, figures are lm-eval's own whatever the kind of task."""

import copy
import gzip
import json
import logging
from dataclasses import replace

import pytest
import yaml
from scipy.stats import sem

from replaceme_core.errors import Cancelled, EvaluationError
from replaceme_core.evaluation import probe_prompts, store
from replaceme_core.evaluation.evaluate import evaluate, known
from replaceme_core.evaluation.suites import entries
from replaceme_core.export.export import export
from replaceme_core.plans.plan import EvaluationSection
from replaceme_core.storage.cache import CACHE
from tests.core.evaluation.test_evaluate import CHOICE, ITEMS, ROWS, write_tasks
from tests.support.tiny_models import WORDS

GENERATE = {
    "task": "toy_generate",
    **ROWS,
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty store of its own, as a new process finds it."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_kept", {})
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three tasks: multiple choice, generation, rolling perplexity."""
    path, _ = write_tasks(tmp_path_factory.mktemp("tasks"))
    (path / "generate.yaml").write_text(yaml.safe_dump(GENERATE))
    return path


class Watch:
    """Progress that remembers its tasks and stops at one of them."""

    def __init__(self, stop: str = "") -> None:
        self.stop, self.tasks, self.counts = stop, [], []

    def update(self, done, total, _unit, what):
        name = what.split(": ")[1].split()[0] if total else ""
        if name and name not in self.tasks:
            self.tasks.append(name)
        self.counts.append((done, total))
        if self.stop and name == self.stop:
            raise Cancelled("stopped by the test")


def test_every_kind_of_task_equals_lm_eval_run_by_itself_on_the_exported_folder(variant, folder, tmp_path, monkeypatch):
    """Two solved examples, a seed of its own, a limit: values and standard errors to the last digit."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    section = EvaluationSection(tasks=str(folder), num_fewshot=2, limit=15, seed=7, batch_size=4, exact=True)
    ours = evaluate(variant.handle, section)
    exported = export(variant, tmp_path / "model").folder
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)
    compared = 0
    for entry in entries(section):
        theirs = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(exported), "dtype": "float32", "device": "cpu"},
            tasks=[entry.task],
            task_manager=TaskManager(include_defaults=False),
            num_fewshot=2,
            limit=15,
            batch_size=4,
            bootstrap_iters=1000,
            fewshot_random_seed=7,
        )
        for metric, score in ours.results[entry.name].items():
            stderr = theirs["results"][entry.name][f"{metric}_stderr,none"]
            assert score.value == theirs["results"][entry.name][f"{metric},none"]
            assert score.stderr == (stderr if isinstance(stderr, float) else None)
            assert score.n == 15 if entry.name != "toy_perplexity" else 10
            compared += 1
        assert ours.settings["few_shot"][entry.name] == theirs["n-shot"][entry.name]
        if entry.name == "toy_choice":
            said = [[float(loglik) for loglik, _ in row["filtered_resps"]] for row in theirs["samples"][entry.name]]
            assert [sample.logliks for sample in ours.samples[entry.name]] == said, "after the same solved examples"
    assert compared == 5
    assert ours.settings["few_shot"]["toy_choice"] == 2


def test_a_cancelled_run_keeps_what_is_finished_and_the_next_one_asks_only_the_rest(llama, folder):
    section = EvaluationSection(tasks=str(folder), limit=6, batch_size=4)
    names = [entry.name for entry in entries(section)]
    with pytest.raises(Cancelled):
        evaluate(llama, section, Watch(stop=names[1]))
    half = known(llama, section)
    assert (list(half.results), half.missing) == (names[:1], names[1:])
    store._kept.clear()  # a new process
    watch = Watch()
    whole = evaluate(llama, section, watch)
    assert watch.tasks == names[1:]
    assert watch.counts[-1] == (12, 12)
    assert whole.missing == []
    assert whole == evaluate(llama, section, reuse=False)


def test_a_task_that_cannot_be_run_leaves_the_finished_ones(llama, folder):
    section = EvaluationSection(tasks=f"probe:copy,{folder},demo:facts", limit=2, batch_size=4)
    (folder / "choice.jsonl").rename(folder / "gone")
    try:
        with pytest.raises(EvaluationError, match=r"'toy_choice' could not be prepared .*What was finished before is kept"):
            evaluate(llama, section)
    finally:
        (folder / "gone").rename(folder / "choice.jsonl")


def test_results_are_found_again_by_weights_task_and_settings(llama, variant, folder, tmp_path):
    section = EvaluationSection(tasks=str(folder), limit=3, batch_size=4)
    first = evaluate(llama, section)
    store._kept.clear()
    watch = Watch()
    assert evaluate(llama, section.model_copy(update={"batch_size": 7}), watch).results == first.results
    assert watch.counts == []
    for other in ({"limit": 4}, {"seed": 1}, {"num_fewshot": 1}):
        assert len(known(llama, section.model_copy(update=other)).missing) == 3
    assert len(known(variant.handle, section).missing) == 3
    words = copy.deepcopy(llama.tokenizer)
    words.add_tokens(["key", "kitchen"])
    assert len(known(replace(llama, tokenizer=words), section).missing) == 3, "the same weights read other tokens"
    changed, _ = write_tasks(tmp_path / "changed")
    (changed / "choice.jsonl").write_text((changed / "choice.jsonl").read_text().replace(WORDS[0], WORDS[9]))
    assert known(llama, section.model_copy(update={"tasks": str(changed)})).missing == ["toy_choice"], "the other task asks the same"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (b"", True),
        (b"not gzip", True),
        (gzip.compress(b"{"), True),
        (gzip.compress(b'{"layout": 2}'), True),
        (gzip.compress(b'{"layout": 1}'), False),
    ],
    ids=["empty", "no gzip", "no JSON", "no results", "another layout"],
)
def test_a_damaged_result_is_computed_anew_and_told_in_the_log(llama, folder, cache, caplog, damage, told):
    section = EvaluationSection(tasks=str(folder), limit=2, batch_size=4)
    first = evaluate(llama, section)
    store._kept.clear()
    files = sorted((cache / "scores").glob("task-*"))
    assert len(files) == 3
    files[0].write_bytes(damage)
    caplog.set_level(logging.WARNING, "replaceme_core")
    watch = Watch()
    assert evaluate(llama, section, watch) == first
    assert len(watch.tasks) == 1
    assert ("is damaged" in caplog.text) == told
    assert json.loads(gzip.decompress(files[0].read_bytes()))["layout"] == store.LAYOUT


def test_a_folder_that_cannot_be_written_costs_a_line_in_the_log_and_no_result(llama, folder, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    monkeypatch.setattr(store, "_kept", {})
    section = EvaluationSection(tasks=str(folder), limit=2, batch_size=4)
    first = evaluate(llama, section)
    assert "could not be kept" in caplog.text
    assert known(llama, section) == first


def test_prompts_longer_than_the_model_reads_are_counted(llama, tmp_path):
    long = " ".join(WORDS[i % 150] for i in range(400))
    rows = [{"question": long if i < 3 else WORDS[i], "choices": ["w1", "w2"], "answer": 0} for i in range(8)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = evaluate(llama, EvaluationSection(tasks=str(tmp_path / "own.jsonl")))
    assert found.truncated == {"own_own": (1, 6)}, "three questions are the same prompt"
    assert found.settings["truncated_prompts"] == {"own_own": 1}
    assert evaluate(llama, EvaluationSection(tasks=str(tmp_path / "own.jsonl"))) == found
    theirs = evaluate(llama, EvaluationSection(tasks=str(tmp_path / "own.jsonl"), exact=True))
    for mine, other in zip(found.samples["own_own"], theirs.samples["own_own"], strict=True):
        assert mine.logliks == pytest.approx(other.logliks, abs=1e-4), "cut where lm-eval cuts them"


def test_own_questions_are_asked_like_the_same_task_in_yaml(llama, folder, tmp_path):
    """The file of own questions against the YAML task with the same rows, and a cloze row checked by its own log-likelihood."""
    import torch

    from tests.support.straight import log_probabilities

    (tmp_path / "mine.jsonl").write_text((folder / "choice.jsonl").read_text())
    mine = evaluate(llama, EvaluationSection(tasks=str(tmp_path / "mine.jsonl"), batch_size=4))
    yaml_task = evaluate(llama, EvaluationSection(tasks=str(folder), batch_size=4))
    assert mine.results["own_mine"] == yaml_task.results["toy_choice"]
    (tmp_path / "cloze.jsonl").write_text(json.dumps({"text": f"{WORDS[3]} {WORDS[4]} ___", "answer": WORDS[5]}))
    cloze = evaluate(llama, EvaluationSection(tasks=str(tmp_path / "cloze.jsonl")))
    context, whole = (llama.tokenizer(text)["input_ids"] for text in (f"{WORDS[3]} {WORDS[4]}", f"{WORDS[3]} {WORDS[4]} {WORDS[5]}"))
    table = log_probabilities(llama, torch.tensor(whole))
    expected = sum(float(table[i - 1, whole[i]]) for i in range(len(context), len(whole)))
    sample = cloze.samples["own_cloze"][0]
    assert sample.values["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert sample.right.strip() == WORDS[5]
    assert set(cloze.results["own_cloze"]) == {"acc", "perplexity"}


def test_a_batch_size_of_auto_gives_the_same_answers(llama, folder):
    auto = evaluate(llama, EvaluationSection(tasks=str(folder)), reuse=False)
    four = evaluate(llama, EvaluationSection(tasks=str(folder), batch_size=4), reuse=False)
    assert auto.settings["batch_size"] == "auto"
    assert auto.results["toy_choice"] == four.results["toy_choice"]
    assert [s.said for s in auto.samples["toy_generate"]] == [s.said for s in four.samples["toy_generate"]]
    assert len(auto.samples["toy_generate"]) == ITEMS


def test_standard_output_stays_the_command_lines_own(llama, folder, capsys):
    """lm-eval prints when it bootstraps or sizes a batch."""
    evaluate(llama, EvaluationSection(tasks=str(folder), limit=2))
    assert capsys.readouterr().out == ""


def test_the_probe_asks_every_model_the_same_and_counts_by_code(llama, variant):
    section = EvaluationSection(tasks="probe", limit=3)
    mine, other = evaluate(llama, section), evaluate(variant.handle, section)
    assert [f"probe_{name}" for name in probe_prompts.FAMILIES] == list(mine.results)
    for task, samples in mine.samples.items():
        assert [sample.text for sample in samples] == [sample.text for sample in other.samples[task]]
        assert {score.n for score in mine.results[task].values()} == {3}
        for metric, score in mine.results[task].items():
            assert score.stderr == pytest.approx(sem([sample.values[metric] for sample in samples])), "scipy's, of the mean"
    assert mine.average is None, "the probe stays out of the average"
    different = evaluate(llama, section.model_copy(update={"seed": 5, "tasks": "probe:copy"}))
    assert different.samples["probe_copy"][0].text != mine.samples["probe_copy"][0].text


GRADES = [
    ("arithmetic", "8 + 5 =", "13", " 13. 2", 1.0),
    ("arithmetic", "8 + 5 =", "13", " 130", 0.0),
    ("arithmetic", "8 + 5 =", "13", "", 0.0),
    ("list", "What is first?", "cup", " cup\nWhat", 1.0),
    ("copy", "Again:", "cup hat.", " cup  hat.", 1.0),
    ("copy", "Again:", "cup hat.", " cup hat hat.", 0.0),
    ("brackets", "( )\n( [", "", " ] )", 1.0),
    ("brackets", "( )\n( [", "", " ) ]", 0.0),
    ("brackets", "( )\n( [", "", "\n] )", 0.0),
    ("json", 'x\n{"name": "Bob",', "", ' "age": 3, "has": ["cup"]}\nmore', 1.0),
    ("json", 'x\n{"name": "Bob",', "", ' "age": 3}', 0.0),
    ("json", 'x\n{"name": "Bob",', "", ' "age": 3, "has": [}', 0.0),
]


@pytest.mark.parametrize(("family", "text", "wanted", "said", "grade"), GRADES)
def test_the_probes_checks_know_right_from_wrong(family, text, wanted, said, grade):
    assert probe_prompts.FAMILIES[family].grade(probe_prompts.Prompt(text, wanted), said) == grade


def test_repetition_is_the_share_of_runs_of_four_that_stood_before():
    assert probe_prompts.repetition("a b c d a b c d".split()) == pytest.approx(1 / 5)  # noqa: SIM905
    assert probe_prompts.repetition(["a"] * 10) == pytest.approx(6 / 7)
    assert probe_prompts.repetition(["a", "b"]) == 0.0


def test_a_group_is_pooled_the_way_lm_eval_does(llama, folder, tmp_path, monkeypatch):
    """A group of two tasks of 20 and 5 questions counts once, with the accuracy of all 25; its tasks stay in the results."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from replaceme_core.distribution import ALONE
    from replaceme_core.evaluation import task_index
    from replaceme_core.evaluation.lm_eval_model import BorrowedLM
    from replaceme_core.progress import SILENT

    (tmp_path / "pair").mkdir()
    lines = (folder / "choice.jsonl").read_text().splitlines()
    for name, rows in (("long", lines), ("short", lines[:5])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
        task = CHOICE | {"task": f"pair_{name}", "dataset_kwargs": {"data_files": {"test": str(tmp_path / f"{name}.jsonl")}}}
        (tmp_path / "pair" / f"{name}.yaml").write_text(yaml.safe_dump(task))
    group = {"group": "pair", "task": ["pair_long", "pair_short"], "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}
    (tmp_path / "pair" / "pair.yaml").write_text(yaml.safe_dump(group))
    names = {"pair": ("pair_long", "pair_short"), "pair_long": (), "pair_short": ()}
    known_names = {name: task_index.Known(name, "group" if inside else "task", "pair", inside) for name, inside in names.items()}
    monkeypatch.setattr(task_index, "index", lambda _progress: known_names)
    monkeypatch.setattr(task_index, "tasks_folder", lambda: tmp_path)
    section = EvaluationSection(tasks="pair", batch_size=4, exact=True)
    ours = evaluate(llama, section)
    manager = TaskManager(include_path=str(tmp_path / "pair"), include_defaults=False)
    theirs = simple_evaluate(model=BorrowedLM(llama, 4, SILENT, ALONE), tasks=["pair"], task_manager=manager, bootstrap_iters=1000)
    assert ours.results["pair"]["acc"].value == theirs["results"]["pair"]["acc,none"]
    assert ours.results["pair"]["acc"].stderr == theirs["results"]["pair"]["acc_stderr,none"]
    assert ours.results["pair"]["acc"].n == 25
    assert (ours.shown, set(ours.results)) == (["pair"], {"pair", "pair_long", "pair_short"})
    assert ours.average == ours.results["pair"]["acc"].value
    assert known(llama, section) == ours
    assert ours.average != ours.results["pair_short"]["acc"].value
