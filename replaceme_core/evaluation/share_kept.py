"""Share of the original's benchmark score that a pruned model keeps, with an interval from the questions that both answered."""

from dataclasses import dataclass

import numpy as np

from replaceme_core.evaluation.scores import PROBE, Scores

_RESAMPLES = 2000
_BEFORE, _AFTER = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
"""right by outcome: both, the original alone, the pruned model alone, neither"""


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


Answers = dict[str, dict[str, bool]]
"""by task and question: right or wrong; a group of tasks counts as one"""


def answers(scores: Scores) -> Answers:
    """What a model got right. The generative probe and tasks without right and wrong stay out, as they do of the average."""
    found: Answers = {}
    for name in scores.shown:
        members = scores.parts.get(name, [name])
        right = {f"{task} {s.doc_id}": s.correct for task in members for s in scores.samples.get(task, []) if s.correct is not None}
        if right and not name.startswith(PROBE):
            found[name] = right
    return found


def share_kept(original: Answers, pruned: Answers) -> ShareKept | None:
    """None where no task has questions that both answered, or the original got nothing right."""
    counts = [_counts(before, pruned.get(task, {})) for task, before in original.items()]
    counts = [table for table in counts if table.sum()]
    if not counts:
        return None
    left, right = (float(np.mean([table @ column / table.sum() for table in counts])) for column in (_BEFORE, _AFTER))
    if left == 0:
        return None
    generator, drawn = np.random.default_rng(0), np.zeros((2, _RESAMPLES))
    for table in counts:  # to draw questions with replacement is to draw how often each of the four outcomes comes
        tables = generator.multinomial(table.sum(), table / table.sum(), _RESAMPLES)
        drawn += np.stack([tables @ _BEFORE, tables @ _AFTER]) / table.sum() / len(counts)
    ratios = drawn[1][drawn[0] > 0] / drawn[0][drawn[0] > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return ShareKept(right / left, float(low), float(high), right, left, int(sum(table.sum() for table in counts)), len(counts))


def _counts(before: dict[str, bool], after: dict[str, bool]) -> "np.ndarray":
    """How many questions both got right, the first alone, the second alone, and neither."""
    outcomes = [(0 if after[i] else 1) if before[i] else (2 if after[i] else 3) for i in before if i in after]
    return np.bincount(outcomes, minlength=4)
