"""What a pruned model is judged by beside the original: benchmarks, perplexity and KL, time and memory, each with its interval and n.

Relative accuracy (`kept`) is the benchmark average as a share of the original's. Its interval is a paired bootstrap over the items of each task:
both models answered the same ones, so that it is narrower than the two averages' own.
"""

from dataclasses import asdict
from math import isclose
from statistics import fmean
from typing import Any

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.comparison.speed_gain import Timing, measure_gain
from replaceme_core.evaluation import evaluate
from replaceme_core.evaluation.evaluate import Scores
from replaceme_core.evaluation.share_kept import Answers, answers, share_kept
from replaceme_core.plans.plan import EvaluationSection
from replaceme_core.progress import Progress

TIMING = Timing()


def standing(
    original: ModelHandle,
    own: ModelHandle,
    text: TextPart,
    section: EvaluationSection | None,
    dense: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """The figures of one model, as plain data. `dense` are those of the original, empty for the original itself."""
    found: dict[str, Any] = {"parameters": own.n_parameters, "parameters_removed": original.n_parameters - own.n_parameters}
    found["share_removed"] = found["parameters_removed"] / original.n_parameters
    if text.sequences:
        row = compare.divergence(original, [own] if own is not original else [], text, progress)[-1]
        found |= {key: value for key, value in asdict(row).items() if key != "name"}
    if section is not None:
        found |= benchmarks(evaluate.evaluate(own, section, progress))
        found |= kept(found, dense or found)
    return found | _speed(original, own, progress)


def benchmarks(scores: Scores) -> dict[str, Any]:
    """The average over tasks with its standard error, every task's own score, and what every item gave."""
    right = answers(scores)
    tasks = {task: asdict(score) for task in right if (score := scores.primary(task)) is not None}
    errors = [task["stderr"] for task in tasks.values()]
    stderr = None if not errors or None in errors else sum(error**2 for error in errors) ** 0.5 / len(errors)
    return {
        "average": scores.average,
        "average_stderr": stderr,
        "n_items": sum(task["n"] for task in tasks.values()),
        "tasks": tasks,
        "answers": {task: _short([items[item] for item in sorted(items, key=_in_order)]) for task, items in right.items()},
    }


def _short(points: list[float]) -> str | list[float]:
    """'0110' for right and wrong; where a task gives parts of a point, the numbers themselves."""
    return "".join("01"[int(value)] for value in points) if all(value in (0, 1) for value in points) else points


def _in_order(item: str) -> tuple[str, int]:
    """By task, then by the number of the question, so that rows of different sessions are paired rightly."""
    task, _, number = item.rpartition(" ")
    return task, int(number)


def kept(own: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    """The average as a share of the original's, with a 95 % interval; empty where nothing is known of single items."""
    found = share_kept(_items(dense["answers"]), _items(own["answers"]))
    if found is None:
        return {"kept": None, "kept_low": None, "kept_high": None}
    return {"kept": found.share, "kept_low": found.low, "kept_high": found.high}


def adds_up(row: dict[str, Any]) -> bool:
    """Whether the points of single questions make the row's figures; true of a row without benchmarks."""
    of_tasks = _items(row.get("answers") or {})
    return all(isclose(fmean(points.values()), row["tasks"][task]["value"], abs_tol=1e-9) for task, points in of_tasks.items() if points)


def _items(answered: dict[str, Any]) -> Answers:
    """`_short` of every task, read again."""
    return {task: {str(number): float(each) for number, each in enumerate(points)} for task, points in answered.items()}


def _speed(original: ModelHandle, own: ModelHandle, progress: Progress) -> dict[str, Any]:
    """Time of one token, in turns with the original, because a machine is not equally fast at all times; and memory."""
    gain = measure_gain(original, own, TIMING, progress)
    ratio = gain.decode.ratio
    return {
        "ms_per_token": 1000 / gain.decode.pruned.median,
        "ms_per_token_original": 1000 / gain.decode.original.median,
        "speedup": ratio.median,
        "speedup_range": [ratio.low, ratio.high],
        "prefill_ms": 1000 * gain.timing.prompt_tokens / gain.prefill.pruned.median,
        "prefill_ms_original": 1000 * gain.timing.prompt_tokens / gain.prefill.original.median,
        "prompt_tokens": gain.timing.prompt_tokens,
        "bytes": own.n_bytes,
        "peak_bytes": gain.pruned_peak_bytes,
        "device": gain.device,
    }
