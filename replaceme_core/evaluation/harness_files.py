"""lm-eval's own files: results_*.json and samples_*.jsonl, written for other tools and read from elsewhere.

Known are the layouts of lm-eval 0.3 and 0.4 (see harness_layout). Anything else is an `EvaluationError` that says what was found.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation.harness_layout import brought_up
from replaceme_core.evaluation.metrics import metrics_of, metrics_to
from replaceme_core.evaluation.samples import of_one_filter, row_of, sample_of
from replaceme_core.evaluation.scores import Sample, Score, Scores, TaskScores, average_of
from replaceme_core.guard import guarded
from replaceme_core.storage.cache import write_atomically
from replaceme_core.storage.folders import plain

_VERSIONS = ("0.3", "0.4")
_SAMPLES = re.compile(r"^samples_(?P<task>.+?)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+|[^_]*)\.jsonl$")


def to_files(scores: Scores, stem: str = "") -> dict[str, str]:
    """File name -> text: one results file, and one samples file per task that has items. `stem` replaces lm-eval's date."""
    from datetime import datetime

    stem = stem or datetime.now().isoformat().replace(":", "-")
    files = {f"results_{stem}.json": json.dumps(plain(_results(scores)), indent=2, ensure_ascii=False, allow_nan=False)}
    for task, samples in scores.samples.items():
        rows = [json.dumps(plain(row_of(sample)), ensure_ascii=False, allow_nan=False) for sample in samples]
        if rows:
            files[f"samples_{task}_{stem}.jsonl"] = "\n".join(rows) + "\n"
    return files


def write(scores: Scores, path: Path) -> list[Path]:
    """The results as `path`, the samples beside it. Raises `EvaluationError` where the folder cannot be written."""
    stem = path.stem.removeprefix("results_")
    written = []
    try:
        for name, text in to_files(scores, stem).items():
            target = path if name.startswith("results_") else path.with_name(name)
            write_atomically(target, text.encode())
            written.append(target)
    except OSError as error:
        raise EvaluationError(f"'{path}' cannot be written ({error.strerror}); choose a folder you may write to.") from error
    return written


@guarded
def read(path: Path) -> Scores:
    """A results file with the samples beside it; of a folder, its newest results file, also one folder further down."""
    if path.is_dir():
        found = sorted([*path.glob("results_*.json"), *path.glob("*/results_*.json")], key=lambda each: each.name)
        if not found:
            raise EvaluationError(f"The folder {path} holds no results_*.json of lm-eval.")
        path = found[-1]
    try:
        beside = {each.name: each.read_bytes() for each in path.parent.glob("samples_*.jsonl")}
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"'{path}' cannot be read ({error.strerror}); name a results_*.json that lm-eval wrote.") from error
    stem = path.stem.removeprefix("results_")
    same = {name: text for name, text in beside.items() if name.endswith(f"_{stem}.jsonl")}
    return from_files(path.name, data, same)


def from_files(name: str, results: bytes, samples: dict[str, bytes] | None = None) -> Scores:
    """Scores from the bytes of one results file and of its samples files (by file name)."""
    try:
        return _scores_of(name, results, samples or {})
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EvaluationError(
            f"{name} is not laid out like a results file of lm-eval ({type(error).__name__}: {str(error)[:80]}); fetch it again, or score the model anew."
        ) from error


def _scores_of(name: str, results: bytes, samples: dict[str, bytes]) -> Scores:
    given = _object(name, results)
    version = str(given.get("lm_eval_version") or "")
    if version and not version.startswith(_VERSIONS):
        raise EvaluationError(
            f"{name} was written by lm-eval {version}; files of lm-eval 0.3 and 0.4 are read. Score it again with one of these."
        )
    data = brought_up(given)
    if data is None:
        raise EvaluationError(
            f"{name} holds no figures of tasks (it has {_some(given)}). Give the results_*.json that lm_eval --output_path writes: "
            "'results' there is a mapping of tasks to figures like 'acc,none'."
        )
    tasks, groups = {}, {}
    for task, figures in data["results"].items():
        metrics = metrics_of(figures, _asked(data, task, figures)) if isinstance(figures, dict) else {}
        if not metrics and not (isinstance(figures, dict) and task in data["group_subtasks"]):
            raise EvaluationError(f"{name}: the task '{task}' has no figure like 'acc,none' or 'acc'; leave it out of 'results'.")
        if data["group_subtasks"].get(task) or task in (data.get("groups") or {}) or task not in data["configs"]:
            groups[task] = metrics
        else:
            tasks[task] = _task(data, task, metrics)
    for file, text in samples.items():
        task, rows = _samples(file, text, set(tasks))
        tasks[task] = replace(tasks[task], samples=rows)
    return _scores(name, data, tasks, {group: metrics for group, metrics in groups.items() if metrics})


def _scores(name: str, data: dict[str, Any], tasks: dict[str, TaskScores], groups: dict[str, dict[str, Score]]) -> Scores:
    config = data.get("config") or {}
    settings = {
        "imported": name,
        "limit": config.get("limit"),
        "seed": config.get("fewshot_seed"),
        "batch_size": config.get("batch_size"),
        "few_shot": {task: scores.few_shot for task, scores in tasks.items()},
        "versions": {task: scores.version for task, scores in tasks.items()},
        "lm_eval": data.get("lm_eval_version"),
        "dtype": config.get("model_dtype"),
        "model_fingerprint": config.get("model_fingerprint"),
        **_told(data),
    }
    parts = {group: _inside(group, data.get("group_subtasks", {})) for group in groups}
    samples = {task: scores.samples for task, scores in tasks.items() if scores.samples}
    model = str(data.get("model_name") or config.get("model") or name)
    results = groups | {task: scores.metrics for task, scores in tasks.items()}
    scores = Scores(model, results, None, settings, samples, tasks, parts)
    return replace(scores, average=average_of(scores))


def _told(data: dict[str, Any]) -> dict[str, Any]:
    """How the questions were put, where the file says so: lm-eval writes the template that it used, or none."""
    if "chat_template" not in data and "chat_template_sha" not in data:
        return {}
    chat = bool(data.get("chat_template") or data.get("chat_template_sha"))
    turns = chat and bool(data.get("fewshot_as_multiturn"))
    told = {"apply_chat_template": chat, "fewshot_as_multiturn": turns, "system_instruction": data.get("system_instruction")}
    return told | {"chat_template_sha": data.get("chat_template_sha")}


def _inside(group: str, children: dict[str, list[str]]) -> list[str]:
    """All that belongs to a group, groups inside it included."""
    return [name for child in children.get(group, []) for name in (child, *_inside(child, children))]


def _asked(data: dict[str, Any], task: str, figures: dict[str, Any]) -> int:
    """Items behind the figures of a task or group."""
    counts = (data.get("n-samples") or {}).get(task) or {}
    return int(counts.get("effective") or figures.get("sample_len") or 0)


def _task(data: dict[str, Any], task: str, metrics: dict[str, Score]) -> TaskScores:
    counts = (data.get("n-samples") or {}).get(task) or {}
    return TaskScores(
        task=task,
        metrics=metrics,
        samples=[],
        version=str((data.get("versions") or {}).get(task)),
        few_shot=int(data["n-shot"].get(task) or 0),
        n_all=int(counts.get("original") or 0),
        truncated=int(((data.get("config") or {}).get("truncated_prompts") or {}).get(task) or 0),
        higher_is_better={
            key: bool(value) for key, value in ((data.get("higher_is_better") or {}).get(task) or {}).items() if value is not None
        },
        config=data["configs"].get(task) or {},
    )


def _samples(name: str, data: bytes, tasks: set[str]) -> tuple[str, list[Sample]]:
    """(task, items) of one samples file."""
    task = next((each for each in sorted(tasks, key=len, reverse=True) if name.startswith(f"samples_{each}_")), None)
    if task is None:
        raise EvaluationError(f"{name} belongs to no task of the results file ({', '.join(sorted(tasks))}); give the files of one run.")
    rows = []
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            sample_of(row)
            rows.append(row)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise EvaluationError(
                f"{name}, line {number} is not a sample of lm-eval 0.4 ({type(error).__name__}: {str(error)[:80]}); leave the file out."
            ) from None
    return task, [sample_of(row) for row in of_one_filter(rows)]


def _object(name: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise EvaluationError(
            f"{name} is not JSON ({str(error)[:80]}); give the results_*.json that lm_eval --output_path writes."
        ) from None
    if not isinstance(found, dict):
        raise EvaluationError(f"{name} is a JSON {type(found).__name__}, not lm-eval's object of results.")
    return found


def _some(data: dict[str, Any]) -> str:
    return ", ".join(list(data)[:6]) or "nothing"


def _results(scores: Scores) -> dict[str, Any]:
    """lm-eval's layout of the results file."""
    settings, tasks = scores.settings, scores.tasks
    counts = {task: {"original": each.n_all, "effective": _n(each)} for task, each in tasks.items()}
    rows = {}
    for task, metrics in scores.results.items():
        n = next((score.n for score in metrics.values()), 0)
        rows[task] = {"name": task, "alias": task, "sample_len": n, **metrics_to(metrics)}
    return {
        "results": rows,
        "groups": {group: rows[group] for group in scores.parts},
        "group_subtasks": dict(scores.parts),
        "configs": {task: each.config or {"task": task} for task, each in tasks.items()},
        "versions": {task: each.version for task, each in tasks.items()},
        "n-shot": {task: each.few_shot for task, each in tasks.items()},
        "higher_is_better": {task: each.higher_is_better for task, each in tasks.items()},
        "n-samples": counts,
        "config": {
            "model": "replaceme",
            "model_dtype": settings.get("dtype"),
            "model_fingerprint": settings.get("model_fingerprint"),
            "batch_size": settings.get("batch_size"),
            "limit": settings.get("limit"),
            **{f"{kind}_seed": settings.get("seed") for kind in ("random", "numpy", "torch", "fewshot")},
            "truncated_prompts": {task: each.truncated for task, each in tasks.items() if each.truncated},
        },
        **{key: settings.get(key) for key in ("chat_template_sha", "fewshot_as_multiturn", "system_instruction")},
        "lm_eval_version": settings.get("lm_eval"),
        "model_source": "hf",
        "model_name": scores.model,
        "model_name_sanitized": re.sub(r"[^A-Za-z0-9_.-]+", "_", scores.model),
    }


def _n(task: TaskScores) -> int:
    return next((score.n for score in task.metrics.values()), 0)
