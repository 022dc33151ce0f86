"""Healing, which is training: a pruned variant is trained briefly so that its next-token probabilities meet the original's.

    healed = heal(original, variant, calibration, HealingSection(kind="lora", steps=200))

The loss is KL(original || pruned) per token on the calibration set's train part. `transform` moves T alone, from the variant's
fit on, through the frozen rest; `lora` moves every linear layer of the blocks by an update of low rank. Both are merged at
the end: same shapes, nothing added. The weights of the least held-out KL are kept, and if no step lowers it, the variant
comes back as it was, with a note. Matching hidden states instead of probabilities is not offered: it overfits.
"""

from dataclasses import replace
from pathlib import Path

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle, Variant
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError, ModelError
from replaceme_core.figures import number
from replaceme_core.healing import training
from replaceme_core.healing.healers import HEALERS, RANK, Healer
from replaceme_core.healing.training import Trained
from replaceme_core.healing_report import HealingReport
from replaceme_core.plans.plan import HealingSection
from replaceme_core.progress import SILENT, Progress

_KNOBS = "a smaller batch_tokens, or shorter sequences (max_length)"


def heal(
    original: ModelHandle,
    variant: Variant,
    calibration: CalibrationSet,
    section: HealingSection,
    progress: Progress = SILENT,
    resume_from: Path | None = None,
) -> Variant:
    """The healed variant with its loss curve; original and variant stay as they are.

    `resume_from` is a folder for checkpoints: the training goes on from the one that is there, and leaves new ones while it
    runs. A resumed healing ends, on one thread, with the same bits as one that was never stopped. Raises `InputError` for
    what cannot be healed and `NumericsError` when the loss is no longer finite; then, as when cancelled, nothing is changed.
    """
    _require_healable(original, variant)
    section = section.model_copy(update={"rate": section.rate or default_rate(section.kind, original.width)})
    if section.kind == "lora":
        section = section.model_copy(update={"rank": section.rank or RANK})
    with memory.told("for the healing", _KNOBS):
        healer = HEALERS[section.kind](original, variant, section)
        trained = training.train(original, healer, calibration, section, progress, resume_from)
        report = _report(healer, trained, calibration, section)
        if not report.lowered:
            return replace(variant, healing=report)
        made = healer.healed(healed_name(variant.name, section.kind), variant.recipe | {"healing": section.model_dump(exclude_none=True)})
    transform = replace(made.transform, method=f"{variant.transform.method}, {section.label}")
    return replace(made, transform=transform, healing=report, files=variant.files, distances=variant.distances)


def healed_name(name: str, kind: str) -> str:
    """For example 'demo model, 5:8, weighted least squares, T healed (training)'."""
    return f"{name}, {'LoRA' if kind == 'lora' else 'T'} healed (training)"


def default_rate(kind: str, width: int) -> float:
    """The highest learning rate where none is given. Adam moves every number by about the rate, so it falls with the width."""
    return 0.0128 / width**0.5 if kind == "lora" else 0.3 / width


def _require_healable(original: ModelHandle, variant: Variant) -> None:
    if original.family.inputs != "text":
        raise InputError(
            f"Healing compares next-token probabilities, and '{original.name}' reads images. What is pruned of it is not healed."
        )
    if original.checkpoint is not None or variant.handle.checkpoint is not None:
        raise ModelError(
            f"'{original.name}' is held quantised or spread over devices, and healing trains the weights themselves. "
            "Load the model unquantised on one device."
        )
    if variant.original_fingerprint != original.fingerprint:
        raise InputError(f"The variant '{variant.name}' was not made from '{original.name}'. Load the model that it was made from.")
    if variant.transform.settings.get("separate"):
        raise InputError(
            f"'{variant.name}' keeps T as a layer of its own. Fit it again without 'separate', so that T is merged, and heal that."
        )
    if variant.healing is not None and variant.healing.lowered:
        raise InputError(f"'{variant.name}' is healed already. Heal the pruned model that it came from, with more steps.")


def _report(healer: Healer, trained: Trained, calibration: CalibrationSet, section: HealingSection) -> HealingReport:
    report = HealingReport(
        kind=section.kind,
        steps=section.steps,
        rate=section.rate or 0.0,
        batch_tokens=section.batch_tokens,
        rank=section.rank,
        seed=section.seed,
        n_trained=sum(parameter.numel() for parameter in healer.parameters),
        n_tokens=calibration.n_tokens - calibration.n_heldout_tokens,
        n_heldout_tokens=calibration.n_heldout_tokens,
        calibration_fingerprint=calibration.fingerprint,
        points=trained.points,
        best=trained.best,
        seconds=trained.seconds,
    )
    return replace(report, notes=_notes(report))


def _notes(report: HealingReport) -> tuple[str, ...]:
    knobs = f"a lower rate (now {number(report.rate, 6)}) or more calibration tokens (max_tokens, now {report.n_tokens:,} to train on)"
    if not report.lowered:
        least = min(point.heldout for point in report.points[1:])
        return (
            f"The healing (training) did not lower the held-out KL: {report.before:.4f} before it, {least:.4f} at best after it. "
            f"The pruned model was left as it was. Choose {knobs}.",
        )
    if report.best <= report.steps // 2:
        return (
            f"The held-out KL was least at step {report.best} of {report.steps} and those weights were kept; later steps fitted the "
            f"train part only. Choose {knobs}, or fewer steps.",
        )
    return ()
