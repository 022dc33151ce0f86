"""What a benchmark run gives: a figure with its standard error, the items behind it, and all tasks of one model."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

PROBE = "probe_"
"""prefix of the generative probe's tasks, which stay out of the average"""
_PRIMARY = ("acc", "acc_norm", "exact_match", "em")
_LOWER = ("perplexity", "bits_per_byte", "repetition", "bpb", "ter", "brier")


@dataclass(frozen=True)
class Score:
    """One metric of one task: n items, standard error where there is one."""

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class Sample:
    """One item as the model answered it.

    Multiple choice: `target` and `answer` index `choices`, `logliks` are the log-likelihoods of the choices in nats; the answer is the
    likeliest choice, per character where the task's one score is acc_norm. Else
    `target` and `answer` are -1, `wanted` and `said` are texts. `correct` is None where there is no right or wrong, as where a task
    gives a part of a point (truthfulqa_mc2).
    `values` holds what each metric is an average of: a number, or a pair (log-likelihood, length).
    """

    doc_id: int
    text: str
    choices: list[str]
    target: int
    answer: int
    correct: bool | None
    values: dict[str, Any] = field(default_factory=dict)
    logliks: list[float] = field(default_factory=list)
    wanted: str = ""
    said: str = ""
    doc_hash: str = ""
    filter: str = "none"
    """lm-eval's name for how the answer was read out of what the model said"""

    @property
    def points(self) -> float | None:
        """What the item adds to the task's accuracy: 1, 0 or a part; None where the task has no accuracy."""
        main = primary_of(self.values)
        value = self.values[main] if main else self.correct
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    @property
    def given(self) -> str:
        """What the model answered."""
        return self._choice(self.answer) or self.said

    @property
    def right(self) -> str:
        """The right answer."""
        return self._choice(self.target) or self.wanted

    def _choice(self, index: int) -> str:
        return self.choices[index].strip() if 0 <= index < len(self.choices) else ""


@dataclass(frozen=True)
class TaskScores:
    """One task of one model: what is kept on disk."""

    task: str
    metrics: dict[str, Score]
    samples: list[Sample] = field(repr=False)
    version: str = ""
    few_shot: int = 0
    n_all: int = 0
    """items that the task has; fewer were asked under a limit"""
    truncated: int = 0
    """prompts that were longer than the model reads, and were cut on the left"""
    prompts: int = 0
    higher_is_better: dict[str, bool] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    """lm-eval's description of the task"""


@dataclass(frozen=True)
class Scores:
    """Results of one model on a suite. `average` is the mean accuracy (or exact match) over its tasks, a group counting once."""

    model: str
    results: dict[str, dict[str, Score]]
    average: float | None
    settings: dict[str, Any]
    samples: dict[str, list[Sample]] = field(default_factory=dict, repr=False)
    tasks: dict[str, TaskScores] = field(default_factory=dict, repr=False)
    parts: dict[str, list[str]] = field(default_factory=dict)
    """the tasks of each group whose score stands for them"""
    missing: list[str] = field(default_factory=list)
    """what was asked for and has no result yet"""

    def primary(self, task: str) -> Score | None:
        """The task's accuracy, if it has one."""
        name = primary_of(self.results[task])
        return self.results[task][name] if name else None

    def less_is_better(self, task: str, metric: str) -> bool:
        """What the task says of the metric; where it says nothing, by the metric's name."""
        held = self.tasks.get(task)
        told = held.higher_is_better.get(metric.partition(",")[0]) if held else None
        return lower_is_better(metric) if told is None else not told

    @property
    def shown(self) -> list[str]:
        """Groups and the tasks that belong to none."""
        hidden = {task for tasks in self.parts.values() for task in tasks}
        return [task for task in self.results if task not in hidden]

    @property
    def truncated(self) -> dict[str, tuple[int, int]]:
        """(prompts cut, prompts) of each task where some were."""
        return {name: (task.truncated, task.prompts) for name, task in self.tasks.items() if task.truncated}

    def to_data(self) -> dict[str, Any]:
        """Plain data without the samples."""
        results = {task: {m: asdict(score) for m, score in metrics.items()} for task, metrics in self.results.items()}
        return {"model": self.model, "results": results, "average": self.average, "settings": self.settings}


def primary_of(metrics: dict[str, Any]) -> str | None:
    """The metric that is a share of right answers; of several filters the same one whatever their order."""
    return next((min(named) for wanted in _PRIMARY if (named := [name for name in metrics if name.partition(",")[0] == wanted])), None)


def lower_is_better(metric: str) -> bool:
    return any(word in metric for word in _LOWER)


def average_of(scores: Scores) -> float | None:
    """Mean accuracy over what is shown, without the generative probe."""
    found = [score.value for task in scores.shown if not task.startswith(PROBE) and (score := scores.primary(task)) is not None]
    return sum(found) / len(found) if found else None
