"""Pruned models that have a name: kept, called, copied and let go; and the systems that stand beside them in a comparison."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replaceme_core.plans.methods import in_words
from ui.look.figures import cut_text
from ui.look.systems import CUT, ORIGINAL
from ui.session import kept
from ui.session.hub import Resident
from ui.session.jobs import Job
from ui.session.kept import free_name as free_name
from ui.session.kept import is_taken as is_taken
from ui.session.results import Results
from ui.session.state import Studio
from ui.session.work import require_resident, submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, Variant


def recipe_of(state: Studio, transform: "LinearTransform") -> dict[str, Any]:
    """The plan that repeats a fit: plain data for the command line and the model card."""
    from replaceme_core.plans.plan import CalibrationSection, MethodSection, PruningPlan, SpanSection

    resident = require_resident(state)
    return PruningPlan(
        model=resident.section,
        calibration=state.calibration_section or CalibrationSection(),
        span=SpanSection.model_validate(transform.cut.plain()),
        method=MethodSection.parse(transform.settings),
    ).to_data()


def keep_variant(state: Studio, name: str, transform: "LinearTransform", folder: str | None = None) -> Job:
    """Merge the transform, prove the result, and keep it under `name`.

    A model held quantised or spread is merged on disk, into the new `folder`; no cut is made of it.
    """
    resident, recipe, given = require_resident(state), recipe_of(state, transform), state.calibration_text
    if folder is None:
        return submit(state, f"Keeping '{name}'", lambda job: keep_now(state, resident, name, transform, job), lane="short")
    distances = state.measurement.distances["all"] if state.measurement else None

    def work(job: Job) -> None:
        from replaceme_core.export import export
        from replaceme_core.plans.plan import PruningPlan

        key = (state.owner, name)
        plan = PruningPlan.parse(recipe)
        variant = replace(export.export_merged(resident.handle, transform, name, plan, folder, job), distances=distances)
        export.save_record(variant, Path(folder), variant.proofs)
        resident.folders[key] = Path(folder)
        state.slot(Results).exports.append((variant.handle.fingerprint, export.listed(Path(folder), variant.proofs)))
        if given is not None:
            resident.texts[key] = given
        resident.variants[key] = variant
        kept.mark(state)

    return submit(state, f"Keeping '{name}'", work)


def keep_now(state: Studio, resident: Resident, name: str, transform: "LinearTransform", job: Job) -> "Variant":
    """Inside a job: merge in memory, prove, keep, and make the cut without transform that it is compared with."""
    from replaceme_core.surgery import surgery

    job.update(0, 2, "steps", "merging and checking")
    variant = surgery.prune(resident.handle, transform, name, recipe_of(state, transform))
    variant = replace(variant, distances=state.measurement.distances["all"] if state.measurement else None)
    given = state.calibration_text
    cut_of(state, resident, transform.cut, job)
    job.update(2, 2, "steps", "kept")  # the last moment to cancel: what is not wanted is not kept
    if given is not None:
        resident.texts[(state.owner, name)] = given
    put(state, resident, variant)
    return variant


def put(state: Studio, resident: Resident, variant: "Variant", like: str = "") -> None:
    """Into the list, and onto the disk for after a restart (`like` another one, made from the same text)."""
    resident.variants[(state.owner, variant.name)] = variant
    kept.keep(state, resident, variant.name, like)
    kept.mark(state)


def cut_of(state: Studio, resident: Resident, cut: "Cut", job: Job) -> "Variant":
    """The same blocks removed without a transform, made once per cut."""
    from replaceme_core.artifacts import LinearTransform
    from replaceme_core.surgery import surgery

    if cut not in resident.cuts:
        job.update(1, 2, "steps", "removing the blocks without a transform")
        transform = LinearTransform.removal(cut)
        resident.cuts[cut] = surgery.prune(resident.handle, transform, CUT, recipe_of(state, transform))
    return resident.cuts[cut]


def systems(state: Studio, names: list[str]) -> dict[str, "ModelHandle"]:
    """What the columns show: the original, the cut of the first variant's span, and the named variants."""
    resident, variants = require_resident(state), state.variants
    chosen = [variants[name] for name in names if name in variants]
    columns: dict[str, ModelHandle] = {ORIGINAL: resident.handle}
    if chosen:
        cut = resident.cuts.get(chosen[0].transform.cut)
        if cut is not None:
            columns[CUT] = cut.handle
    columns.update({variant.name: variant.handle for variant in chosen})
    return columns


def variant_name(cut: "Cut", method: str) -> str:
    """'blocks 5–7, weighted': what a variant is called unless a person says otherwise."""
    places = cut_text(cut, " and ").replace("blocks ", "").replace("block ", "")
    return f"blocks {places}, {short_name(method)}"


def short_name(method: str) -> str:
    """'weighted', 'plain', 'weighted diagonal', ...: the method in a variant's name."""
    return " ".join(in_words(method).replace("least squares", "").split()) or "plain"


def rename(state: Studio, resident: Resident, old: str, new: str) -> None:
    """Under the new name everywhere: the list, the columns of Compare, the recipe's folder and text."""
    before, after = (state.owner, old), (state.owner, new)
    resident.variants[after] = _named(resident.variants.pop(before), new)
    for table in (resident.folders, resident.texts):
        if before in table:
            table[after] = table.pop(before)  # type: ignore[index, assignment]
    kept.keep(state, resident, new, like=old)
    kept.forget(state, resident, old)


def duplicate(state: Studio, resident: Resident, name: str) -> str:
    """A second variant with the same weights; they are shared, not copied. Returns its name."""
    copy = free_name(state, name)
    resident.variants[state.owner, copy] = _named(resident.variants[state.owner, name], copy)
    if (state.owner, name) in resident.texts:
        resident.texts[state.owner, copy] = resident.texts[state.owner, name]
    kept.keep(state, resident, copy, like=name)
    return copy


def delete(state: Studio, resident: Resident, name: str) -> None:
    """Forget a variant; its memory is given back with its last copy."""
    for table in (resident.variants, resident.folders, resident.texts):
        table.pop((state.owner, name), None)
    kept.forget(state, resident, name)


def put_last(state: Studio, name: str) -> None:
    """Make a variant that is kept already the newest, which is what the pages after this one show first."""
    resident = state.resident
    if resident is not None and (state.owner, name) in resident.variants:
        resident.variants[(state.owner, name)] = resident.variants.pop((state.owner, name))


def _named(variant: "Variant", name: str) -> "Variant":
    return replace(variant, name=name, handle=replace(variant.handle, name=name))
