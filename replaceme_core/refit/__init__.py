"""Refits: the weights that stay are solved anew, so that the pruned model's stream meets the intact one's. Same shapes, nothing added.

    transform = fit(handle, calibration, Span(6, 9), "sequential_refit")

`refit` solves the carrier's attention output and writer for the end of the span: the writer's inner features say more than
its output, which is all that a transform sees. `sequential_refit` then goes through every later block, each with the pruned
stream as input and the intact stream as target, and may begin some blocks before the carrier (`lookahead`), which then do
their share of the way. `deep_refit` adds gradient steps on all weights of one block after the other, and so is training.
Every step is kept only if it lowers the error on held-out sequences.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from replaceme_core import memory, surgery
from replaceme_core.artifacts import FitReport, LinearTransform, ModelHandle, RefitStep, Span
from replaceme_core.budget import DEFAULT_BUDGET
from replaceme_core.calibration import CalibrationSet
from replaceme_core.errors import FamilyError, InputError, ModelError
from replaceme_core.families import blocks_of, require_mergeable
from replaceme_core.plan import REFIT, MethodSection
from replaceme_core.progress import SILENT, Progress
from replaceme_core.refit import descent, evidence
from replaceme_core.refit.layers import Layer, layers_of
from replaceme_core.refit.streams import Streams, stream_bytes
from replaceme_core.refit.update import UpdateSums, solve

_LOOKAHEADS = (0, 1, 2)
_SWEEPS = 2
_ITERATIONS = 20
_KNOBS = "fewer calibration tokens (max_tokens) or a smaller memory budget (budget_gib)"


def fit(
    handle: ModelHandle,
    calibration: CalibrationSet,
    span: Span,
    method: MethodSection | str = "sequential_refit",
    budget_bytes: int = DEFAULT_BUDGET,
    progress: Progress = SILENT,
) -> LinearTransform:
    """New weights for the blocks that stay. Raises `FamilyError` where nothing can be solved, `InputError` for bad settings."""
    began = time.perf_counter()
    span = span.check(handle.n_blocks)
    section = MethodSection.parse({"name": method}, f"method '{method}'") if isinstance(method, str) else method
    if section.name not in REFIT:
        raise InputError(f"'{section.name}' is no refit; choose one of {', '.join(REFIT)}.")
    if handle.checkpoint is not None:
        raise ModelError(
            f"'{handle.name}' is held quantised or spread over devices, and a refit solves the weights themselves. Load the model unquantised "
            "on one device, or choose a transform ('weighted_least_squares'), which merges into the checkpoint."
        )
    deep = section.name == "deep_refit"
    family = require_mergeable(handle.family)
    calibration, notes = _affordable(calibration, handle, budget_bytes)
    if family.merge != "exact" and not deep:
        raise FamilyError(
            f"In the family '{family.name}' a norm stands behind every layer, so nothing can be solved in closed form; "
            "choose 'deep_refit', or least squares with the structure 'diagonal'."
        )
    ahead = _lookaheads(span, section)
    with memory.told("for the refit", _KNOBS):
        streams = Streams(handle, calibration, span.carrier - max(ahead), {span.carrier, span.start, span.end}, progress)
        walk = _Walk(handle, span, streams, section, budget_bytes, progress)
        tried = [walk.through(blocks, rank) for rank, blocks in enumerate(ahead)]
        best = min(tried, key=lambda result: result.final)
        if deep:
            moved = walk.through(best.lookahead, len(ahead), section.max_iterations or _ITERATIONS)
            best = min(best, moved, key=lambda result: result.final)
    report = replace(best.report, seconds=time.perf_counter() - began, notes=(*best.report.notes, *notes))
    settings = section.model_dump(exclude_none=True, exclude_defaults=True) | {"name": section.name}
    settings |= {} if section.name == "refit" else {"lookahead": best.lookahead}
    finals = {result.lookahead: result.final for result in tried}
    return LinearTransform(span, section.label, None, report, settings, best.weights, best.steps, finals)


def needed_bytes(handle: ModelHandle, n_tokens: int) -> int:
    """Memory of a closed-form refit beside the model: the streams, and the sums of its largest layer with room to solve them."""
    inner, itemsize = handle.widest, getattr(torch, handle.dtype).itemsize
    return n_tokens * stream_bytes(handle.width, itemsize) + 8 * inner * (5 * inner + 6 * handle.width)


@dataclass(frozen=True, eq=False)
class _Result:
    lookahead: int
    final: float
    """held-out error at the last boundary"""
    report: FitReport
    weights: dict[str, Tensor]
    steps: tuple[RefitStep, ...]


class _Walk:
    """One way through the blocks that stay, from the first that is solved to the last."""

    def __init__(
        self, handle: ModelHandle, span: Span, streams: Streams, section: MethodSection, budget_bytes: int, progress: Progress
    ) -> None:
        with handle.borrow() as model:
            self._model: Any = model
        self._family, self._span, self._streams = handle.family, span, streams
        self._section, self._budget, self._progress = section, budget_bytes, progress
        self._intact = blocks_of(self._model, handle.family)
        self._kept = [index for index in range(len(self._intact)) if index not in span.blocks]
        self._start = span.carrier - max(_lookaheads(span, section))

    def through(self, lookahead: int, rank: int, iterations: int = 0) -> _Result:
        """A copy of the model is cut, solved block by block, and thrown away but for its new weights."""
        pruned = blocks_of(surgery.cut(self._model, self._family, self._span), self._family)
        self._streams.restart(self._start)
        steps: list[RefitStep] = []
        report: FitReport | None = None
        for place, number in enumerate(self._kept):
            if number < self._start:
                continue
            if number == self._span.carrier:
                before = evidence.at_the_cut(self._streams, self._intact[number], number, self._span.end)
            after = self._kept[place + 1] if place + 1 < len(self._kept) else len(self._intact)
            for index in range(number, after):
                self._streams.advance_intact(self._intact[index], index)
            if self._solved(number, lookahead):
                self._tell(rank, place, number)
                steps += self._block(pruned[place], number, self._targets(number, lookahead), iterations)
            self._streams.advance_pruned(pruned[place], number)
            if number == self._span.carrier:
                report = evidence.report(self._streams, before, self._span, steps)
        assert report is not None
        weights = {
            f"{number}.{name}": new.detach()
            for place, number in enumerate(self._kept)
            for (name, new), old in zip(pruned[place].named_parameters(), self._intact[number].parameters(), strict=True)
            if new is not old
        }
        final = evidence.error(self._streams, [batch.intact for batch in self._streams.batches])
        return _Result(lookahead, final, replace(report, unknowns=sum(w.numel() for w in weights.values())), weights, tuple(steps))

    def _solved(self, number: int, lookahead: int) -> bool:
        return self._span.carrier - lookahead <= number and (number <= self._span.carrier or self._section.name != "refit")

    def _targets(self, number: int, lookahead: int) -> list[Tensor]:
        """The intact stream; before the carrier with a growing share of what the span does to it."""
        share = (number - self._span.carrier + lookahead + 1) / (lookahead + 1) if number < self._span.carrier else 0.0
        ends = (self._span.start, self._span.end)
        return [b.intact if share == 0 else b.intact + share * (b.at[ends[1]] - b.at[ends[0]]) for b in self._streams.batches]

    def _block(self, block: nn.Module, number: int, targets: list[Tensor], iterations: int) -> list[RefitStep]:
        """Solves a block's layers in turn. What a change really did is seen when the next one is prepared; if it did harm, it is taken back."""
        trial = _Trial(self._streams, block, number, targets)
        for sweep in range(_SWEEPS):
            for layer in layers_of(self._model, block, self._family, self._section.attention):
                train, heldout = trial.sums(layer)
                update = solve(train, heldout, layer.weight)
                if update.change is not None:
                    trial.make(RefitStep(number, layer.part, update.ridge, update.before, update.after, update.condition))
                    layer.put(update.change)
            if sweep == 0 and iterations:
                trial.settle(evidence.block_error(self._streams, block, number, targets))
                before, after = descent.descend(self._streams, block, number, targets, iterations, self._budget)
                trial.steps.append(RefitStep(number, "all weights, by gradient", None, before, after))
        trial.settle(evidence.block_error(self._streams, block, number, targets))
        return trial.steps

    def _tell(self, rank: int, place: int, number: int) -> None:
        total = len(self._kept) - self._kept.index(self._start)
        done = place - self._kept.index(self._start)
        self._progress.update(done, total, "blocks", f"refitting block {number}" + (f" (try {rank + 1})" if rank else ""))


class _Trial:
    """The changes of one block so far; the last one is on trial until its effect is measured."""

    def __init__(self, streams: Streams, block: nn.Module, number: int, targets: list[Tensor]) -> None:
        self._streams, self._block, self._number, self._targets = streams, block, number, targets
        self._pending: tuple[RefitStep, dict[str, nn.Parameter]] | None = None
        self.steps: list[RefitStep] = []

    def sums(self, layer: Layer) -> tuple[UpdateSums, UpdateSums]:
        """Of the block as it is, after a change that did harm was taken back."""
        found = evidence.sums(self._streams, self._block, self._number, layer, self._targets)
        if self.settle(found[1].error(None)):
            return found
        return evidence.sums(self._streams, self._block, self._number, layer, self._targets)

    def make(self, step: RefitStep) -> None:
        self._pending = step, dict(self._block.named_parameters())

    def settle(self, now: float) -> bool:
        """Keeps the pending change if the held-out error `now` is below what it was; False if it was taken back."""
        pending, self._pending = self._pending, None
        if pending is None:
            return True
        step, old = pending
        if now < step.before:
            self.steps.append(replace(step, after=now))
            return True
        for name, value in old.items():
            parent, _, leaf = name.rpartition(".")
            setattr(self._block.get_submodule(parent), leaf, value)
        return False


def _lookaheads(span: Span, section: MethodSection) -> tuple[int, ...]:
    """The numbers of blocks before the carrier to try."""
    if section.name == "refit":
        return (0,)
    if section.lookahead is None:
        return tuple(n for n in _LOOKAHEADS if n <= span.carrier)
    if not 0 <= section.lookahead <= span.carrier:
        raise InputError(
            f"A lookahead of {section.lookahead} does not fit the span {span}: there are {span.carrier} blocks before its carrier. "
            f"Choose 0 to {span.carrier}, or none to have it chosen."
        )
    return (section.lookahead,)


def _affordable(calibration: CalibrationSet, handle: ModelHandle, budget_bytes: int) -> tuple[CalibrationSet, tuple[str, ...]]:
    """The first sequences whose streams fit the budget, and a note if they are not all. The set is shuffled already."""
    most = budget_bytes // stream_bytes(handle.width, getattr(torch, handle.dtype).itemsize)
    total, count = 0, 0
    for length in calibration.lengths:
        if total + length > most:
            break
        total, count = total + length, count + 1
    if count == len(calibration.lengths):
        return calibration, ()
    if not {True, False} <= set(calibration.heldout[:count]):
        raise InputError(
            f"The memory budget of {memory.size(budget_bytes)} holds the streams of {most:,} tokens, too few for a train and a held-out "
            "sequence. Raise it (budget_gib), or use shorter sequences (max_length)."
        )
    kept = replace(calibration, sequences=calibration.sequences[:count], heldout=calibration.heldout[:count])
    said = f"The memory budget holds the streams of {total:,} of {calibration.n_tokens:,} tokens; raise it (budget_gib) to use them all."
    return kept, (said,)
