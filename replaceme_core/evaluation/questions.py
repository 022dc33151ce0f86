"""One count of questions over all tasks of a run, so that the time left is that of the whole run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from replaceme_core.progress import Progress


class Questions:
    """The tasks of a run with their sizes; `of(task, number)` is the progress that one model's part of the task reports to.

    Models are asked the same, and a question counts as often as models are asked it: what is done for all of them at once is done for all.
    """

    def __init__(self, progress: Progress, models: Sequence[str]) -> None:
        self._progress, self._models = progress, models
        self._sizes: dict[str, int] = {}
        self._shares: dict[str, dict[int, float]] = {}
        """by task and number of a model"""

    def add(self, task: str, n_all: int, limit: int | None, models: Iterable[int]) -> None:
        self._sizes[task] = min(n_all, limit) if limit else n_all
        self._shares[task] = dict.fromkeys(models, 0.0)

    def of(self, task: str, number: int) -> Progress:
        return _Part(self, task, number)

    def finish(self, task: str, number: int) -> None:
        """Answered, or given up."""
        self._shares[task][number] = 1.0

    def update(self, task: str, number: int, share: float) -> None:
        """`share` of the questions of the present task are answered by a model."""
        shares = self._shares[task]
        shares[number] = max(shares.get(number, 0.0), share)
        begun = sum(all(each == 1 for each in done.values()) for name, done in self._shares.items() if name != task)
        done = sum(self._sizes[name] * sum(each.values()) for name, each in self._shares.items())
        total = sum(self._sizes[name] * len(each) for name, each in self._shares.items())
        models = self._models[number] if len(shares) == 1 else f"{len(shares)} models"
        what = f"benchmarks on {models}: {task} (task {begun + 1} of {len(self._sizes)})"
        self._progress.update(round(done), total, "questions", what)


@dataclass
class _Part:
    questions: Questions
    task: str
    number: int

    def update(self, done: float, total: float, _unit: str, _what: str) -> None:
        self.questions.update(self.task, self.number, done / total if total else 0.0)
