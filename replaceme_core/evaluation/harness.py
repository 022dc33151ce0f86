"""lm-eval's part: its tasks are loaded, one after the other is asked, and its results become ours. Imports lm_eval inside functions."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.distribution import Group
from replaceme_core.errors import EvaluationError, ReplaceMeError, quoted
from replaceme_core.evaluation import chat, task_index
from replaceme_core.evaluation.metrics import metrics_of, metrics_to
from replaceme_core.evaluation.samples import of_one_filter, sample_of
from replaceme_core.evaluation.scores import Score, TaskScores
from replaceme_core.evaluation.suites import Entry
from replaceme_core.plans.evaluation_section import EvaluationSection
from replaceme_core.progress import SILENT, Progress

RESAMPLES = 1000
"""of lm-eval's bootstrap, where a metric has no formula for its standard error"""
_one_at_a_time = threading.Lock()
"""lm-eval reseeds the process-wide generators, so that runs take turns"""


class Harness:
    """Models under lm-eval, for one evaluation section."""

    def __init__(self, handles: Sequence[ModelHandle], section: EvaluationSection, group: Group) -> None:
        from replaceme_core.evaluation.lm_eval_model import BorrowedLM, tame
        from replaceme_core.evaluation.shared_requests import Answers, at_most

        tame()
        self._handles, self._section, self._group = handles, section, group
        self._answers = None if section.exact else Answers(handles, at_most(section.batch_size))
        self._models = [BorrowedLM(handle, section.batch_size, SILENT, group, self._answers, n) for n, handle in enumerate(handles)]
        self._progress: Mapping[int, Progress] = {}

    def begin(self, asked: Mapping[int, Progress]) -> None:
        """A new task, and the models (by number) that will be asked it, each with where its progress goes."""
        self._progress = asked
        if self._answers is not None:
            self._answers.begin(asked)

    def ask(self, task: Any, entry: Entry, number: int) -> TaskScores | None:
        """One of lm-eval's task objects on one model. In a group of processes only the leading one gets the scores."""
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.tasks import TaskManager

        model, seed = self._models[number], self._section.seed
        model.begin(self._progress[number])
        with _one_at_a_time, _sentences(self._section, "run", task.task_name, self._handles[number].name):
            raw = simple_evaluate(
                model=model,
                tasks=[task],
                task_manager=TaskManager(include_defaults=False),
                num_fewshot=entry.num_fewshot,
                limit=entry.limit,
                bootstrap_iters=RESAMPLES,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                **self._section.told,
            )
        seen = self._group.gather(model.prompts)
        prompts = {prompt: cut for each in seen for prompt, cut in each.items()}
        return None if raw is None else _task_scores(raw, task.task_name, prompts)


def load(entries: list[Entry], section: EvaluationSection, progress: Progress) -> dict[str, Any]:
    """lm-eval's task and group objects of each entry, by its name: {entry: TaskDict}. Fetches their data; needs no model."""
    from lm_eval.tasks import TaskManager

    from replaceme_core.evaluation.lm_eval_model import tame

    tame()
    names = [entry.name for entry in entries if entry.task is None]
    known = task_index.index(progress) if names else {}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise EvaluationError(_unknown(unknown, known))
    for entry in entries:
        if entry.task is not None:
            require_data(entry.task)
    progress.update(0, 0, "", "preparing the tasks")
    with _sentences(section, "prepared"):
        manager = TaskManager(include_path=task_index.folders_of(names, known), include_defaults=False)
    loaded = {}
    for entry in entries:
        with _sentences(section, "prepared", entry.name):
            loaded[entry.name] = manager.load([entry.task if entry.task is not None else entry.name])
    return loaded


def check(entries: list[Entry], section: EvaluationSection, tokenizer: Any, progress: Progress) -> None:
    """Loads the tasks and writes the first question of each, solved examples included: an `EvaluationError` now and not after hours."""
    loaded = load(entries, section, progress)
    for entry in entries:
        for name, task in loaded[entry.name]["tasks"].items():
            with _one_at_a_time, _sentences(section, "prepared", name):
                if entry.num_fewshot is not None and task.get_config("num_fewshot") != 0:  # as simple_evaluate has it
                    task.set_config(key="num_fewshot", value=entry.num_fewshot)
                task.set_fewshot_seed(seed=section.seed)
                task.build_all_requests(limit=1, **section.told, **chat.requests_in(tokenizer, section))


def require_data(spec: dict[str, Any]) -> None:
    """An `EvaluationError` for a metric that lm-eval has not: it would look for a program of that name, here or on the hub, and run it.

    Prompts from another file are refused too, for they are read as YAML with objects. Imports lm_eval.
    """
    import lm_eval.api.metrics  # noqa: F401 - fills the registries
    from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY

    task, metrics = spec["task"], spec.get("metric_list") or []
    if not isinstance(metrics, list) or not all(isinstance(each, dict) and isinstance(each.get("metric"), str) for each in metrics):
        raise EvaluationError(f"The task '{task}': metric_list is a list of mappings like {{metric: acc}}; correct its YAML file.")
    for each in metrics:
        _require_known(task, "metric", each["metric"], METRIC_REGISTRY)
        _require_known(task, "aggregation", each.get("aggregation", "mean"), AGGREGATION_REGISTRY)
        if each.get("hf_evaluate"):
            raise EvaluationError(
                f"The task '{task}' takes its metric '{each['metric']}' from the library evaluate (hf_evaluate), which runs a program for it; "
                "leave hf_evaluate out."
            )
    if ".yaml" in str(spec.get("use_prompt") or ""):
        raise EvaluationError(f"The task '{task}' takes its prompts from another file (use_prompt); write them into doc_to_text.")


def _require_known(task: str, kind: str, name: Any, registry: Any) -> None:
    if not isinstance(name, str) or name not in registry:
        raise EvaluationError(
            f"The task '{task}' names the {kind} '{name}', which lm-eval does not have; programs from elsewhere are not run. "
            f"Choose of {', '.join(sorted(registry))}."
        )


@contextmanager
def _sentences(section: EvaluationSection, what: str, task: str = "", model: str = "") -> Iterator[None]:
    """Every error of lm-eval, datasets and jinja, which have no common base, as one sentence; memory that runs out as its own."""
    from replaceme_core.evaluation.lm_eval_model import quiet

    less = f"a smaller batch_size (now {section.batch_size}); or, for the weights, {memory.HOLD_LESS}"
    try:
        with memory.told("for the benchmarks" + (f" on '{model}'" if model else ""), less), quiet():
            yield
    except ReplaceMeError:
        raise
    except Exception as error:
        reason = quoted(error)
        raise EvaluationError(
            f"The benchmark '{task or section.tasks}' could not be {what} ({type(error).__name__}: {reason}). "
            "Check the task names, their columns and templates; tasks from the hub need the network, the suites 'plain' and 'demo' work offline. "
            "What was finished before is kept."
        ) from error


def group_scores(loaded: dict[str, Any], tasks: dict[str, TaskScores]) -> dict[str, dict[str, Score]]:
    """The figures of the groups that have figures of their own, from those of their tasks, the way lm-eval pools them."""
    metrics = {name: {"sample_len": _n(scores), **metrics_to(scores.metrics)} for name, scores in tasks.items()}
    found = {}
    for name, group in loaded.get("groups", {}).items():
        if group.has_aggregation:
            pooled = group.aggregate(metrics)
            found[name] = metrics_of(pooled, pooled.get("sample_len", 0))
    return found


def parts_of(loaded: dict[str, Any], scored: dict[str, Any]) -> dict[str, list[str]]:
    """The tasks, and the groups inside, that a group's own score stands for."""
    groups = loaded.get("groups", {})
    inside = {
        name: [task.task_name for task in group.get_all_tasks()] + [inner.name for inner in group.get_all_groups()]
        for name, group in groups.items()
    }
    return {name: inside[name] for name in scored}


def _unknown(names: list[str], known: dict[str, task_index.Known]) -> str:
    near = {name: [entry.name for entry in task_index.search(re.split(r"[_\W]", name)[0], known, 4)] for name in names}
    said = "; ".join(f"'{name}'" + (f" (did you mean {', '.join(near[name])}?)" if near[name] else "") for name in names)
    return f"lm-eval has no task {said}. Check the task names; suites are named in assets/presets/suites.yaml, and the suites 'plain' and 'demo' work offline."


def _task_scores(raw: dict[str, Any], name: str, prompts: dict[Any, bool]) -> TaskScores:
    counts, config = raw["n-samples"][name], raw["configs"].get(name, {})
    metrics = metrics_of(raw["results"][name], counts["effective"])
    if not metrics:
        asked = ", ".join(str(each.get("metric")) for each in config.get("metric_list") or [])
        raise EvaluationError(
            f"The task '{name}' gave no figure: lm-eval makes none of its metrics ({asked or 'it names none'}) for the output type "
            f"'{config.get('output_type')}'. Name one in its metric_list that goes with it, for example acc."
        )
    return TaskScores(
        task=name,
        metrics=metrics,
        samples=[sample_of(row) for row in of_one_filter(raw["samples"].get(name, []))],
        version=str(raw["versions"].get(name)),
        few_shot=int(raw["n-shot"].get(name) or 0),
        n_all=counts["original"],
        truncated=sum(prompts.values()),
        prompts=len(prompts),
        higher_is_better={key: bool(value) for key, value in (raw["higher_is_better"].get(name) or {}).items() if value is not None},
        config={key: value for key, value in config.items() if isinstance(value, str | int | float | bool | list | dict | type(None))},
    )


def _n(scores: TaskScores) -> int:
    return next((score.n for score in scores.metrics.values()), 0)
