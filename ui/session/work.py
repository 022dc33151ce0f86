"""The long steps a page can start. Each becomes a job; its result is written into the session's state at the end."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ui.session import live
from ui.session.access import access
from ui.session.calibration_choice import Chosen, set_name
from ui.session.hub import Resident, hub, warm
from ui.session.jobs import Job, runner
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, Span, Variant
    from replaceme_core.plans.plan import MethodSection, ModelSection

CUT = "cut, no transform"
ORIGINAL = "original"
DEMO_TOKENS = 8192
"""64 for every unknown of the demo model, and the matrix in seconds"""


def start_demo(state: Studio) -> Job:
    """Load the demo model, measure it on the mixture, choose a span: everything up to the matrix."""
    from replaceme_core.plans.plan import CalibrationSection, ModelSection

    def work(job: Job) -> None:
        job.update(0, 0, "", "loading the libraries")
        resident = hub().load(ModelSection(path="demo"), job)
        state.use_model(resident)
        measure_now(state, resident, Chosen(CalibrationSection(max_tokens=DEMO_TOKENS)), job)

    return submit(state, "Starting the demo model", work)


def load_model(state: Studio, section: "ModelSection") -> Job:
    def work(job: Job) -> None:
        access().require(section.path)
        job.update(0, 0, "", "loading the libraries")
        state.use_model(hub().load(section, job))

    return submit(state, f"Loading {section.path}", work, section.model_dump_json())


def measure_set(state: Studio, chosen: Chosen, spans: "list[Span] | None" = None) -> Job:
    """The calibration pass. A set that is not prepared is read first, inside the job (a hub data set takes its time)."""
    resident = _resident(state)
    name = set_name(chosen.section, chosen.given) or chosen.section.source
    settings = f"{chosen.section.model_dump_json()} {spans} {resident.handle.fingerprint}"
    return submit(state, f"Measuring on {name}", lambda job: measure_now(state, resident, chosen, job, spans), settings)


def measure_now(
    state: Studio,
    resident: Resident,
    chosen: Chosen,
    job: Job,
    spans: "list[Span] | None" = None,
) -> None:
    from replaceme_core import pipeline
    from replaceme_core.calibration import calibration
    from replaceme_core.measurement import measure

    section, given, prepared = chosen.section, chosen.given, chosen.prepared
    if prepared is None:
        job.update(0, 0, "", f"reading {section.source}")
        if given is None:
            prepared = pipeline.prepare_for(resident.handle, section, job)
        else:
            prepared = calibration.prepare(section, resident.handle.tokenizer, given.texts, set_name(section, given))
    result = measure.measure(resident.handle, prepared, section.budget_bytes, spans, job, keep=section.keep)
    if state.model == resident.handle.fingerprint:
        state.use_measurement(result, prepared, section, given)


def recipe_of(state: Studio, transform: "LinearTransform") -> dict[str, Any]:
    """The plan that repeats a fit: plain data for the command line and the model card."""
    from replaceme_core.plans.plan import CalibrationSection, MethodSection, PruningPlan, SpanSection

    resident = _resident(state)
    return PruningPlan(
        model=resident.section,
        calibration=state.calibration_section or CalibrationSection(),
        span=SpanSection.model_validate(transform.cut.plain()),
        method=MethodSection.parse(transform.settings),
    ).to_data()


def fit_slowly(state: Studio, span: "Span | Cut", method: "MethodSection") -> Job:
    """A fit that is too slow to follow a slider; the Fit page finds it in the session's live results."""

    def work(job: Job) -> None:
        live.transform(state, span, method, job)

    return submit(state, f"Fitting {span}", work, method.model_dump_json())


def keep_variant(state: Studio, name: str, transform: "LinearTransform", folder: str | None = None) -> Job:
    """Merge the transform, prove the result, and keep it under `name`.

    A model held quantised or spread is merged on disk, into the new `folder`; no cut is made of it.
    """
    resident, recipe, given = _resident(state), recipe_of(state, transform), state.calibration_text
    if folder is None:
        return submit(state, f"Keeping '{name}'", lambda job: keep_now(state, resident, name, transform, job))
    distances = state.measurement.distances["all"] if state.measurement else None

    def work(job: Job) -> None:
        from replaceme_core.export import export
        from replaceme_core.plans.plan import PruningPlan

        key = (state.owner, name)
        plan = PruningPlan.parse(recipe)
        variant = replace(export.export_merged(resident.handle, transform, name, plan, folder, job), distances=distances)
        export.save_record(variant, Path(folder), variant.proofs)
        resident.folders[key] = Path(folder)
        state.exports.append((variant.handle.fingerprint, export.listed(Path(folder), variant.proofs)))
        if given is not None:
            resident.texts[key] = given
        resident.variants[key] = variant

    return submit(state, f"Keeping '{name}'", work)


def keep_now(state: Studio, resident: Resident, name: str, transform: "LinearTransform", job: Job) -> "Variant":
    """Inside a job: merge in memory, prove, keep, and make the cut without transform that it is compared with."""
    from replaceme_core.surgery import surgery

    job.update(0, 2, "steps", "merging and proving")
    variant = surgery.prune(resident.handle, transform, name, recipe_of(state, transform))
    variant = replace(variant, distances=state.measurement.distances["all"] if state.measurement else None)
    given = state.calibration_text
    cut_of(state, resident, transform.cut, job)
    job.update(2, 2, "steps", "kept")  # the last moment to cancel: what is not wanted is not kept
    if given is not None:
        resident.texts[(state.owner, name)] = given
    resident.variants[(state.owner, name)] = variant
    return variant


def time_cuts(state: Studio, cuts: "list[Cut]") -> Job:
    """Time per token of the original and of the model without the blocks of each cut (a transform adds nothing to it)."""
    resident = _resident(state)

    def work(job: Job) -> None:
        from replaceme_core.comparison import compare

        handles = [resident.handle, *(cut_of(state, resident, cut, job).handle for cut in cuts)]
        for handle, speed in zip(handles, compare.speeds(handles, progress=job), strict=True):
            state.speeds[handle.fingerprint] = speed

    return submit(state, "Timing", work, str(cuts))


def cut_of(state: Studio, resident: Resident, cut: "Cut", job: Job) -> "Variant":
    """The same blocks removed without a transform, made once per cut."""
    from replaceme_core.plans.plan import MethodSection
    from replaceme_core.surgery import surgery

    if cut not in resident.cuts:
        job.update(1, 2, "steps", "making the cut without transform")
        if state.measurement is None:
            raise RuntimeError("a cut needs a measurement")
        where = cut.spans[0] if len(cut.spans) == 1 else cut
        transform = live.transform(state, where, MethodSection(name="drop"), job)
        resident.cuts[cut] = surgery.prune(resident.handle, transform, CUT, recipe_of(state, transform))
    return resident.cuts[cut]


def systems(state: Studio, names: list[str]) -> dict[str, "ModelHandle"]:
    """What the columns show: the original, the cut of the first variant's span, and the named variants."""
    resident, variants = _resident(state), state.variants
    chosen = [variants[name] for name in names if name in variants]
    columns: dict[str, ModelHandle] = {ORIGINAL: resident.handle}
    if chosen:
        cut = resident.cuts.get(chosen[0].transform.cut)
        if cut is not None:
            columns[CUT] = cut.handle
    columns.update({variant.name: variant.handle for variant in chosen})
    return columns


def _resident(state: Studio) -> Resident:
    from replaceme_core.errors import ModelError

    if state.resident is None:
        raise ModelError("The model has been unloaded meanwhile; load it again on the Model page.")
    return state.resident


def submit(state: Studio, title: str, work: Any, settings: str = "") -> Job:
    """Queue work for this session, once: a double click gets the job of its first half. `settings` tells jobs of one title apart."""
    libraries = warm()
    hub().remember(state)  # a tab that is reloaded while this runs finds it again

    def when_warm(job: Job) -> Any:
        libraries.join()  # two threads that import transformers at once can each see the other's half
        return work(job)

    return runner().submit(Job(title, state.owner, when_warm, settings))
