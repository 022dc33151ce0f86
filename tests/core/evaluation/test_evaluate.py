"""Benchmarks: our figures are lm-eval's own, items are paired, and nothing runs that should not."""

import json
import math
import threading

import pytest
import yaml

from replaceme_core.artifacts import ModelHandle, Variant
from replaceme_core.errors import Cancelled, EvaluationError
from replaceme_core.evaluation import task_index
from replaceme_core.evaluation.evaluate import Sample, Scores, check, evaluate, known, list_tasks, paired
from replaceme_core.export.export import export
from replaceme_core.plans.plan import EvaluationSection
from tests.support.tiny_models import WORDS

ROWS = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "choice.jsonl"}},
    "test_split": "test",
}
"""where the rows of a task are"""
CHOICE = {
    "task": "toy_choice",
    **ROWS,
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
PERPLEXITY = {
    "task": "toy_perplexity",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "text.jsonl"}},
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}
ITEMS = 20


def write_tasks(folder, **changes):
    """Two tasks with their data beside them, named by bare file names."""
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "question": f"{WORDS[i]} {WORDS[i + 7]}",
            "choices": [WORDS[(i * k) % 150] + " " + WORDS[i + k] for k in (3, 5, 11, 17)],
            "answer": i % 4,
        }
        for i in range(ITEMS)
    ]
    (folder / "choice.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": " ".join(WORDS[i : i + 12])}) for i in range(0, 60, 6)))
    (folder / "choice.yaml").write_text(yaml.safe_dump(CHOICE | changes))
    (folder / "perplexity.yaml").write_text(yaml.safe_dump(PERPLEXITY))
    return folder, rows


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))[0]


@pytest.fixture(scope="module")
def original(llama: ModelHandle, tasks):
    return evaluate(llama, EvaluationSection(tasks=str(tasks), batch_size=4, exact=True))


@pytest.fixture(scope="module")
def pruned(variant: Variant, tasks):
    return evaluate(variant.handle, EvaluationSection(tasks=str(tasks), batch_size=4, exact=True))


def test_our_figures_are_those_of_lm_eval_on_the_exported_folder(variant, pruned, tasks, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder = export(variant, tmp_path / "model").folder
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)
    specs = []
    for name, spec in (("choice", CHOICE), ("text", PERPLEXITY)):
        specs.append(spec | {"dataset_kwargs": {"data_files": {"test": str(tasks / f"{name}.jsonl")}}})
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32", "device": "cpu"},
        tasks=specs,
        task_manager=TaskManager(include_defaults=False),
        batch_size=4,
        bootstrap_iters=1000,
    )
    compared = 0
    for task, metrics in pruned.results.items():
        for metric, score in metrics.items():
            assert score.value == theirs["results"][task][f"{metric},none"]
            stderr = theirs["results"][task][f"{metric}_stderr,none"]
            assert score.stderr == (stderr if isinstance(stderr, float) else None)
            compared += 1
    assert compared == 4


def test_results_carry_value_error_and_number_of_items(original):
    assert set(original.results) == {"toy_choice", "toy_perplexity"}
    assert set(original.results["toy_choice"]) == {"acc", "acc_norm"}
    assert {score.n for score in original.results["toy_choice"].values()} == {ITEMS}
    accuracy = original.results["toy_choice"]["acc"]
    assert accuracy.stderr == pytest.approx(math.sqrt(accuracy.value * (1 - accuracy.value) / (ITEMS - 1)), rel=1e-6)
    assert original.results["toy_perplexity"]["word_perplexity"].n == 10
    assert original.results["toy_perplexity"]["word_perplexity"].stderr is None


def test_the_average_is_over_tasks_with_an_accuracy_and_leaves_perplexity_out(original):
    assert original.average == original.results["toy_choice"]["acc"].value
    assert original.primary("toy_perplexity") is None


def test_where_acc_norm_is_the_only_score_it_counts_and_the_answer_is_the_likeliest_per_character(llama, tmp_path):
    folder, rows = write_tasks(tmp_path / "tasks", metric_list=[{"metric": "acc_norm"}])
    long = [row | {"choices": [*row["choices"][:3], f"{row['choices'][3]} {' '.join(WORDS[:6])}"]} for row in rows]
    (folder / "choice.jsonl").write_text("\n".join(map(json.dumps, long)))
    scores = evaluate(llama, EvaluationSection(tasks=str(folder), batch_size=4))
    samples = scores.samples["toy_choice"]
    assert [sample.correct for sample in samples] == [sample.answer == sample.target for sample in samples]
    likeliest = [max(range(4), key=sample.logliks.__getitem__) for sample in samples]
    assert [sample.answer for sample in samples] != likeliest, "the two scores must differ somewhere, or nothing is shown"
    assert scores.average == scores.results["toy_choice"]["acc_norm"].value
    assert (
        scores.primary("toy_choice").value == sum(sample.answer == row["answer"] for sample, row in zip(samples, long, strict=True)) / ITEMS
    )


def test_settings_repeat_the_run(original, llama):
    settings = original.settings
    assert (settings["seed"], settings["limit"], settings["batch_size"], settings["dtype"]) == (1234, None, 4, "float32")
    assert settings["model_fingerprint"] == llama.fingerprint
    assert set(settings["versions"]) == {"toy_choice", "toy_perplexity"}
    assert json.loads(json.dumps(original.to_data())) == original.to_data()


def test_samples_hold_each_item_with_the_models_own_choice(original, llama, tasks):
    """Each answer is checked by summing log-probabilities of the continuation ourselves."""
    import torch

    from tests.support.straight import log_probabilities

    rows = [json.loads(line) for line in (tasks / "choice.jsonl").read_text().splitlines()]
    samples = original.samples["toy_choice"]
    assert [sample.doc_id for sample in samples] == list(range(ITEMS))
    for sample in samples:
        row = rows[sample.doc_id]
        assert (sample.text, [choice.strip() for choice in sample.choices], sample.target) == (
            row["question"],
            row["choices"],
            row["answer"],
        )
        scores = []
        for choice in sample.choices:
            context = llama.tokenizer(sample.text)["input_ids"]
            whole = llama.tokenizer(sample.text + choice)["input_ids"]
            table = log_probabilities(llama, torch.tensor(whole))
            scores.append(sum(float(table[i - 1, whole[i]]) for i in range(len(context), len(whole))))
        assert sample.answer == max(range(4), key=scores.__getitem__)
        assert sample.correct == (sample.answer == sample.target)
    assert sum(sample.correct for sample in samples) / ITEMS == original.results["toy_choice"]["acc"].value


def test_limit_takes_the_first_items(llama, tasks, original):
    found = evaluate(llama, EvaluationSection(tasks=str(tasks), limit=5, batch_size=4))
    assert {score.n for metrics in found.results.values() for score in metrics.values()} == {5}
    answers = [(sample.doc_id, sample.text, sample.answer, sample.correct) for sample in original.samples["toy_choice"][:5]]
    assert [(sample.doc_id, sample.text, sample.answer, sample.correct) for sample in found.samples["toy_choice"]] == answers


def scores_of(correct: list[bool], first: int = 0) -> Scores:
    samples = [Sample(first + i, "", ["a", "b"], 0, 0 if c else 1, c) for i, c in enumerate(correct)]
    return Scores("model", {}, None, {}, {"task": samples})


def test_the_paired_test_is_mcnemars_exact_one():
    """9 items turned wrong, 2 right: p = 2 * sum_{k<=2} C(11,k) / 2^11, by hand."""
    before = scores_of([True] * 9 + [False] * 2 + [True] * 5 + [False] * 4)
    after = scores_of([False] * 9 + [True] * 2 + [True] * 5 + [False] * 4)
    found = paired(before, after)["task"]
    assert (found.better, found.worse) == (2, 9)
    assert found.p_value == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    other_way = paired(after, before)["task"]
    assert (other_way.better, other_way.worse, other_way.p_value) == (9, 2, found.p_value)


def test_the_paired_test_uses_the_common_items_only_and_says_nothing_without_a_difference():
    assert paired(scores_of([True] * 6), scores_of([True] * 4))["task"].p_value == 1.0
    assert paired(scores_of([True] * 3), scores_of([False] * 3, first=10)) == {}
    shifted = paired(scores_of([True, True, False, False]), scores_of([False, True, True, True], first=2))["task"]
    assert (shifted.better, shifted.worse) == (1, 0)


def test_two_real_models_are_paired_on_all_items(original, pruned):
    found = paired(original, pruned)["toy_choice"]
    both = list(zip(original.samples["toy_choice"], pruned.samples["toy_choice"], strict=True))
    assert found.worse == sum(a.correct and not b.correct for a, b in both)
    assert found.better == sum(b.correct and not a.correct for a, b in both)


def test_a_benchmark_is_cancelled_in_the_middle_and_the_model_is_free_again(llama, tasks):
    seen = []

    class StopInTheMiddle:
        def update(self, done, total, unit, what):
            if total > 1:
                seen.append((done, total, unit, what))
            if len(seen) == 3:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        evaluate(llama, EvaluationSection(tasks=str(tasks), batch_size=4), StopInTheMiddle(), reuse=False)
    assert 0 < seen[-1][0] < seen[-1][1] == ITEMS + 10
    assert seen[-1][2] == "questions"
    assert llama.name in seen[-1][3]
    assert evaluate(llama, EvaluationSection(tasks=str(tasks), limit=2, batch_size=4)).results


def test_a_benchmark_waits_for_each_forward_pass_while_another_user_has_the_model(llama, tasks):
    started, lent, done, passes = threading.Event(), threading.Event(), threading.Event(), []

    class Pause:
        def update(self, _done, total, *_):
            if total > 1 and not started.is_set():
                started.set()
                lent.wait(30)

    def work():
        evaluate(llama, EvaluationSection(tasks=str(tasks), limit=2, batch_size=4), Pause(), reuse=False)
        done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(60)
    with llama.borrow() as model:
        watch = model.register_forward_pre_hook(lambda *_: passes.append(1))
        lent.set()
        assert not done.wait(0.5)
        watch.remove()
    assert not passes
    assert done.wait(60)


def test_a_task_with_a_function_of_its_own_is_refused_and_never_runs(llama, tmp_path):
    folder, _ = write_tasks(tmp_path / "t")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef f(doc): return doc\n")
    (folder / "choice.yaml").write_text(yaml.safe_dump(CHOICE) + "process_docs: !function code.f\n")
    with pytest.raises(EvaluationError, match=r"choice.yaml is not a plain YAML task .*functions of their own are not run"):
        evaluate(llama, EvaluationSection(tasks=str(folder)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["process_docs", "doc_to_text", "custom_dataset"])
def test_a_task_cannot_name_code_by_another_way(llama, tmp_path, key):
    """A folder of tasks is data: nothing in it may make Python import or run a file."""
    folder, _ = write_tasks(tmp_path / "t")
    script = tmp_path / "t" / "code.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef f(doc): return doc\n")
    (folder / "choice.yaml").write_text(yaml.safe_dump(CHOICE).rstrip() + f"\n{key}: !!python/name:code.f\n")
    with pytest.raises(EvaluationError, match="not a plain YAML task"):
        evaluate(llama, EvaluationSection(tasks=str(folder)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_choice", "doc_to_target"])
def test_a_template_cannot_reach_python(llama, tmp_path, key):
    """Templates are text from a stranger as well: the usual way out of jinja is closed."""
    escape = "{{ cycler.__init__.__globals__.os.system('touch " + str(tmp_path / "ran") + "') }}"
    folder, _ = write_tasks(tmp_path / "t", **{key: escape})
    with pytest.raises(EvaluationError):
        evaluate(llama, EvaluationSection(tasks=str(folder), limit=2))
    assert not (tmp_path / "ran").exists()


PROGRAM = """
import evaluate, datasets
open({ran!r}, "w").close()
class M(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=datasets.Features({{
            "predictions": datasets.Value("float"), "references": datasets.Value("float")}}))
    def _compute(self, predictions, references):
        return {{"m": 0.0}}
"""
METRICS = {
    "a program in a folder": [{"metric": "HERE/m", "aggregation": "mean", "higher_is_better": True}],
    "a program on the hub": [{"metric": "somebody/metric", "aggregation": "mean", "higher_is_better": True}],
    "the library evaluate": [{"metric": "acc", "hf_evaluate": True}],
    "an aggregation that is none": [{"metric": "acc", "aggregation": "HERE/m"}],
    "no mapping": ["acc"],
}


@pytest.mark.parametrize("what", METRICS)
def test_a_metric_is_one_of_lm_evals_and_never_a_program(llama, tmp_path, monkeypatch, what):
    """lm-eval asks the library evaluate for a metric that it does not know, and that runs a file of that name."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "m.py").write_text(PROGRAM.format(ran=str(tmp_path / "ran")))
    metrics = yaml.safe_load(yaml.safe_dump(METRICS[what]).replace("HERE", str(tmp_path)))
    folder, _ = write_tasks(tmp_path / "t", metric_list=metrics)
    section = EvaluationSection(tasks=str(folder), limit=2)
    words = "metric_list is a list" if what == "no mapping" else "leave hf_evaluate out" if "library" in what else "Choose of "
    for asked in (evaluate, check):
        with pytest.raises(EvaluationError, match=f"The task 'toy_choice'.*{words}|toy_choice': {words}"):
            asked(llama, section)
    assert not (tmp_path / "ran").exists()


def test_a_task_without_any_figure_is_an_error_and_is_not_kept(llama, tmp_path):
    """bleu is one of lm-eval's metrics, and is made of what a model writes, not of its choices."""
    folder, _ = write_tasks(tmp_path / "t", metric_list=[{"metric": "bleu"}])
    (folder / "perplexity.yaml").unlink()
    section = EvaluationSection(tasks=str(folder), limit=2)
    with pytest.raises(EvaluationError, match=r"'toy_choice' gave no figure: .*\(bleu\) for the output type 'multiple_choice'"):
        evaluate(llama, section)
    assert known(llama, section).missing == ["toy_choice"]


def test_a_group_in_a_folder_of_tasks_is_a_sentence(llama, tmp_path):
    folder, _ = write_tasks(tmp_path / "t")
    (folder / "group.yaml").write_text("group: mine\ntask: [toy_choice, toy_perplexity]\naggregate_metric_list: [{metric: acc}]\n")
    with pytest.raises(EvaluationError, match=r"group.yaml describes a group of tasks"):
        evaluate(llama, EvaluationSection(tasks=str(folder)))


BROKEN = {
    "a missing data file": lambda folder: (folder / "choice.jsonl").unlink(),
    "malformed data": lambda folder: (folder / "choice.jsonl").write_text('{"question": "w1", \n not json'),
    "an empty data file": lambda folder: (folder / "choice.jsonl").write_text(""),
    "a missing column": lambda folder: (folder / "choice.jsonl").write_text(json.dumps({"question": "w1", "answer": 0})),
    "an unknown output type": lambda folder: (folder / "choice.yaml").write_text(yaml.safe_dump(CHOICE | {"output_type": "magic"})),
    "an unknown metric": lambda folder: (folder / "choice.yaml").write_text(
        yaml.safe_dump(CHOICE | {"metric_list": [{"metric": "magic"}]})
    ),
    "an unknown split": lambda folder: (folder / "choice.yaml").write_text(yaml.safe_dump(CHOICE | {"test_split": "magic"})),
    "a broken template": lambda folder: (folder / "choice.yaml").write_text(yaml.safe_dump(CHOICE | {"doc_to_text": "{{question"})),
    "malformed YAML": lambda folder: (folder / "choice.yaml").write_text("task: ["),
    "YAML without a task": lambda folder: (folder / "choice.yaml").write_text("dataset_path: json"),
    "a YAML list": lambda folder: (folder / "choice.yaml").write_text("- 1"),
    "YAML that is not text": lambda folder: (folder / "choice.yaml").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_task_is_an_evaluation_error_of_one_line(llama, tmp_path, what):
    folder, _ = write_tasks(tmp_path / "t")
    (folder / "perplexity.yaml").unlink()
    BROKEN[what](folder)
    with pytest.raises(EvaluationError):
        evaluate(llama, EvaluationSection(tasks=str(folder), batch_size=4))


@pytest.mark.parametrize("files", ["choice.jsonl", ["choice.jsonl"], {"test": ["choice.jsonl"]}])
def test_bare_file_names_are_found_however_the_task_lists_them(llama, tmp_path, files):
    split = "test" if isinstance(files, dict) else "train"
    folder, _ = write_tasks(tmp_path / "t", dataset_kwargs={"data_files": files}, test_split=split)
    (folder / "perplexity.yaml").unlink()
    found = evaluate(llama, EvaluationSection(tasks=str(folder), limit=4, batch_size=4))
    assert found.results["toy_choice"]["acc"].n == 4


def test_a_folder_without_tasks_is_an_error(llama, tmp_path):
    with pytest.raises(EvaluationError, match=r"holds no .yaml task"):
        evaluate(llama, EvaluationSection(tasks=str(tmp_path)))


def test_an_unknown_task_is_an_error_that_says_what_works_offline(llama, monkeypatch):
    """The index of all names is read in test_suites.py, which takes ten seconds."""
    monkeypatch.setattr(task_index, "index", lambda *_: {"arc_easy": task_index.Known("arc_easy", "task", "arc")})
    with pytest.raises(
        EvaluationError, match=r"lm-eval has no task 'no_such_task_xyz'.*Check the task names.*the suites 'plain' and 'demo' work offline"
    ):
        evaluate(llama, EvaluationSection(tasks="no_such_task_xyz"))


def test_tasks_are_listed_without_importing_lm_eval(tasks):
    assert sorted(list_tasks(str(tasks))) == ["toy_choice", "toy_perplexity"]
    assert list_tasks("arc_easy, piqa,") == ["arc_easy", "piqa"]


def test_the_data_of_a_task_is_read_where_the_folder_lies_not_where_the_program_runs(llama, tasks, tmp_path, monkeypatch):
    import os

    relative = os.path.relpath(tasks, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert evaluate(llama, EvaluationSection(tasks=relative, limit=2, batch_size=4)).results["toy_choice"]["acc"].n == 2


def test_the_same_run_gives_the_same_figures_to_the_last_digit(llama, tasks, original):
    again = evaluate(llama, EvaluationSection(tasks=str(tasks), batch_size=4, exact=True), reuse=False)
    assert again.results == original.results
    assert again.samples == original.samples
