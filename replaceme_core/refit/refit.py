"""Refits: the weights that stay are solved anew, so that the pruned model's stream meets the intact one's. Same shapes, nothing added.

    transform = fit(handle, calibration, Span(6, 9), "sequential_refit")

`refit` solves the carrier's attention output and output projection for the end of the span: the MLP's inner features say more than
its output, which is all that a transform sees. `local_refit` solves the block before the carrier, which does half of the way, and the
block behind the span as well. `sequential_refit` then goes through every later block, each with the pruned
stream as input and the intact stream as target, and may begin some blocks before the carrier (`lookahead`), which then do
their share of the way. `deep_refit` adds gradient steps on all weights of one block after the other, and so is training.
Every step is kept only if it lowers the error on held-out sequences.
"""

import time
from dataclasses import replace
from math import isfinite
from typing import TypeVar

import torch

from replaceme_core import memory
from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import FamilyError, InputError, ModelError, NumericsError
from replaceme_core.measurement.activation_store import ActivationStore
from replaceme_core.models.architecture.families import require_mergeable
from replaceme_core.models.running.limits import require_readable
from replaceme_core.plans.plan import REFIT, MethodSection
from replaceme_core.progress import SILENT, Progress
from replaceme_core.refit.streams import Streams, batch_bytes, stream_bytes
from replaceme_core.refit.walk import IN_SEQUENCE, NEAR, Result, Try, Walk, stop

_Ended = TypeVar("_Ended", Try, Result)
_LOOKAHEADS = (0, 1, 2)
_ITERATIONS = 20
METHODS = (*REFIT, "weighted_least_squares", "drop")
_KNOBS = "fewer calibration tokens (max_tokens) or shorter sequences (max_length)"


def fit(
    handle: ModelHandle,
    calibration: CalibrationSet,
    removed: Span | Cut,
    method: MethodSection | str = "sequential_refit",
    budget_bytes: int | None = None,
    progress: Progress = SILENT,
    store: ActivationStore | None = None,
) -> LinearTransform:
    """New weights for the blocks that stay. Raises `FamilyError` where nothing can be solved, `InputError` for bad settings.

    A cut of several spans is fitted in sequence: a later span sees what the pruned model computes, and aims at the intact one. Of
    the methods that know one span only, weighted least squares (T for every carrier, shrunk toward I) and 'drop' are taken.
    `budget_bytes` is the memory that the streams and what gradient steps remember may take, each; None is half of what is free.
    `store`: of a pass over this model and this set, from which the intact stream is then read instead of computed.
    """
    began = time.perf_counter()
    budget_bytes = memory.spare() if budget_bytes is None else budget_bytes
    cut = (removed if isinstance(removed, Cut) else Cut.of([removed])).check(handle.n_blocks)
    section = MethodSection.parse({"name": method}, f"method '{method}'") if isinstance(method, str) else method
    if section.name not in METHODS or section.structure != "full" or section.ridge is not None:
        raise InputError(
            f"'{section.label}' is not fitted in sequence; choose one of {', '.join(METHODS)}, with the structure 'full' and no ridge of its own."
        )
    require_in_memory(handle)
    deep, iterations = section.name == "deep_refit", section.max_iterations or _ITERATIONS
    family = require_mergeable(handle.family)
    if not calibration.positions:
        require_readable(handle, calibration.sequences)
    calibration, notes = _affordable(calibration, handle, budget_bytes, len(cut.spans))
    if family.merge != "exact" and section.name not in ("deep_refit", "drop"):
        raise FamilyError(
            f"In the family '{family.name}' a norm stands behind every layer, so nothing can be solved in closed form; "
            "choose 'deep_refit', or least squares with the structure 'diagonal'."
        )
    ahead = _lookaheads(cut, section)
    with memory.told("for the refit", _KNOBS):
        ends = {boundary for span in cut.spans for boundary in (span.start, span.end)}
        streams = Streams(
            handle, calibration, cut.spans[0].carrier - max(ahead), ends, stop(cut, section, handle.n_blocks), progress, store
        )
        walk = Walk(handle, cut, streams, section, max(ahead), budget_bytes, progress)
        started, errors = None, {}
        for rank, blocks in enumerate(ahead):
            tried = walk.go(walk.begin(blocks, rank), cut.spans[-1].end)
            started, errors[blocks] = _better(started, tried), tried.error
            del tried  # the streams and weights of two tries are held at a time
        best = walk.result(walk.go(_finite(started), walk.stop))
        if deep:
            best = _finite(_better(best, walk.result(walk.go(walk.begin(best.lookahead, len(ahead), iterations), walk.stop))))
        if len(cut.spans) > 1:  # what removal costs at a later span depends on the spans before it
            cost = walk.result(walk.go(walk.begin(0, 0, solving=False), cut.spans[-1].end)).report
            best = replace(best, report=replace(best.report, removal_error=cost.heldout_error, removal_cosine=cost.heldout_cosine))
    report = replace(best.report, seconds=time.perf_counter() - began, notes=(*best.report.notes, *notes))
    settings = section.model_dump(exclude_none=True, exclude_defaults=True) | {"name": section.name}
    settings |= {"lookahead": best.lookahead} if section.name in IN_SEQUENCE else {}
    first, *others = cut.spans
    return LinearTransform(first, section.label, None, report, settings, best.weights, best.steps, errors, tuple(others))


def require_in_memory(handle: ModelHandle) -> None:
    """A `ModelError` for a model whose weights in memory are not those that would be solved, and written."""
    if handle.checkpoint is not None:
        raise ModelError(
            f"'{handle.name}' is held quantised or spread over devices, and a refit solves the weights themselves. Load the model unquantised "
            "on one device, or choose a transform of one span ('weighted_least_squares'), which merges into the checkpoint."
        )


def _better(best: _Ended | None, found: _Ended) -> _Ended:
    """The one of the lower held-out error; any other goes before one that is not finite."""
    return found if best is None or not isfinite(best.error) or found.error < best.error else best


def _finite(best: _Ended | None) -> _Ended:
    if best is None or not isfinite(best.error):
        raise NumericsError(
            "The stream of the refitted model is not finite (NaN or infinity) on the held-out text. Load the model in float32 or bfloat16 "
            "instead of float16, use more calibration tokens (max_tokens), or choose another span."
        )
    return best


def needed_bytes(width: int, widest: int, dtype: str, n_tokens: int, n_solved: int, n_spans: int = 1) -> int:
    """Memory of a closed-form refit beside the model: streams, the states of one batch, new weights of `n_solved` blocks, one layer's sums.

    The weights of two tries are held at a time; of the layer (`widest`), two Gram matrices and three to decompose one of them, and eight matrices
    of its own shape. Held against what a refit really takes in tests.
    """
    itemsize: int = getattr(torch, dtype).itemsize
    weights = 2 * n_solved * width * (width + widest) * itemsize
    return (
        n_tokens * stream_bytes(width, itemsize, n_spans)
        + batch_bytes(width, widest, n_tokens)
        + weights
        + 8 * widest * (5 * widest + 8 * width)
    )


def n_solved(method: str, n_kept: int, n_spans: int) -> int:
    """Blocks that get new weights, at most, of those that are kept."""
    return n_kept if method in IN_SEQUENCE else min(n_kept, n_spans * (1 + 2 * NEAR.get(method, 0)))


def _lookaheads(cut: Cut, section: MethodSection) -> tuple[int, ...]:
    """The numbers of blocks before the first carrier to try; a later carrier has what room there is."""
    span = cut.spans[0]
    if section.name not in IN_SEQUENCE:
        return (min(NEAR.get(section.name, 0), span.carrier),)
    if section.lookahead is None:
        return tuple(n for n in _LOOKAHEADS if n <= span.carrier)
    if not 0 <= section.lookahead <= span.carrier:
        raise InputError(
            f"A lookahead of {section.lookahead} does not fit the span {span}: there are {span.carrier} blocks before its carrier. "
            f"Choose 0 to {span.carrier}, or none to have it chosen."
        )
    return (section.lookahead,)


def _affordable(
    calibration: CalibrationSet, handle: ModelHandle, budget_bytes: int, n_spans: int
) -> tuple[CalibrationSet, tuple[str, ...]]:
    """The first sequences of each part whose streams fit the budget, and a note if they are not all."""
    most = budget_bytes // stream_bytes(handle.width, getattr(torch, handle.dtype).itemsize, n_spans)
    if calibration.n_tokens <= most:
        return calibration, ()
    kept = calibration.first(most)
    if kept.n_tokens > most:
        raise InputError(
            f"There is memory ({memory.size(budget_bytes)}) for the streams of {most:,} tokens, too few for a train and a held-out "
            "sequence. Free memory, or use shorter sequences (max_length)."
        )
    said = f"The free memory holds the streams of {kept.n_tokens:,} of {calibration.n_tokens:,} tokens; free more of it to use them all."
    return kept, (said,)
