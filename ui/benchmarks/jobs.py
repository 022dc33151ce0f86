"""What is scored under the present settings, and the job that scores the rest."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ui.session.jobs import Job
from ui.session.results import Results
from ui.session.state import Lifetime, Slot, Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.evaluation.evaluate import Scores
    from replaceme_core.plans.plan import EvaluationSection


@dataclass(eq=False)
class KnownScores(Slot):
    """What the disk held of these weights and settings when it was looked up."""

    lifetime: ClassVar[Lifetime] = "measurement"
    by_key: dict[tuple[str, str], "Scores"] = field(default_factory=dict)


@dataclass(eq=False)
class ImportedScores(Slot):
    """Scores from files."""

    by_name: dict[str, "Scores"] = field(default_factory=dict)


def scored(state: Studio, columns: dict[str, "ModelHandle"], section: "EvaluationSection") -> dict[str, "Scores"]:
    """What is known of each column: scored in this session, or kept on disk from another one. It may lack tasks."""
    from replaceme_core.evaluation import evaluate

    scores, known = state.slot(Results).scores, state.slot(KnownScores).by_key
    found = {}
    for name, handle in columns.items():
        key = (handle.fingerprint, section.key)
        if key not in scores and key not in known:
            _remember(state, key, evaluate.known(handle, section))
        found[name] = scores.get(key) or known[key]
    return found


def run(state: Studio, columns: dict[str, "ModelHandle"], section: "EvaluationSection") -> Job:
    """The missing tasks on every column. What is finished when the job is cancelled or fails stays."""
    missing = {name: handle for name, handle in columns.items() if scored(state, {name: handle}, section)[name].missing}

    def work(job: Job) -> None:
        from replaceme_core.evaluation import evaluate

        for number, (name, handle) in enumerate(missing.items()):
            try:
                evaluate.evaluate(handle, section, _Together(job, name, number, len(missing)))
            finally:
                _remember(state, (handle.fingerprint, section.key), evaluate.known(handle, section))

    return submit(state, f"Benchmarks on {len(missing)} model{'s' if len(missing) != 1 else ''}", work, f"{section.key} {sorted(missing)}")


def imported(state: Studio) -> dict[str, "Scores"]:
    """Scores from files, by name, as long as the session lasts."""
    return state.slot(ImportedScores).by_name


def _remember(state: Studio, key: tuple[str, str], scores: "Scores") -> None:
    if scores.results:
        state.slot(Results).scores[key] = scores
        state.mark_done("benchmarks", lambda state: bool(state.slot(Results).scores))
    state.slot(KnownScores).by_key[key] = scores


class _Together:
    """One count of questions over all models: they are asked the same."""

    def __init__(self, job: Job, name: str, before: int, models: int) -> None:
        self._job, self._name, self._before, self._models = job, name, before, models

    def update(self, done: float, total: float, unit: str, what: str) -> None:
        task = what.partition(": ")[2] or what
        self._job.update(
            done + self._before * total, total * self._models, unit, f"{self._name} ({self._before + 1} of {self._models}), {task}"
        )
