"""Ways through the blocks that stay: each is solved toward the intact stream, from the first that is solved to the last."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

from torch import Tensor, nn

from replaceme_core.artifacts import Cut, FitReport, ModelHandle, RefitStep
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.plans.plan import REFIT, MethodSection
from replaceme_core.progress import Progress
from replaceme_core.refit import gradient_steps, report
from replaceme_core.refit.exchange import exchange
from replaceme_core.refit.layers import Layer, layers_of, output_of
from replaceme_core.refit.neurons import NotExchanged
from replaceme_core.refit.streams import Streams, Targets
from replaceme_core.refit.update import Update, solve
from replaceme_core.surgery import surgery

_SWEEPS = 2
NEAR = {"refit": 0, "local_refit": 1, "exchange_refit": 1}
"""the refits that stay near the cut, and how many blocks before the carrier and behind the span they solve"""
IN_SEQUENCE = tuple(name for name in REFIT if name not in NEAR)
"""the methods that go on to the last block"""
EXCHANGING = ("exchange_refit",)
"""the methods that take neurons of the removed blocks"""


@dataclass(frozen=True, eq=False)
class Result:
    lookahead: int
    error: float
    """held-out, where the walk ended"""
    report: FitReport
    weights: dict[str, Tensor]
    steps: tuple[RefitStep, ...]


@dataclass(eq=False)
class Try:
    """One way, as far as it has come."""

    lookahead: int
    rank: int
    """how many were tried before it"""
    copy: Any
    """the cut model, its blocks solved up to here"""
    shared: list[dict[str, nn.Parameter]]
    """the weights that it began with, by place"""
    iterations: int = 0
    solving: bool = True
    place: int = 0
    """the next of the blocks that are kept"""
    at: int = 0
    """the boundary that it has come to"""
    error: float = inf
    """held-out, at this boundary"""
    pruned: list[Tensor] = field(default_factory=list)
    steps: list[RefitStep] = field(default_factory=list)
    reports: list[FitReport] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Walk:
    """Ways through the blocks that stay, from the first that is solved on."""

    def __init__(
        self,
        handle: ModelHandle,
        cut: Cut,
        streams: Streams,
        section: MethodSection,
        most_ahead: int,
        budget_bytes: int,
        progress: Progress,
    ) -> None:
        self._handle, self._family, self._cut, self._streams = handle, handle.family, cut, streams
        self._section, self._budget, self._progress = section, budget_bytes, progress
        with handle.borrow() as model:
            self._intact = blocks_of(model, handle.family)
        self._kept = cut.kept(len(self._intact))
        self._start = cut.spans[0].carrier - most_ahead
        self._carried = {span.carrier: span for span in cut.spans}
        self.stop = stop(cut, section, len(self._intact))

    def begin(self, lookahead: int, rank: int, iterations: int = 0, solving: bool = True) -> Try:
        """A copy of the model is cut, to be solved block by block, and thrown away but for its new weights."""
        with self._handle.borrow() as model:  # others may have hooks on it, or weights of their own in its blocks while they run it
            copy: Any = surgery.opened(model, self._family, self._cut)
        shared = [dict(block.named_parameters()) for block in blocks_of(copy, self._family)]
        return Try(lookahead, rank, copy, shared, iterations, solving, self._kept.index(self._start), self._start)

    def go(self, tried: Try, boundary: int) -> Try:
        """On to a boundary of the original that the streams were read at."""
        pruned = blocks_of(tried.copy, self._family)
        self._streams.back_to(tried.at, tried.pruned)
        while tried.at < boundary:
            place, number = tried.place, self._kept[tried.place]
            span = self._carried.get(number)
            before = report.at_the_cut(self._streams, self._intact[number], number, span.end) if span else {}
            after = self._kept[place + 1] if place + 1 < len(self._kept) else len(self._intact)
            self._streams.advance_intact(list(self._intact), number, after)
            outputs = None
            if tried.solving and solves(self._section.name, self._cut, number, tried.lookahead):
                self._tell(tried.rank, place, number)
                solved, outputs = self._block(tried, pruned[place], number)
                tried.steps += solved
            self._streams.advance_pruned(outputs or self._streams.outputs(pruned[place], number))
            del outputs
            if span:
                steps = tried.steps if tried.solving and self._section.name != "drop" else None
                tried.reports.append(report.report(self._streams, before, span, steps))
            tried.place, tried.at = place + 1, after
        tried.pruned = [batch.pruned for batch in self._streams.batches]
        tried.error = report.error(self._streams, lambda batch: batch.intact)
        return tried

    def result(self, tried: Try) -> Result:
        """What has become of it where it is."""
        weights = {
            f"{number}.{name}": new.detach()
            for (place, number), block in zip(enumerate(self._kept), blocks_of(tried.copy, self._family), strict=True)
            for name, new in block.named_parameters()
            if new is not tried.shared[place][name]
        }
        found = report.together(tried.reports, sum(weight.numel() for weight in weights.values()))
        found = replace(found, remarks=tuple(tried.remarks))
        return Result(tried.lookahead, tried.error, found, weights, tuple(tried.steps))

    def _targets(self, number: int, lookahead: int) -> Targets:
        """The intact stream; before a carrier with a growing share of what its span does to it."""
        ahead = next((span for span in self._cut.spans if span.carrier - lookahead <= number < span.carrier), None)
        if ahead is None or number in self._carried:
            return lambda batch: batch.intact
        share, start, end = (number - ahead.carrier + lookahead + 1) / (lookahead + 1), ahead.start, ahead.end
        return lambda batch: batch.intact + share * (batch.at[end] - batch.at[start])

    def _block(self, tried: Try, block: nn.Module, number: int) -> tuple[list[RefitStep], list[Tensor] | None]:
        """Solves a block's layers in turn. What a change really did is seen when the next one is prepared; if it did harm, it is taken back.

        The steps, and what the block then makes of the pruned stream; None where the last change was taken back.
        """
        targets, iterations = self._targets(number, tried.lookahead), tried.iterations
        trial = Trial(self._streams, block, number, targets)
        if self._section.name in EXCHANGING:
            tried.remarks += self._exchange(trial, block, number, targets, partial(self._tell, tried.rank, tried.place, number))
        sweeps = _SWEEPS if iterations or len(self._layers(tried.copy, block)) > 1 else 1  # one layer alone is solved for good
        for sweep in range(sweeps):
            for layer in self._layers(tried.copy, block):
                update = trial.update(layer)
                if update.change is not None:
                    trial.make(RefitStep(number, layer.part, update.ridge, update.before, update.after, update.condition))
                    layer.put(update.change)
            if sweep == 0 and iterations:
                trial.settle(self._error(block, number, targets)[0])
                before, after = gradient_steps.descend(self._streams, block, number, targets, iterations, self._budget)
                trial.steps.append(RefitStep(number, "all weights, by gradient", None, before, after))
        error, outputs = self._error(block, number, targets)
        return trial.steps, (outputs if trial.settle(error) else None)

    def _exchange(self, trial: "Trial", block: nn.Module, number: int, targets: Targets, tell: Callable[[str], None]) -> list[str]:
        """Neurons of the removed blocks into a block that stays, on trial; or the reason why not."""
        donors = [self._intact[removed] for removed in self._cut.blocks]
        try:
            found = exchange(self._streams, block, number, donors, targets, tell)
        except NotExchanged as why:
            return [f"Block {number} keeps its own neurons: {why}."]
        trial.make(RefitStep(number, "neurons", found.ridge, found.before, found.after, own_neurons=found.n_own))
        found.put(block)
        return []

    def _error(self, block: nn.Module, number: int, targets: Targets) -> tuple[float, list[Tensor]]:
        """Held-out error of a block as it is, and its outputs."""
        outputs = self._streams.outputs(block, number)
        return report.block_error(self._streams, outputs, targets), outputs

    def _layers(self, copy: Any, block: nn.Module) -> list[Layer]:
        if self._section.name in REFIT:
            return layers_of(copy, block, self._family, self._section.attention)
        return [output_of(copy, block, self._family)]

    def _tell(self, rank: int, place: int, number: int, detail: str = "") -> None:
        total = sum(self._start <= each < self.stop for each in self._kept)
        done = place - self._kept.index(self._start)
        said = (f"refitting block {number}", f"(try {rank + 1})" if rank else "", f"- {detail}" if detail else "")
        self._progress.update(done, total, "blocks", " ".join(filter(None, said)))


def solves(name: str, cut: Cut, number: int, lookahead: int) -> bool:
    """Whether a method gives block `number`, which stays, new weights, if it begins `lookahead` blocks before the carrier."""
    if name in IN_SEQUENCE:
        return number >= cut.spans[0].carrier - lookahead
    if any(number == span.carrier for span in cut.spans):
        return name != "drop"
    behind = NEAR.get(name, 0)
    return any(span.carrier - lookahead <= number < span.carrier or span.end <= number < span.end + behind for span in cut.spans)


def reach(cut: Cut, section: MethodSection, n_blocks: int) -> tuple[int, ...]:
    """The blocks of the original that a refit is going to solve; those before the carrier it may leave as they are."""
    ahead = NEAR.get(section.name, 0) if section.lookahead is None else section.lookahead
    return tuple(number for number in cut.kept(n_blocks) if solves(section.name, cut, number, ahead))


def stop(cut: Cut, section: MethodSection, n_blocks: int) -> int:
    """The boundary behind which a method changes nothing."""
    return n_blocks if section.name in IN_SEQUENCE else min(n_blocks, cut.spans[-1].end + NEAR.get(section.name, 0))


class Trial:
    """The changes of one block so far; the last one is on trial until its effect is measured."""

    def __init__(self, streams: Streams, block: nn.Module, number: int, targets: Targets) -> None:
        self._streams, self._block, self._number, self._targets = streams, block, number, targets
        self._pending: tuple[RefitStep, dict[str, nn.Parameter]] | None = None
        self.steps: list[RefitStep] = []

    def update(self, layer: Layer) -> Update:
        """Of the block as it is, after a change that did harm was taken back. Its sums, the largest thing here, are gone afterwards."""
        train, heldout = report.sums(self._streams, self._block, self._number, layer, self._targets)
        if not self.settle(heldout.error(None)):
            del train, heldout
            train, heldout = report.sums(self._streams, self._block, self._number, layer, self._targets)
        return solve(train, heldout, layer.weight)

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
