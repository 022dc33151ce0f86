"""Variants outlive the server: kept on the disk while they are in the list, and back in it once their model and their text are there again.

A record is known by the model, the calibration set, the session and the name. One that a session of this process has belongs to it; the
others come back to the session that measures their set. On a server that several people share nothing is kept: it would be everybody's.
"""

import hashlib
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from ui.look.systems import CUT, ORIGINAL
from ui.session.access import access
from ui.session.hub import Resident
from ui.session.jobs import Job
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Variant
    from replaceme_core.calibration.calibration import CalibrationSet


def keep(state: Studio, resident: Resident, name: str, like: str = "") -> None:
    """A variant that is in the list from now on; `like` another one of it, made from the same text. What is not kept says why."""
    from replaceme_core.surgery import past_variants

    key = (state.owner, name)
    if access().shared or resident.merges_on_disk:
        return
    known = resident.records.get((state.owner, like))
    of = known.partition("-")[0] if known else _of(resident, state.calibration)
    if not of:
        return
    record = f"{of}-{hashlib.sha256(f'{state.owner} {name}'.encode()).hexdigest()[:16]}"
    resident.unkept[key] = past_variants.keep(resident.handle, resident.variants[key], record)
    resident.records[key] = record


def forget(state: Studio, resident: Resident, name: str) -> None:
    """A variant that is no longer in the list."""
    from replaceme_core.storage import shelf

    record = resident.records.pop((state.owner, name), None)
    resident.unkept.pop((state.owner, name), None)
    if record is not None:
        shelf.remove("variants", record)


def bring_back(state: Studio, resident: Resident, job: Job) -> None:
    """Those of this model and the set that is measured now, made again, which no session of this process has."""
    from replaceme_core.storage import shelf
    from replaceme_core.surgery import past_variants

    of = _of(resident, state.calibration)
    if access().shared or resident.merges_on_disk or not of:
        return
    owned = set(resident.records.values())
    records = [record for record in shelf.keys("variants", f"{of}-") if record not in owned]
    for number, record in enumerate(records):
        job.update(number, len(records), "variants", "making those of earlier sessions again")
        variant = past_variants.found(resident.handle, record)
        if variant is None:
            continue
        name = free_name(state, variant.name)
        if name != variant.name:
            variant = replace(variant, name=name, handle=replace(variant.handle, name=name))
        variant = replace(variant, distances=state.measurement.distances["all"] if state.measurement else None)
        resident.variants[state.owner, name], resident.records[state.owner, name] = variant, record
        if state.calibration_text is not None:
            resident.texts[state.owner, name] = state.calibration_text
        _cut(resident, variant)
        mark(state)


def is_kept(state: Studio, resident: Resident, name: str) -> bool:
    """Whether it comes back when its model is loaded and its text measured again."""
    from replaceme_core.storage import shelf

    record = resident.records.get((state.owner, name))
    return record is not None and record in shelf.keys("variants")


def not_kept(state: Studio) -> list[str]:
    """A sentence for each variant of this session that will be gone with the model."""
    resident = state.resident
    return [said for (owner, _), said in resident.unkept.items() if owner == state.owner and said] if resident is not None else []


def _of(resident: Resident, calibration: "CalibrationSet | None") -> str:
    from replaceme_core.measurement import past_passes

    return past_passes.key_of(resident.handle.fingerprint, calibration) if calibration is not None else ""


def _cut(resident: Resident, variant: "Variant") -> None:
    """The same blocks removed without a transform, which Compare shows beside it."""
    from replaceme_core.artifacts import LinearTransform
    from replaceme_core.surgery import surgery

    cut = variant.transform.cut
    if cut not in resident.cuts:
        recipe = {name: part for name, part in variant.recipe.items() if name != "healing"} | {"method": {"name": "drop"}}
        resident.cuts[cut] = surgery.prune(resident.handle, LinearTransform.removal(cut), CUT, recipe)


def is_taken(state: Studio, name: str) -> bool:
    """Whether a variant has the name, or it is that of one of the two systems that every comparison has."""
    return name in state.variants or name.casefold() in (ORIGINAL, CUT)


def free_name(state: Studio, base: str) -> str:
    """The name, numbered if it is taken already."""
    if not is_taken(state, base):
        return base
    return next(name for number in count(2) if not is_taken(state, name := f"{base} ({number})"))


def mark(state: Studio) -> None:
    """The step of the Fit page has a result."""
    state.mark_done("fit", lambda state: bool(state.variants))
