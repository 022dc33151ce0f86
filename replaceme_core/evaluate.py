"""Benchmarks through lm-eval, on a model in memory. The only importer of `lm_eval`, which takes seconds to import.

Tasks are 'demo' (the shipped suite), a folder of plain lm-eval YAML files, or names that lm-eval knows.
"""

import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.distribution import ALONE, Group
from replaceme_core.errors import EvaluationError, ReplaceMeError
from replaceme_core.plan import EvaluationSection
from replaceme_core.progress import SILENT, Progress
from replaceme_core.task_files import task_specs

_PRIMARY = ("acc", "exact_match")
_LONGEST = 300
"""characters of a library's message that are passed on"""
_one_at_a_time = threading.Lock()
"""lm-eval reseeds the process-wide generators, so that runs take turns"""


@dataclass(frozen=True)
class Score:
    """One metric of one task: n items, standard error where lm-eval gives one."""

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class Sample:
    """One multiple-choice item as the model answered it; `target` and `answer` index `choices`."""

    doc_id: int
    text: str
    choices: list[str]
    target: int
    answer: int
    correct: bool


@dataclass(frozen=True)
class Paired:
    """Exact McNemar test on the items of one task: `better` turned right, `worse` turned wrong."""

    better: int
    worse: int
    p_value: float


@dataclass(frozen=True)
class Scores:
    """Results of one model on a suite. `average` is the mean over tasks of accuracy (or exact match)."""

    model: str
    results: dict[str, dict[str, Score]]
    average: float | None
    settings: dict[str, Any]
    samples: dict[str, list[Sample]] = field(default_factory=dict, repr=False)

    def primary(self, task: str) -> Score | None:
        """The task's accuracy, if it has one."""
        return next((self.results[task][m] for m in _PRIMARY if m in self.results[task]), None)

    def to_data(self) -> dict[str, Any]:
        """Plain data without the samples."""
        results = {task: {m: asdict(score) for m, score in metrics.items()} for task, metrics in self.results.items()}
        return {"model": self.model, "results": results, "average": self.average, "settings": self.settings}


def list_tasks(tasks: str = "demo") -> list[str]:
    """Names of the tasks that `tasks` stands for, without importing lm-eval."""
    return [str(spec["task"]) if isinstance(spec, dict) else spec for spec in task_specs(tasks)]


def require_text(handle: ModelHandle) -> None:
    """An `EvaluationError` for a model that lm-eval cannot question."""
    if handle.family.inputs != "text":
        raise EvaluationError(f"'{handle.name}' reads images, and the benchmarks ask questions in text; leave the evaluation out.")


def evaluate(handle: ModelHandle, section: EvaluationSection, progress: Progress = SILENT, group: Group = ALONE) -> Scores:
    """Runs the suite; in a group of processes each takes a share, and all get the scores.

    Raises `EvaluationError` with the way out, `Cancelled` when progress says so.
    """
    require_text(handle)
    specs = task_specs(section.tasks)
    with _one_at_a_time:
        raw = _run(handle, specs, section, progress, group)
    scores = group.gather(None if raw is None else _scores(handle, section, raw))[0]
    assert scores is not None
    return scores


def _scores(handle: ModelHandle, section: EvaluationSection, raw: dict[str, Any]) -> Scores:
    """lm-eval's results as ours."""
    results = {
        task: _metrics(metrics, raw["n-samples"][task]["effective"]) for task, metrics in raw["results"].items() if task in raw["n-samples"]
    }
    samples = {task: [s for s in map(_sample, rows) if s is not None] for task, rows in raw["samples"].items()}
    settings = {
        "tasks": section.tasks,
        "limit": section.limit,
        "seed": section.seed,
        "batch_size": section.batch_size,
        "few_shot": raw["n-shot"],
    }
    settings |= {"versions": raw["versions"], "model_fingerprint": handle.fingerprint, "dtype": handle.dtype}
    scores = Scores(handle.name, results, None, settings, samples)
    primary = [score.value for task in results if (score := scores.primary(task)) is not None]
    average = sum(primary) / len(primary) if primary else None
    return Scores(handle.name, results, average, settings, samples)


def paired(original: Scores, other: Scores) -> dict[str, Paired]:
    """The test per task, on the items both models answered."""
    from scipy.stats import binomtest

    tests = {}
    for task, samples in original.samples.items():
        before = {sample.doc_id: sample.correct for sample in samples}
        after = {sample.doc_id: sample.correct for sample in other.samples.get(task, [])}
        both = before.keys() & after.keys()
        if not both:
            continue
        worse = sum(before[i] and not after[i] for i in both)
        better = sum(after[i] and not before[i] for i in both)
        p_value = float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0
        tests[task] = Paired(better, worse, p_value)
    return tests


def paired_overall(tests: dict[str, Paired]) -> Paired:
    """One exact test on the items of all tasks together."""
    from scipy.stats import binomtest

    better, worse = sum(t.better for t in tests.values()), sum(t.worse for t in tests.values())
    return Paired(better, worse, float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0)


def _run(handle: ModelHandle, specs: list[Any], section: EvaluationSection, progress: Progress, group: Group) -> dict[str, Any] | None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from replaceme_core.lm_eval_model import BorrowedLM, tame

    tame()
    progress.update(0, 1, "requests", "preparing the tasks")
    try:
        manager = TaskManager(include_defaults=any(isinstance(spec, str) for spec in specs))
        less = f"a smaller batch_size (now {section.batch_size}); or, for the weights, {memory.HOLD_LESS}"
        with memory.told(f"for the benchmarks on '{handle.name}'", less):
            raw: dict[str, Any] | None = simple_evaluate(
                model=BorrowedLM(handle, section.batch_size, progress, group),
                tasks=specs,
                task_manager=manager,
                limit=section.limit,
                bootstrap_iters=1000,
                random_seed=section.seed,
                numpy_random_seed=section.seed,
                torch_random_seed=section.seed,
                fewshot_random_seed=section.seed,
            )
        return raw
    except ReplaceMeError:
        raise
    except Exception as error:  # lm-eval, datasets and jinja raise kinds without a common base
        reason = " ".join(str(error).split())[:_LONGEST]
        raise EvaluationError(
            f"The benchmark '{section.tasks}' could not be run ({type(error).__name__}: {reason}). "
            "Check the task names, their columns and templates; tasks from the hub need the network, the demo suite works offline."
        ) from error


def _metrics(metrics: dict[str, Any], n: int) -> dict[str, Score]:
    """'acc,none' and 'acc_stderr,none' become one Score; a standard error of 'N/A' becomes None."""
    scores = {}
    for key, value in metrics.items():
        name, _, rest = key.partition(",")
        if not rest or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = metrics.get(f"{name}_stderr,{rest}")
        scores[name] = Score(float(value), float(stderr) if isinstance(stderr, int | float) else None, n)
    return scores


def _sample(row: dict[str, Any]) -> Sample | None:
    """A multiple-choice item of lm-eval's log; other kinds have no choices to show."""
    answers = row["filtered_resps"]
    if "acc" not in row or len(answers) < 2:
        return None
    arguments = list(row["arguments"].values()) if isinstance(row["arguments"], dict) else row["arguments"]
    pairs = [list(a.values()) if isinstance(a, dict) else a for a in arguments]
    scores = [answer[0] for answer in answers]
    answer = max(range(len(scores)), key=scores.__getitem__)
    correct = bool(row["acc"])
    target = row["target"] if isinstance(row["target"], int) else answer if correct else -1
    return Sample(row["doc_id"], pairs[0][0], [pair[1] for pair in pairs], int(target), answer, correct)
