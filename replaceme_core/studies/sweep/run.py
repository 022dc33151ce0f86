"""Many prunings of one model, measured alike: methods x places, as a queue that loses nothing when it is stopped.

    found = run(Sweep.read("sweep.yaml"), "sweeps/first")      # the same call again goes on where it was stopped
    [(str(result.planned), result.quality.kl) for result in found.made]

One calibration pass serves all points that are solved from it. Each point is fitted, merged, checked and measured, and is written before the next one begins. A point that cannot be made keeps its
sentence and does not stop the others; the next run tries it again.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from replaceme_core import pipeline
from replaceme_core.artifacts import Measurement, ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import speed_gain
from replaceme_core.comparison.texts import comparison_text
from replaceme_core.comparison.timing import device_name
from replaceme_core.errors import ModelError
from replaceme_core.evaluation import evaluate, share_kept
from replaceme_core.evaluation.store import LAYOUT
from replaceme_core.evaluation.suites import identity
from replaceme_core.measurement import needs
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.defaults import evaluation_for
from replaceme_core.plans.sweep_section import Sweep
from replaceme_core.progress import SILENT, Portion, Progress
from replaceme_core.studies.sweep.bench import Bench, point_result
from replaceme_core.studies.sweep.points import Planned, candidate_spans, digest, plan_points, wanted_lengths
from replaceme_core.studies.sweep.store import Index, Store, SweepFolder

FORMAT = 3
"""of the files; one more whenever a figure changes its meaning, so that old points are measured again"""


def run(sweep: Sweep, folder: str | Path, progress: Progress = SILENT) -> SweepFolder:
    """Loads the model, reads the calibration set and runs what is not finished yet in `folder`."""
    store = Store(folder)
    store.prepare(sweep)
    sweep = sweep.model_copy(update={"model": loading.as_stored(sweep.model)})
    handle = loading.load(sweep.model, progress)
    require_sweepable(handle)
    calibration = pipeline.filled(sweep.calibration, handle, sweep.model.path, sweep.methods)
    sweep = sweep.model_copy(update={"calibration": calibration, "evaluation": evaluation_for(sweep.evaluation, sweep.model.path)})
    return run_on(handle, pipeline.prepare_for(handle, sweep.calibration, progress), sweep, folder, progress)


def run_on(
    handle: ModelHandle,
    calibration: CalibrationSet,
    sweep: Sweep,
    folder: str | Path,
    progress: Progress = SILENT,
    measurement: Measurement | None = None,
) -> SweepFolder:
    """The same on a model and a calibration set that are here already; a `measurement` of theirs may save the pass.

    Raises the error of a benchmark that cannot be run on the original, before any point.
    """
    require_sweepable(handle)
    store = Store(folder)
    store.prepare(sweep)
    text = comparison_text(handle, sweep.model.path, calibration, sweep.measure.test_tokens)
    index, measurement = _index(handle, calibration, sweep, text, store, progress, measurement)
    done = {result.planned.key for point in index.points if (result := store.result(point.key)) is not None and not result.error}
    left = [point for point in index.points if point.key not in done]
    scores = evaluate.evaluate(handle, sweep.evaluation, progress) if left and sweep.evaluation else None
    bench = Bench(sweep, handle, calibration, text, share_kept.answers(scores) if scores else None)
    measurement = _measured(bench, left, measurement, progress)
    for count, point in enumerate(left):
        step = Portion(progress, count, 1, len(left), "points", "fitting and measuring")
        store.write_result(point_result(bench, point, measurement, step))
    found = store.found()
    assert found is not None
    return found


def require_sweepable(handle: ModelHandle) -> None:
    """A `ModelError` for a model whose points could not be compared."""
    if handle.family.inputs != "text":
        raise ModelError("A sweep compares next-token probabilities, and this model reads images; choose its span by the distance.")
    if handle.checkpoint is not None:
        raise ModelError(
            f"'{handle.name}' is held quantised or spread over devices, so that no cut of it is made in memory. Load it unquantised on one "
            "device to sweep."
        )


def _index(
    handle: ModelHandle,
    calibration: CalibrationSet,
    sweep: Sweep,
    text: TextPart,
    store: Store,
    progress: Progress,
    measurement: Measurement | None,
) -> tuple[Index, Measurement | None]:
    """The queue: the folder's own where the same was asked before, else a new one, for which a pass may have to name the places."""
    base = _base(handle, calibration, sweep, text)
    asked = digest(base | {"cuts": sweep.cuts.model_dump(mode="json"), "methods": [m.model_dump(mode="json") for m in sweep.methods]})
    index = store.index()
    if index is not None and index.asked == asked:
        return index, measurement
    if measurement is None and wanted_lengths(sweep, handle.n_blocks):
        reads = sweep.cuts.criterion == "missed" or any(needs.reads_moments(method) for method in sweep.methods)
        measurement = measure(handle, calibration, candidate_spans(sweep, handle.n_blocks) if reads else [], progress)
    structure: Any = "diagonal" if handle.family.merge == "diagonal" else "full"
    points, notes = plan_points(measurement, sweep, handle.n_blocks, base, structure)
    index = Index(
        asked, handle.name, handle.fingerprint, calibration.name, calibration.fingerprint, handle.n_blocks, handle.n_parameters,
        speed_gain.disk_bytes(handle), tuple(points), tuple(notes),
    )  # fmt: skip
    store.write_index(index)
    return index, measurement


def _base(handle: ModelHandle, calibration: CalibrationSet, sweep: Sweep, text: TextPart) -> dict[str, Any]:
    """All that determines a point beside its cut and its method."""
    section = sweep.evaluation
    evaluation = (
        None
        if section is None
        else section.model_dump(mode="json", exclude={"batch_size", *section.told}) | {"identity": identity(section), "layout": LAYOUT}
    )
    with handle.borrow() as model:
        device = device_name(model)
    return {
        "format": FORMAT,
        "model": handle.fingerprint,
        "calibration": calibration.fingerprint,
        "skip_first": calibration.skip_first,
        "text": digest([text.part, *(sequence.tolist() for sequence in text.sequences)]),
        "measure": sweep.measure.model_dump(mode="json"),
        "evaluation": evaluation,
        "device": device if sweep.measure.speed else None,
    }


def _reads_moments(bench: Bench, point: Planned) -> bool:
    fits = point.cut.spans[-1].end <= bench.handle.n_blocks
    return fits and not pipeline.runs_the_model(point.cut, point.section)


def _measured(bench: Bench, points: list[Planned], measurement: Measurement | None, progress: Progress) -> Measurement | None:
    """The measurement at hand if it holds what these points read, else a pass for them; none where they read nothing of it."""
    needed = sorted({point.cut.spans[0] for point in points if _reads_moments(bench, point)})
    if not needed or (measurement is not None and set(needed) <= set(measurement.spans())):
        return measurement
    return measure(bench.handle, bench.calibration, needed, progress)


def plain(found: SweepFolder) -> dict[str, Any]:
    """The sweep as one JSON object; a part of it that was not measured is null."""
    index = asdict(found.index)
    return {**index, "folder": str(found.folder), "results": [asdict(result) for result in found.results]}
