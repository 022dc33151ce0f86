"""Long work: a job that is queued once and waits for the libraries; loading a model, and the calibration pass."""

import hashlib
from typing import TYPE_CHECKING, Any

from ui.session import kept
from ui.session.access import access
from ui.session.calibration_choice import Chosen, set_name
from ui.session.hub import Resident, hub
from ui.session.jobs import Job, runner
from ui.session.state import Studio
from ui.session.turns import Lane
from ui.session.warm import warm

if TYPE_CHECKING:
    from replaceme_core.measurement.measure import SoFar, Watch
    from replaceme_core.plans.plan import ModelSection


def submit(
    state: Studio, title: str, work: Any, settings: str = "", lane: Lane = "long", moves: bool = False, background: bool = False
) -> Job:
    """Queue work for this session, once: a double click gets the job of its first half. `settings` tells jobs of one title apart.

    The short lane is for what takes about a minute: it does not wait behind a long job of hours. `moves`: it sets model or measurement.
    Work in the `background` ends by itself where `job.enough` is set, which any other work does.
    """
    libraries = warm()
    state.asked = state.asked or not background
    hub().remember(state)  # a tab that is reloaded while this runs finds it again

    def when_warm(job: Job) -> Any:
        libraries.join()  # two threads that import transformers at once can each see the other's half
        return work(job)

    return runner().submit(Job(title, state.owner, when_warm, settings, lane, moves, background=background))


def require_resident(state: Studio) -> Resident:
    """The loaded model. Raises `ModelError` if another tab made it leave."""
    from replaceme_core.errors import ModelError

    if state.resident is None:
        raise ModelError("The model has been unloaded meanwhile; load it again on the Model page.")
    return state.resident


def load_model(state: Studio, section: "ModelSection") -> Job:
    def work(job: Job) -> None:
        access().require(section.path)
        job.update(0, 0, "", "loading the libraries")
        state.use_model(hub().load(section, job))

    return submit(state, f"Loading {section.path}", work, section.model_dump_json(exclude_unset=True), moves=True)


def measure_set(state: Studio, chosen: Chosen, again: bool = False) -> Job:
    """The calibration pass, or what an earlier one over this text left (`again`: never). A set that is not prepared is read first, inside the job (a hub data set takes its time)."""
    resident = require_resident(state)
    name = set_name(chosen.section, chosen.given) or chosen.section.source
    text = hashlib.sha256(chosen.given.data if chosen.given else b"").hexdigest()  # a paste has the same name as the one before
    settings = f"{chosen.section.model_dump_json()} {text} {again} {resident.handle.fingerprint}"
    return submit(state, f"Measuring on {name}", lambda job: measure_now(state, resident, chosen, job, again), settings, moves=True)


def measure_now(state: Studio, resident: Resident, chosen: Chosen, job: Job, again: bool = False) -> None:
    from replaceme_core import pipeline
    from replaceme_core.measurement import measure

    section, given, prepared = chosen.section, chosen.given, chosen.prepared
    if prepared is None:
        job.update(0, 0, "", f"reading {section.source}")
        texts = given.texts if given else None
        prepared = pipeline.prepare_for(resident.handle, section, job, texts, set_name(section, given))
    try:
        result = measure.measure(
            resident.handle,
            prepared,
            progress=job,
            again=again,
            watch=_looks(state, resident, job),
        )
    except BaseException:  # cancelled or failed: what was there before is still there
        state.partial = None
        raise
    finally:
        job.can_end = False
    n_read = result.distances["all"].n_sequences
    if n_read < len(prepared.sequences):  # enough was enough
        prepared, section = prepared.beginning(n_read), section.model_copy(update={"first_sequences": n_read})
    if state.model == resident.handle.fingerprint:
        state.use_measurement(result, prepared, section, given)
        kept.bring_back(state, resident, job)
    else:
        state.partial = None


def _looks(state: Studio, resident: Resident, job: Job) -> "Watch":
    """Shows the distances while the pass runs, and ends it when somebody has enough."""

    def watch(so_far: "SoFar") -> bool:
        if state.model == resident.handle.fingerprint:
            state.use_partial(so_far.measurement, so_far.n_tokens)
        return job.show(so_far.can_end)

    return watch
