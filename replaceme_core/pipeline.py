"""READ FIRST: every stage in order, in one screen of code.

    run(PruningPlan.read("plan.yaml"), "runs/first")

load -> calibrate (one pass: distances + moments) -> choose span -> fit -> merge -> (heal) -> export -> compare -> evaluate.
A run is a folder: plan.yaml, report.json, comparison.json, scores.json, model/. It is written under a temporary name and
renamed, so a crash leaves no half run. Only a healing (training) leaves its checkpoint, and the same run goes on from there.
Benchmarks may take hours: their tasks are tried before the pass, and they are asked when the run has its name, so that nothing
that happens to them loses the model. A measurement that fails is a sentence in the report and in `Run.missing`.
"""

import dataclasses
import re
import shlex
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from replaceme_core import healing, refit, solvers
from replaceme_core.artifacts import Cut, DistanceMatrix, LinearTransform, Measurement, ModelHandle, Proof, Span, Variant
from replaceme_core.calibration import images as image_calibration
from replaceme_core.calibration import self_text
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare, places, second_text
from replaceme_core.comparison.compare import Divergence
from replaceme_core.comparison.tails import Tail, Tails
from replaceme_core.comparison.texts import comparison_text
from replaceme_core.distribution import ALONE, Group
from replaceme_core.errors import Cancelled, InputError, PlanError, ReplaceMeError
from replaceme_core.evaluation import evaluate
from replaceme_core.evaluation.evaluate import Scores
from replaceme_core.export.export import export, export_merged, record, reopened, save_measured
from replaceme_core.guard import guarded
from replaceme_core.measurement import needs, past_fits
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.models.chat_template import has_template
from replaceme_core.models.running import limits
from replaceme_core.plans.defaults import Facts, calibration_for, evaluation_for, method_for
from replaceme_core.plans.methods import in_words
from replaceme_core.plans.plan import LEAST_SQUARES, REFIT, CalibrationSection, EvaluationSection, MethodSection, PruningPlan, Structure
from replaceme_core.progress import SILENT, Progress
from replaceme_core.selection import criteria, sinks, spans
from replaceme_core.storage.folders import staged, write_json, writing
from replaceme_core.surgery import checkpoint, patch, surgery


@dataclass(frozen=True, eq=False)
class Run:
    """What a run made; `folder`/model is the export."""

    folder: Path
    original: ModelHandle
    measurement: Measurement
    """under the token weights of the plan's method only"""
    variant: Variant
    comparison: list[Divergence]
    """on test text; empty for models of images, whose logits are no next tokens, and for a text without a test part"""
    scores: list[Scores]
    missing: tuple[str, ...] = ()
    """sentences on what was asked for and could not be measured of the model that was written"""


@guarded
def run(plan: PruningPlan, out: str | Path, progress: Progress = SILENT, group: Group = ALONE) -> Run:
    """Every stage of the method, from a plan to a verified model folder at `out`/model.

    In a group of processes the passes are shared, every process gets the same run, and the leading one writes it.
    """
    _require_alone(plan, group)
    patch.require_merged(plan.method)
    target = Path(out)
    with staged(target) if group.leads else nullcontext(target) as folder:
        plan = plan.model_copy(update={"model": loading.as_stored(plan.model)})
        original = loading.load(plan.model, progress)
        plan = plan.model_copy(update={"method": method_for(plan.method, group.size == 1 and is_refittable(original), original.widest)})
        calibration = filled(plan.calibration, original, plan.model.path, [plan.method])
        plan = plan.model_copy(update={"calibration": calibration, "evaluation": evaluation_for(plan.evaluation, plan.model.path)})
        text, measurement, variant = _pruned(original, plan, target, folder, progress, group)
        pending = (_pending(plan.evaluation, target),) if plan.evaluation else ()
        if group.leads:
            variant = dataclasses.replace(variant, proofs=_write(folder, plan, variant, progress))
        comparison, missing = _compared(original, variant, text, progress)
        variant = dataclasses.replace(variant, missing=(*missing, *pending))
        if group.leads:
            with writing(folder):
                write_json(folder / "comparison.json", [asdict(row) for row in comparison])
                _record(folder, variant, [])
    shutil.rmtree(_checkpoints(target), ignore_errors=True)
    variant = reopened(variant, target / "model", plan)
    scores: list[Scores] = []
    if plan.evaluation is not None:
        scores, failed = _scored((original, variant.handle), plan.evaluation, progress, group)
        missing = (*missing, *failed)
        variant = dataclasses.replace(variant, scores={score.model: score.to_data() for score in scores}, missing=missing)
        missing = (*missing, *(_recorded(target, variant, scores) if group.leads else ()))
    return Run(target, original, measurement, variant, comparison, scores, missing)


def _pruned(
    original: ModelHandle, plan: PruningPlan, target: Path, folder: Path, progress: Progress, group: Group
) -> tuple[TextPart | None, Measurement, Variant]:
    """From the model to the checked variant, and the text to compare on. A variant that is merged on disk is in `folder`/model already."""
    checkpoint.require_rewritable(original)
    if plan.method.name in REFIT or plan.span.more or plan.span.count > 1:
        refit.require_in_memory(original)
    if (named := spans.fixed_cut(plan.span)) is not None:
        surgery.require_expressible(original, named)
    if plan.evaluation is not None:
        evaluate.check(original, plan.evaluation, progress)
    calibration = prepare_for(original, plan.calibration, progress)
    text, lacking = _text(original, plan, calibration)
    measurement, cut, note = _measured(original, calibration, plan, progress, group)
    transform = fit(original, calibration, measurement, cut, plan.method, progress, keep=group.size == 1)
    transform = _noted(_noted(transform, note), lacking)
    name = variant_name(original, transform.method, cut)
    if original.checkpoint is None:
        variant = surgery.prune(original, transform, name, plan.to_data())
    else:
        variant = export_merged(original, transform, name, plan, folder / "model", progress)
    variant = _on_a_second_text(original, plan, variant, progress)
    if plan.healing is not None:
        variant = healing.heal(original, variant, calibration, plan.healing, progress, _checkpoints(target))
    return text, measurement, dataclasses.replace(variant, distances=measurement.distances[plan.span.positions])


def _on_a_second_text(original: ModelHandle, plan: PruningPlan, variant: Variant, progress: Progress) -> Variant:
    """The variant; its report says whether the fit is better than plain removal on a text unlike the calibration set.

    Nothing is measured of the demo, which knows no plain English, of images, of a model that is not cut in memory, and of removal itself.
    """
    transform = variant.transform
    if plan.model.path == "demo" or original.family.inputs != "text" or original.checkpoint is not None or transform.method == "drop":
        return variant
    try:
        removed = surgery.prune(original, LinearTransform.removal(transform.cut), "removed, no transform").handle
        _, said = second_text.verdict(original, variant.handle, removed, progress)
    except InputError as error:
        said = f"The fit was not compared with plain removal on a second text: {error}"
    return dataclasses.replace(variant, transform=_noted(transform, said))


@guarded
def fit(
    original: ModelHandle,
    calibration: CalibrationSet,
    measurement: Measurement | None,
    cut: Span | Cut,
    method: MethodSection,
    progress: Progress = SILENT,
    keep: bool = True,
) -> LinearTransform:
    """From the measurement alone; or, for refits and several spans, by running the model itself, without a measurement.

    A fit that was made before is found again, unless not `keep` (of several processes, each would have its own).
    A span that makes or ends an attention sink is named in the notes of the report, where there is a measurement.
    """
    spans = cut.spans if isinstance(cut, Cut) else (cut,)

    def make() -> LinearTransform:
        if runs_the_model(cut, method):
            store = measurement.store if measurement else None
            return refit.fit(original, calibration, Cut.of(spans), method, progress=progress, store=store)
        assert measurement is not None, "a fit of one span reads its moments"
        return solvers.fit(measurement, spans[0], method, progress=progress)

    known = (original, calibration, measurement, Cut.of(spans), method)
    transform = past_fits.found_or_made(*known, make, progress) if keep else make()
    transform = _noted(transform, calibration.note)
    for change in sinks.changes(measurement.lengths, spans) if measurement is not None else ():
        transform = _noted(transform, change.sentence)
    return transform


def runs_the_model(cut: Span | Cut, method: MethodSection) -> bool:
    """Whether the fit runs the model block by block, so that no moments are needed."""
    return method.name in REFIT or (isinstance(cut, Cut) and len(cut.spans) > 1)


def _measured(
    original: ModelHandle, calibration: CalibrationSet, plan: PruningPlan, progress: Progress, group: Group
) -> tuple[Measurement, Cut, str]:
    """The pass, which stores what the plan reads only, the spans, and a note on how they were chosen."""
    boundaries = needs.boundaries_of(plan, original.n_blocks) if group.size == 1 else ()  # of several processes, each stores its own tokens
    measurement = measure(original, calibration, needs.spans_of(plan, original.n_blocks), progress, group, boundaries=boundaries)
    cut, note = spans.fixed_cut(plan.span), ""
    if cut is None and plan.span.count > 1:
        cut = criteria.several(measurement, plan.span)
    if cut is None:
        structure: Structure = "diagonal" if original.family.merge == "diagonal" else "full"
        measured, said = _costs(original, calibration, measurement, plan, structure, progress)
        span, note = criteria.of_share(measurement, plan.span, structure, measured)
        cut, note = Cut((span,)), f"{note} {said}".strip()
    return measurement, cut.check(original.n_blocks), note


def _costs(
    original: ModelHandle,
    calibration: CalibrationSet,
    measurement: Measurement,
    plan: PruningPlan,
    structure: Structure,
    progress: Progress,
) -> tuple[DistanceMatrix | None, str]:
    """What each place of the plan's length costs with the closed-form T, if the plan chooses by that; and a sentence on the first of them."""
    if plan.span.criterion != "measured_kl":
        return None, ""
    length = spans.length_of_share(measurement.n_blocks, plan.span.share or 0)
    wanted = [point.span for point in spans.profile(measurement.distances["all"], length)]
    method = MethodSection(name=plan.method.name if plan.method.name in LEAST_SQUARES else LEAST_SQUARES[0], structure=structure)
    can_fit = all((span, "end_norm") in measurement.moments for span in wanted)
    try:
        tails = Tails(original, calibration.heldout_text(places.TOKENS, places.LENGTH), progress)
        fitted = places.measured(tails, wanted, (lambda span: solvers.fit(measurement, span, method)) if can_fit else None, progress)
    except InputError as error:
        return None, str(error)
    found = [each for each in fitted if isinstance(each, Tail)]
    if not found:
        return None, " ".join(map(str, fitted[:1]))
    return places.matrix(found, measurement.n_blocks), f"The place was measured: {places.choice(found).sentence}"


def _text(original: ModelHandle, plan: PruningPlan, calibration: CalibrationSet) -> tuple[TextPart | None, str]:
    """What the run is compared on, or a note that it is not."""
    if original.family.inputs != "text":
        return None, ""
    try:
        return comparison_text(original, plan.model.path, calibration), ""
    except InputError as error:
        return None, f"Nothing was compared. {error}"


def _noted(transform: LinearTransform, note: str) -> LinearTransform:
    """The transform, with a note in its report."""
    report = transform.report
    return dataclasses.replace(transform, report=dataclasses.replace(report, notes=(*report.notes, note))) if note else transform


def _write(folder: Path, plan: PruningPlan, variant: Variant, progress: Progress) -> tuple[Proof, ...]:
    """The model and its plan; returns all checks of the exported model. One that was merged on disk is there already."""
    model = folder / "model"
    proofs = variant.proofs if model.is_dir() else export(variant, model, plan.export, progress).proofs
    with writing(folder):
        plan.write(folder / "plan.yaml")
    return proofs


def _compared(
    original: ModelHandle, variant: Variant, text: TextPart | None, progress: Progress
) -> tuple[list[Divergence], tuple[str, ...]]:
    """KL and perplexity of both, or why there are none; nothing where there is no text to compare on."""
    if text is None:
        return [], ()
    try:
        return compare.divergence(original, [variant.handle], text, progress), ()
    except Cancelled:
        raise
    except ReplaceMeError as error:
        return [], (f"The comparison with the original is missing: {error}",)


def _scored(
    handles: tuple[ModelHandle, ModelHandle], section: EvaluationSection, progress: Progress, group: Group
) -> tuple[list[Scores], tuple[str, ...]]:
    """The scores of both models that could be had, and why others could not. In a group the first failure ends it for all."""
    found = evaluate.evaluate_all(handles, section, progress, group)
    missing = tuple(
        f"The benchmarks on '{handle.name}' are missing: {each}"
        for handle, each in zip(handles, found, strict=True)
        if isinstance(each, ReplaceMeError)
    )
    return [each for each in found if not isinstance(each, ReplaceMeError)], missing


def _pending(section: EvaluationSection, target: Path) -> str:
    """What a run says of its benchmarks until they are there, also if it is stopped before."""
    options = {"limit": section.limit, "num-fewshot": section.num_fewshot, "seed": section.seed}
    told = "".join(f" --{name} {value}" for name, value in options.items() if value is not None)
    told += " --apply-chat-template" if section.apply_chat_template else ""
    told += "" if section.fewshot_as_multiturn else " --no-fewshot-as-multiturn"
    told += f" --system-instruction {shlex.quote(section.system_instruction)}" if section.system_instruction else ""
    return (
        f"The benchmarks ({section.tasks}) had not ended when this run was stopped. "
        f"`replaceme evaluate --model {target / 'model'} --tasks {section.tasks}{told}` goes on where they were."
    )


def _record(folder: Path, variant: Variant, scores: list[Scores]) -> None:
    """What is known so far, in the run and beside the model. Raises `OSError`."""
    save_measured(variant, folder / "model", variant.proofs)
    write_json(folder / "report.json", record(variant, variant.proofs))
    write_json(folder / "scores.json", [score.to_data() for score in scores])


def _recorded(target: Path, variant: Variant, scores: list[Scores]) -> tuple[str, ...]:
    """The same in a run that has its name already: it stays whatever happens, so that a full disk is a sentence."""
    try:
        _record(target, variant, scores)
    except OSError as error:
        return (f"The scores could not be written into '{target}' ({error.strerror or error}); they are kept, and not asked again.",)
    return ()


def prepare_for(
    handle: ModelHandle,
    section: CalibrationSection,
    progress: Progress = SILENT,
    texts: Sequence[str] | None = None,
    name: str | None = None,
) -> CalibrationSet:
    """The calibration set that a plan describes: images for a model that reads them; written by the model itself for 'self...'.

    `texts`, and what they are called, in place of the first source.
    """
    if handle.family.inputs == "images":
        if section.skip_first:
            raise PlanError("calibration.skip_first is for text; every position of an image counts, the CLS token too. Leave it out.")
        return image_calibration.prepare(section, handle, progress)
    section, note = within(section, handle)
    first = _own_texts(handle, section, "source", progress) if texts is None else texts
    second = _own_texts(handle, section, "second", progress)
    return dataclasses.replace(prepare(section, handle.tokenizer, first, name, second), note=note)


def _own_texts(handle: ModelHandle, section: CalibrationSection, place: str, progress: Progress) -> list[str] | None:
    """What the model writes itself for one of the two sources of a section; None where that is another text."""
    source: str | None = getattr(section, place)
    if source is None or source.partition(":")[0] != "self":
        return None
    share = section.second_share if place == "second" else 1 - section.second_share if section.second else 1.0
    beside = min(section.test_tokens, section.max_tokens // 4)  # of a text that a model writes slowly, a fifth is the test part
    n_tokens = max(2, round(share * (section.max_tokens + beside)))
    return self_text.own_texts(handle, section.model_copy(update={"source": source, "max_tokens": n_tokens}), progress)


def within(section: CalibrationSection, handle: ModelHandle) -> tuple[CalibrationSection, str]:
    """The section with sequences no longer than the model reads, and a sentence on it if that is shorter than was asked."""
    with handle.borrow() as model:
        most = limits.positions(model)
    if most is None or section.max_length <= most:
        return section, ""
    said = f"Sequences have {most:,} tokens at most and not {section.max_length:,} (max_length): '{handle.name}' was built for no more."
    return section.model_copy(update={"max_length": most}), said


def is_refittable(handle: ModelHandle) -> bool:
    """Whether the weights of its blocks can be solved in closed form."""
    return handle.checkpoint is None and handle.family.merge == "exact"


def filled(section: CalibrationSection, handle: ModelHandle, path: str, methods: Sequence[MethodSection] = ()) -> CalibrationSection:
    """The section with what it leaves out filled in for the model at `path` (see `plans.defaults`)."""
    return calibration_for(section, Facts(path, handle.width, handle.widest, has_template(handle.tokenizer)), methods)


def variant_name(original: ModelHandle, method: str, span: Span | Cut) -> str:
    """For example 'demo model, 6:9, weighted least squares'; a pruned model is unquantised, whatever it was measured on."""
    return f"{re.sub(' in (nf4|int8)$', '', original.name)}, {span}, {in_words(method)}"


def _require_alone(plan: PruningPlan, group: Group) -> None:
    if group.size > 1 and (plan.model.quantisation or plan.model.device == "spread"):
        raise PlanError("A model that is quantised or spread over devices is pruned by one process; start it without torchrun.")
    if group.size > 1 and plan.healing is not None:
        raise PlanError("Healing (training) is done by one process; start it without torchrun, or leave out the section 'healing'.")


def _checkpoints(target: Path) -> Path:
    """Where the healing of a run that is not there yet keeps its state."""
    return target.parent / f".{target.name}.healing"
