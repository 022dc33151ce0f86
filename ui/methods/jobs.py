"""The job of the Methods page, and the file of its finished rows."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replaceme_core.plans.defaults import tasks_for
from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.studies.leaderboard.run import Aim

METHODS = "Comparing methods"


def rows_file(state: Studio, tokens: int, items: int) -> Path:
    """Where the rows of this model, calibration set and measure are kept; one file for all methods and shares."""
    from replaceme_core.storage.cache import cache_folder

    assert state.calibration is not None
    suite = tasks_for(state.resident.section.path if state.resident else "")
    said = f"{state.model} {state.calibration.fingerprint} {tokens} {items}" + (f" {suite}" if suite != "demo" else "")
    return cache_folder() / "methods" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.jsonl"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The finished rows; of a row that was made twice the later one."""
    from replaceme_core.studies.leaderboard.run import read

    return list({(row["method"], row["n_removed"]): row for row in read(path)}.values())


def run_methods(state: Studio, aim: "Aim", tokens: int, path: Path) -> Job:
    """What is not finished yet in the file."""
    resident, calibration = state.resident, state.calibration
    if resident is None or calibration is None:
        raise RuntimeError("methods are compared on a measured model")

    def work(job: Job) -> None:
        from replaceme_core.comparison.texts import comparison_text
        from replaceme_core.studies.leaderboard import run as leaderboard

        text = comparison_text(resident.handle, resident.section.path, calibration, tokens)
        leaderboard.run(resident.handle, calibration, text, aim, path, job)

    return submit(state, METHODS, work, f"{path} {[row.name for row in aim.methods]} {aim.shares}")
