"""What a plan would do and need, from the configuration alone: no weights are read, no text is tokenised."""

import math
from dataclasses import dataclass

from replaceme_core import refit
from replaceme_core.feasible import Promised, require_fits, runs_the_model
from replaceme_core.guard import guarded
from replaceme_core.measurement import needs, past_passes
from replaceme_core.measurement.preflight import Preflight, preflight
from replaceme_core.plans.defaults import Facts, calibration_for, method_for
from replaceme_core.plans.plan import ExportSection, PruningPlan
from replaceme_core.selection.spans import fixed_cut, length_of_share

_DEVICES = (24, 48, 80, 141)
"""GiB of usual devices"""


@dataclass(frozen=True)
class DryRun:
    """Sizes in bytes."""

    architecture: str
    merge: str
    reason: str
    n_blocks: int
    n_removed: int
    n_parameters: int
    weights_bytes: int
    pass_bytes: int
    """what the calibration pass needs beside the weights"""
    fit_bytes: int
    """what a refit, or a fit of several spans, needs beside the weights; 0 for what is solved from the pass"""
    stored_bytes: int
    """what the pass writes into the cache folder"""
    room_bytes: int
    """what there is room for"""
    calibration_tokens: int
    export_bytes: int
    export_files: int
    """of weights, at the plan's max_shard_size"""
    devices: dict[str, int]
    """memory of a device -> how many such devices hold the weights, in whole blocks; a tenth of each is left for the states"""
    fits: bool
    verdict: str

    def lines(self) -> str:
        """For people."""
        return "\n".join(
            (
                f"model        {self.architecture}, {self.n_blocks} blocks, {self.n_parameters:,} parameters; merge: {self.merge} ({self.reason})",
                f"memory       weights {_gib(self.weights_bytes)}, calibration pass {_gib(self.pass_bytes)}: {self.verdict}",
                *(
                    [f"fit          {_gib(self.fit_bytes)}: runs the blocks from the first that is solved on, one by one"]
                    if self.fit_bytes
                    else []
                ),
                f"calibration  {self.calibration_tokens:,} tokens; {self._stored()}",
                f"removes      {self.n_removed} of {self.n_blocks} blocks; the export takes about {_gib(self.export_bytes)} in {self.export_files} "
                f"file{'s' if self.export_files > 1 else ''}",
                *([f"spread over  {_listed(self.devices)} (device: spread)"] if max(self.devices.values()) > 1 else []),
            )
        )

    def _stored(self) -> str:
        if not self.stored_bytes:
            return "stores nothing"
        knob = "a refit reads the model once more instead" if self.fit_bytes else "use fewer tokens, or another disk (REPLACEME_CACHE)"
        short = "" if self.stored_bytes <= self.room_bytes else f" - too little: {knob}"
        return f"stores {_gib(self.stored_bytes)} of activations on the disk, which has room for {_gib(self.room_bytes)}{short}"


@guarded
def dry_run(plan: PruningPlan) -> DryRun:
    """The sizes of a plan. What healing and gradient steps take is not among them.

    Raises what the run would raise before its pass: a `SpanError` for a span that does not fit the model, and what `feasible.require_fits` says.
    """
    found = preflight(plan.model)
    held = plan.model.quantisation or ("spread" if plan.model.device == "spread" else None)
    can_refit = found.merge == "exact" and held is None
    plan = plan.model_copy(update={"method": method_for(plan.method, can_refit, found.widest, found.merge)})
    facts = Facts(plan.model.path, found.width, found.widest, is_chat=False)  # only the number of tokens is read of what this fills in
    plan = plan.model_copy(update={"calibration": calibration_for(plan.calibration, facts, [plan.method])})
    cut = fixed_cut(plan.span)
    removed = len(cut.check(found.n_blocks)) if cut else length_of_share(found.n_blocks, plan.span.share or 0)
    n_spans = len(cut.spans) if cut else plan.span.count
    require_fits(Promised(plan.model.path, found.family, found.width, held), plan.method, n_spans, cut)
    refitted = runs_the_model(cut, plan.method, n_spans)
    stored = needs.stored(plan, found.n_blocks, found.width, found.dtype)
    dtype = (plan.export.dtype if plan.export else None) or found.dtype
    export = found.bytes_by_dtype[dtype] - removed * found.block_parameters * found.bytes_by_dtype[dtype] // found.n_parameters
    return DryRun(
        architecture=found.architecture,
        merge=found.merge,
        reason=found.reason,
        n_blocks=found.n_blocks,
        n_removed=removed,
        n_parameters=found.n_parameters,
        weights_bytes=found.weights_bytes,
        pass_bytes=needs.pass_bytes(found.n_blocks, found.width),
        stored_bytes=stored.n_bytes,
        room_bytes=past_passes.room(),
        fit_bytes=_refit_bytes(found, plan, n_spans, removed) if refitted else 0,
        calibration_tokens=plan.calibration.max_tokens,
        export_bytes=export,
        export_files=max(1, math.ceil(export / _shard(plan))),
        devices={f"{gib} GiB": _devices(found, gib * 2**30) for gib in _DEVICES},
        fits=found.fits,
        verdict=found.verdict,
    )


def _shard(plan: PruningPlan) -> float:
    """Bytes of one file at most, as transformers reads '5GB' (decimal) and '5GiB' (binary)."""
    text = (plan.export or ExportSection()).max_shard_size.replace(" ", "")
    number, unit = text.rstrip("KMGiB"), text.lstrip("0123456789.")
    return float(number) * math.pow(1024 if "i" in unit else 1000, "KMG".index(unit[0]) + 1)


def _devices(found: Preflight, size: int) -> int:
    """How many devices of that size hold the weights, block by block; what is no block (embeddings, head) lies on the first."""
    block = found.weights_bytes * found.block_parameters / found.n_parameters
    most, left = 0.9 * size, 0.9 * size - (found.weights_bytes - block * found.n_blocks)
    first = max(0, int(left // block))
    return 1 if first >= found.n_blocks else 1 + math.ceil((found.n_blocks - first) / max(1, int(most // block)))


def _listed(devices: dict[str, int]) -> str:
    return ", ".join(f"{number} of {size}" for size, number in devices.items())


def _refit_bytes(found: Preflight, plan: PruningPlan, n_spans: int, n_removed: int) -> int:
    return refit.needed_bytes(plan.method.name, found, plan.calibration.max_tokens, found.n_blocks - n_removed, n_spans)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
