"""Refits: the weights that stay are solved anew, so that the pruned model's stream meets the intact one's. Same shapes, nothing added.

    transform = fit(handle, calibration, Span(6, 9), "sequential_refit")

`refit` solves the carrier's attention output and output projection for the end of the span: the MLP's inner features say more than
its output, which is all that a transform sees. `local_refit` solves the block behind the span as well, and the one before the carrier,
which does half of the way, unless that misses the end of the span by more (the way to an attention sink has no half). `exchange_refit` first puts neurons
of the removed blocks into these three, in the place of those that matter least. `sequential_refit` solves what `local_refit` does, then goes through every later block, each with the pruned
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
from replaceme_core.errors import InputError, NumericsError
from replaceme_core.measurement.activation_store import ActivationStore
from replaceme_core.models.running.limits import require_readable
from replaceme_core.plans.plan import MethodSection
from replaceme_core.progress import SILENT, Progress
from replaceme_core.refit.requirements import lookaheads, require_fits
from replaceme_core.refit.streams import Streams, stream_bytes
from replaceme_core.refit.walk import IN_SEQUENCE, Result, Try, Walk, stop

_Ended = TypeVar("_Ended", Try, Result)
_ITERATIONS = 20
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
    require_fits(handle, section, len(cut.spans), cut)
    deep, iterations = section.name == "deep_refit", section.max_iterations or _ITERATIONS
    if not calibration.positions:
        require_readable(handle, calibration.sequences)
    calibration, notes = _affordable(calibration, handle, budget_bytes, len(cut.spans))
    ahead = lookaheads(cut, section)
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
    report = replace(
        best.report,
        seconds=time.perf_counter() - began,
        notes=(*best.report.notes, *notes),
        remarks=(*_on_the_way(section, best, errors), *best.report.remarks),
    )
    settings = section.model_dump(exclude_none=True, exclude_defaults=True) | {"name": section.name}
    settings |= {"lookahead": best.lookahead} if section.name in IN_SEQUENCE else {}
    first, *others = cut.spans
    return LinearTransform(first, section.label, None, report, settings, best.weights, best.steps, errors, tuple(others))


def _on_the_way(section: MethodSection, best: Result, errors: dict[int, float]) -> tuple[str, ...]:
    """Why a refit around the cut leaves the block before the carrier alone, where it does and there is one."""
    if section.name in IN_SEQUENCE or len(errors) == 1 or best.lookahead:
        return ()
    said = f"with a part of the way in it the end of the cut would be missed by {errors[max(errors)]:.1%} instead of {errors[0]:.1%}"
    return (f"The block before the carrier is left as it is: {said} (held-out).",)


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
