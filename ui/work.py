"""The long steps a page can start. Each becomes a job; its result is written into the session's state at the end."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ui import live
from ui.access import access
from ui.hub import Resident, hub, warm
from ui.jobs import Job, runner
from ui.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import LinearTransform, ModelHandle, Span, Variant
    from replaceme_core.calibration import CalibrationSet
    from replaceme_core.plan import CalibrationSection, EvaluationSection, ExportSection, ModelSection

CUT = "cut, no transform"
ORIGINAL = "original"
DEMO_TOKENS = 8192
"""64 for every unknown of the demo model, and the matrix in seconds"""


def start_demo(state: Studio) -> Job:
    """Load the demo model, measure it on the mixture, choose a span: everything up to the matrix."""
    from replaceme_core.plan import CalibrationSection, ModelSection

    def work(job: Job) -> None:
        job.update(0, 0, "", "loading the libraries")
        resident = hub().load(ModelSection(path="demo"), job)
        state.use_model(resident)
        _measure(state, resident, CalibrationSection(max_tokens=DEMO_TOKENS), None, job)

    return _submit(state, "Starting the demo model", work)


def load_model(state: Studio, section: "ModelSection") -> Job:
    def work(job: Job) -> None:
        access().require(section.path)
        job.update(0, 0, "", "loading the libraries")
        state.use_model(hub().load(section, job))

    return _submit(state, f"Loading {section.path}", work)


def measure_set(state: Studio, section: "CalibrationSection", prepared: "CalibrationSet | None", spans: "list[Span] | None" = None) -> Job:
    """The calibration pass. `prepared` None reads the source first, inside the job (a hub data set takes its time)."""
    resident = _resident(state)

    def work(job: Job) -> None:
        _measure(state, resident, section, prepared, job, spans)

    return _submit(state, f"Measuring on {section.source}", work)


def _measure(
    state: Studio,
    resident: Resident,
    section: "CalibrationSection",
    prepared: "CalibrationSet | None",
    job: Job,
    spans: "list[Span] | None" = None,
) -> None:
    from replaceme_core import measure, pipeline

    if prepared is None:
        job.update(0, 0, "", f"reading {section.source}")
        prepared = pipeline.prepare_for(resident.handle, section, job)
    result = measure.measure(resident.handle, prepared, spans=spans, progress=job)
    if state.model == resident.handle.fingerprint:
        state.use_measurement(result, prepared, section)


def recipe_of(state: Studio, transform: "LinearTransform") -> dict[str, Any]:
    """The plan that repeats a fit: plain data for the command line and the model card."""
    from replaceme_core.plan import CalibrationSection, MethodSection, PruningPlan, SpanSection

    resident = _resident(state)
    ridge = None if transform.matrix is None else transform.report.ridge
    return PruningPlan(
        model=resident.section,
        calibration=state.calibration_section or CalibrationSection(),
        span=SpanSection(start=transform.span.start, end=transform.span.end),
        method=MethodSection(name=transform.method, ridge=ridge),
    ).to_data()


def fit_slowly(state: Studio, span: "Span", method: str, ridge: float | None) -> Job:
    """A fit that is too slow to follow a slider; the Fit page finds it in the session's live results."""

    def work(job: Job) -> None:
        job.update(0, 0, "", f"fitting {method.replace('_', ' ')}")
        live.transform(state, span, method, ridge)

    return _submit(state, f"Fitting {span}", work)


def keep_variant(state: Studio, name: str, transform: "LinearTransform") -> Job:
    """Merge the transform, prove the result, and keep it under `name`."""
    resident, recipe = _resident(state), recipe_of(state, transform)

    def work(job: Job) -> None:
        from replaceme_core import surgery

        job.update(0, 2, "steps", "merging and proving")
        variant = surgery.prune(resident.handle, transform, name, recipe)
        resident.variants[(state.owner, name)] = variant
        cut_of(state, resident, transform.span, job)

    return _submit(state, f"Keeping '{name}'", work)


def time_span(state: Studio, span: "Span") -> Job:
    """Time per token of the original and of the model without the span's blocks (a transform adds nothing to it)."""
    resident = _resident(state)

    def work(job: Job) -> None:
        from replaceme_core import compare

        cut = cut_of(state, resident, span, job)
        for handle in (resident.handle, cut.handle):
            job.update(1, 2, "models", "timing")
            state.speeds[handle.fingerprint] = compare.speed(handle)

    return _submit(state, "Timing this span", work)


def cut_of(state: Studio, resident: Resident, span: "Span", job: Job) -> "Variant":
    """The same blocks removed without a transform, made once per span."""
    from replaceme_core import solvers, surgery

    if span not in resident.cuts:
        job.update(1, 2, "steps", "making the cut without transform")
        if state.measurement is None:
            raise RuntimeError("a cut needs a measurement")
        transform = solvers.fit(state.measurement, span, "drop", None)
        resident.cuts[span] = surgery.prune(resident.handle, transform, CUT, recipe_of(state, transform))
    return resident.cuts[span]


def systems(state: Studio, names: list[str]) -> dict[str, "ModelHandle"]:
    """What the columns show: the original, the cut of the first variant's span, and the named variants."""
    resident, variants = _resident(state), state.variants
    chosen = [variants[name] for name in names if name in variants]
    columns: dict[str, ModelHandle] = {ORIGINAL: resident.handle}
    if chosen:
        cut = resident.cuts.get(chosen[0].transform.span)
        if cut is not None:
            columns[CUT] = cut.handle
    columns.update({variant.name: variant.handle for variant in chosen})
    return columns


def measure_quality(state: Studio, columns: dict[str, "ModelHandle"], texts: str, n_tokens: int) -> Job:
    """Perplexity, KL and speed of every column on held-out text: the calibration set's own part, or the demo's documents."""
    prepared = state.calibration

    def work(job: Job) -> None:
        from replaceme_core import compare

        handles = list(columns.values())
        job.update(0, 0, "", "reading held-out text")
        if texts == "calibration" and prepared is not None:
            sequences = _first(n_tokens, [row for row, out in zip(prepared.sequences, prepared.heldout, strict=True) if out])
        else:
            sequences = compare.heldout_sequences(handles[0], n_tokens)
        rows = compare.divergence(handles[0], handles[1:], sequences, job)
        for handle, row in zip(handles, rows, strict=True):
            state.divergences[f"{handle.fingerprint} {texts} {n_tokens}"] = row
        for done, (name, handle) in enumerate(columns.items()):
            job.update(done, len(columns), "models", f"timing {name}")
            state.speeds[handle.fingerprint] = compare.speed(handle)

    return _submit(state, "Measuring on held-out text", work)


def _first(n_tokens: int, sequences: list[Any]) -> list[Any]:
    """The first sequences, as many as `n_tokens` need."""
    chosen, count = [], 0
    for sequence in sequences:
        if count >= n_tokens:
            break
        chosen.append(sequence)
        count += len(sequence)
    return chosen


def settings_key(section: "EvaluationSection") -> str:
    """Scores are kept by weights and by everything that changes them; the batch size does not."""
    return section.model_copy(update={"batch_size": 1}).model_dump_json()


def run_benchmarks(state: Studio, columns: dict[str, "ModelHandle"], section: "EvaluationSection") -> Job:
    """The chosen tasks on every column; what was scored before with the same settings is not run again."""
    key = settings_key(section)
    missing = {name: handle for name, handle in columns.items() if (handle.fingerprint, key) not in state.scores}

    def work(job: Job) -> None:
        from replaceme_core import evaluate

        for number, (name, handle) in enumerate(missing.items(), start=1):
            state.scores[(handle.fingerprint, key)] = evaluate.evaluate(
                handle, section, _Named(job, f"{name} ({number} of {len(missing)})")
            )

    return _submit(state, f"Benchmarks on {len(missing)} model(s)", work)


def export_variant(state: Studio, variant: "Variant", folder: str, section: "ExportSection") -> Job:
    def work(job: Job) -> None:
        from replaceme_core import export

        scored = {
            settings: scores.to_data()
            for (fingerprint, settings), scores in state.scores.items()
            if fingerprint == variant.handle.fingerprint
        }
        state.exports.append((variant.handle.fingerprint, export.export(replace(variant, scores=scored), folder, section, job)))

    return _submit(state, f"Exporting '{variant.name}'", work)


class _Named:
    """Progress that says which model is at work."""

    def __init__(self, job: Job, name: str) -> None:
        self._job, self._name = job, name

    def update(self, done: float, total: float, unit: str, what: str) -> None:
        self._job.update(done, total, unit, f"{self._name}: {what}")


def _resident(state: Studio) -> Resident:
    from replaceme_core.errors import ModelError

    if state.resident is None:
        raise ModelError("The model has been unloaded meanwhile; load it again on the Model page.")
    return state.resident


def _submit(state: Studio, title: str, work: Any) -> Job:
    libraries = warm()

    def when_warm(job: Job) -> Any:
        libraries.join()  # two threads that import transformers at once can each see the other's half
        return work(job)

    return runner().submit(Job(title, state.owner, when_warm))
