"""One count of questions over all tasks of a run, so that the time left is that of the whole run."""

from dataclasses import dataclass

from replaceme_core.progress import Progress


class Questions:
    """The tasks of a run with their sizes; `of(task)` is the progress that the task reports to."""

    def __init__(self, progress: Progress, model: str) -> None:
        self._progress, self._model = progress, model
        self._sizes: dict[str, int] = {}
        self._done: set[str] = set()

    def add(self, task: str, n_all: int, limit: int | None) -> None:
        self._sizes[task] = min(n_all, limit) if limit else n_all

    def of(self, task: str) -> Progress:
        return _Part(self, task)

    def finish(self, task: str) -> None:
        self._done.add(task)

    def update(self, task: str, share: float) -> None:
        """`share` of the questions of the present task are answered."""
        done = sum(self._sizes[name] for name in self._done - {task}) + share * self._sizes[task]
        what = f"benchmarks on {self._model}: {task} (task {len(self._done - {task}) + 1} of {len(self._sizes)})"
        self._progress.update(round(done), sum(self._sizes.values()), "questions", what)


@dataclass
class _Part:
    questions: Questions
    task: str

    def update(self, done: float, total: float, _unit: str, _what: str) -> None:
        self.questions.update(self.task, done / total if total else 0.0)
