"""The two jobs of the Sweep page: run the queue, and make a point of it the current variant."""

from typing import TYPE_CHECKING

from ui.session import live
from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.variants import keep_now
from ui.session.work import require_resident, submit
from ui.sweep.state import SweepState

if TYPE_CHECKING:
    from replaceme_core.plans.sweep_section import Sweep
    from replaceme_core.studies.sweep.points import PointResult

SWEEP = "Sweep"


def run_sweep(state: Studio, sweep: "Sweep", folder: str) -> Job:
    """What is not finished yet in the folder; the page reads the results from there."""
    resident, calibration, measurement = state.resident, state.calibration, state.measurement
    state.slot(SweepState).folder = folder

    def run(job: Job) -> None:
        from replaceme_core.studies.sweep import run as stage

        if resident is None or calibration is None:
            raise RuntimeError("a sweep needs a measured model")
        stage.run_on(resident.handle, calibration, sweep, folder, job, measurement)

    return submit(state, SWEEP, run, f"{folder} {sweep.model_dump_json()}")


def make_current(state: Studio, result: "PointResult", name: str) -> Job:
    """Fit the point again, merge, prove and keep it under `name`; its blocks and method become the present ones."""
    planned = result.planned

    def keep(job: Job) -> None:
        from replaceme_core import pipeline

        resident = require_resident(state)
        method, single = planned.section, len(planned.cut.spans) == 1
        where = planned.cut.spans[0] if single else planned.cut
        job.update(0, 0, "", "fitting" if not pipeline.runs_the_model(where, method) else "refitting")
        keep_now(state, resident, name, live.transform(state, where, method, job), job)
        state.choose_cut(planned.cut)
        state.method = method
        own = state.slot(SweepState)
        own.kept[planned.key], own.current = name, planned.key

    return submit(state, f"Keeping '{name}'", keep)
