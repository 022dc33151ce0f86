"""What a pruned model is judged by beside the original: benchmarks, perplexity and KL, time and memory, each with its interval and n.

The share kept is the benchmark average as a share of the original's. Its interval is a paired bootstrap over the items of each task:
both models answered the same ones, so that it is narrower than the two averages' own.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from replaceme_core import compare, evaluate, timing
from replaceme_core.artifacts import ModelHandle
from replaceme_core.evaluate import Scores
from replaceme_core.plan import EvaluationSection
from replaceme_core.progress import Progress

_RESAMPLES = 1000


def standing(
    original: ModelHandle,
    own: ModelHandle,
    sequences: list[Tensor],
    section: EvaluationSection | None,
    dense: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """The figures of one model, as plain data. `dense` are those of the original, empty for the original itself."""
    found: dict[str, Any] = {"parameters": own.n_parameters, "parameters_removed": original.n_parameters - own.n_parameters}
    found["share_removed"] = found["parameters_removed"] / original.n_parameters
    if sequences:
        row = compare.divergence(original, [own] if own is not original else [], sequences, progress)[-1]
        found |= {key: value for key, value in asdict(row).items() if key != "name"}
    if section is not None:
        found |= benchmarks(evaluate.evaluate(own, section, progress))
        found |= kept(found, dense or found)
    return found | _speed(original, own, progress)


def benchmarks(scores: Scores) -> dict[str, Any]:
    """The average over tasks with its standard error, every task's own score, and which items were right."""
    tasks = {task: asdict(score) for task in scores.results if (score := scores.primary(task)) is not None}
    errors = [task["stderr"] for task in tasks.values()]
    stderr = None if not errors or None in errors else sum(error**2 for error in errors) ** 0.5 / len(errors)
    right = {
        task: "".join("1" if sample.correct else "0" for sample in sorted(scores.samples.get(task, []), key=lambda each: each.doc_id))
        for task in tasks
    }
    return {
        "average": scores.average,
        "average_stderr": stderr,
        "n_items": sum(task["n"] for task in tasks.values()),
        "tasks": tasks,
        "answers": right,
    }


def kept(own: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    """The average as a share of the original's, with a 95 % interval where every item of both is known."""
    if own["average"] is None or not dense["average"]:
        return {"kept": None, "kept_low": None, "kept_high": None}
    share = own["average"] / dense["average"]
    pairs = [(_bits(own["answers"][task]), _bits(dense["answers"][task])) for task in own["tasks"]]
    if any(len(mine) == 0 or len(mine) != len(theirs) for mine, theirs in pairs):
        return {"kept": share, "kept_low": None, "kept_high": None}
    generator = np.random.default_rng(0)
    sums = np.zeros((2, _RESAMPLES))
    for mine, theirs in pairs:
        chosen = generator.integers(0, len(mine), (_RESAMPLES, len(mine)))
        sums += np.stack([mine[chosen].mean(1), theirs[chosen].mean(1)])
    ratios = sums[0, sums[1] > 0] / sums[1, sums[1] > 0]
    return {"kept": share, "kept_low": float(np.quantile(ratios, 0.025)), "kept_high": float(np.quantile(ratios, 0.975))}


def _bits(answers: str) -> Any:
    return np.array([answer == "1" for answer in answers], dtype=float)


def _speed(original: ModelHandle, own: ModelHandle, progress: Progress) -> dict[str, Any]:
    """Time of one token, measured in turns with the original, because a machine is not equally fast at all times."""
    before, after = timing.speeds([original, own], progress=progress)
    return {
        "ms_per_token": 1000 / after.decode_tokens_per_s,
        "ms_per_token_original": 1000 / before.decode_tokens_per_s,
        "prefill_ms": after.prefill_ms,
        "prefill_ms_original": before.prefill_ms,
        "prompt_tokens": after.prompt_tokens,
        "bytes": after.n_bytes,
        "cache_bytes": after.cache_bytes,
        "device": after.device,
    }
