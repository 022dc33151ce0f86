"""Share of the original's benchmark score that a pruned model keeps, with an interval from the questions that both answered."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from replaceme_core.evaluation.scores import PROBE, Scores

_RESAMPLES = 2000


@dataclass(frozen=True)
class ShareKept:
    """Averages are means over tasks of accuracy; the interval is 95 %, bootstrap over questions, the same ones for both models."""

    share: float
    low: float
    high: float
    average: float
    original_average: float
    n_items: int
    n_tasks: int


Answers = dict[str, dict[str, float]]
"""by task and question: 1 right, 0 wrong, or the part of a point that the task gave; a group of tasks counts as one"""


def answers(scores: Scores) -> Answers:
    """What a model got right. The generative probe and tasks without an accuracy stay out, as they do of the average."""
    found: Answers = {}
    for name in scores.shown:
        members = scores.parts.get(name, [name])
        points = {f"{task} {s.doc_id}": s.points for task in members for s in scores.samples.get(task, [])}
        counted = {item: value for item, value in points.items() if value is not None}
        if counted and not name.startswith(PROBE):
            found[name] = counted
    return found


def share_kept(original: Answers, pruned: Answers) -> ShareKept | None:
    """None where no task has questions that both answered, or the original got nothing right."""
    tasks = [_outcomes(before, pruned.get(task, {})) for task, before in original.items()]
    tasks = [(values, counts) for values, counts in tasks if counts.sum()]
    if not tasks:
        return None
    left, right = np.mean([counts @ values / counts.sum() for values, counts in tasks], axis=0).tolist()
    if left == 0:
        return None
    generator, drawn = np.random.default_rng(0), np.zeros((2, _RESAMPLES))
    for values, counts in tasks:  # to draw questions with replacement is to draw how often each outcome comes
        n = int(counts.sum())
        drawn += (generator.multinomial(n, counts / n, _RESAMPLES) @ values).T / n / len(tasks)
    ratios = drawn[1][drawn[0] > 0] / drawn[0][drawn[0] > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return ShareKept(right / left, float(low), float(high), right, left, int(sum(counts.sum() for _, counts in tasks)), len(tasks))


def _outcomes(before: dict[str, float], after: dict[str, float]) -> tuple["np.ndarray", "np.ndarray"]:
    """The outcomes [outcomes, 2] that a question may have (points of both models) and how many questions had each.

    Of right and wrong these are four: both, the first alone, the second alone, neither. Of parts of a point there are as many as questions.
    """
    plain = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    found = Counter((float(before[item]), float(after[item])) for item in before if item in after)
    values = list(dict.fromkeys([*plain, *found]))
    return np.array(values), np.array([found[value] for value in values])
