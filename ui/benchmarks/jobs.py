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
    """The missing tasks on every column, a task at a time; each is shown when it is done. What is finished when the job ends stays."""
    missing = {name: handle for name, handle in columns.items() if scored(state, {name: handle}, section)[name].missing}

    handles = list(missing.values())

    def work(job: Job) -> None:
        from replaceme_core.evaluation import evaluate

        def show(number: int) -> None:
            _remember(state, (handles[number].fingerprint, section.key), evaluate.known(handles[number], section))
            job.tell()

        try:
            evaluate.require_all(evaluate.evaluate_all(handles, section, job, finished=show))
        finally:
            for number in range(len(handles)):
                show(number)

    return submit(state, f"Benchmarks on {len(missing)} model{'s' if len(missing) != 1 else ''}", work, f"{section.key} {sorted(missing)}")


def imported(state: Studio) -> dict[str, "Scores"]:
    """Scores from files, by name, as long as the session lasts."""
    return state.slot(ImportedScores).by_name


def _remember(state: Studio, key: tuple[str, str], scores: "Scores") -> None:
    if scores.results:
        state.slot(Results).scores[key] = scores
        state.mark_done("benchmarks", lambda state: bool(state.slot(Results).scores))
    state.slot(KnownScores).by_key[key] = scores
