"""What a refit is judged by: relative errors of a stream on the train and held-out tokens, and the report at the cut.

An error is the mean over tokens of |stream - target|^2 / |target|^2; at the cut it is set in relation to the target of a
transform, Z = H_end - Y, so that it can be read beside the error of a least-squares fit.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from replaceme_core.artifacts import FitReport, RefitStep, Span
from replaceme_core.models.architecture.families import scale_of, written_of
from replaceme_core.models.running import capture
from replaceme_core.models.running.precision import exact_device
from replaceme_core.refit.layers import Layer
from replaceme_core.refit.streams import StreamBatch, Streams, Targets
from replaceme_core.refit.sums import UpdateSums, rows_of, token_weights

_TINY = torch.finfo(torch.float64).tiny


def sums(streams: Streams, block: nn.Module, number: int, layer: Layer, targets: Targets) -> tuple[UpdateSums, UpdateSums]:
    """Train and held-out sums of one layer with token weights 1/|target|, from one run of the block over all sequences."""
    device = exact_device(streams.device)
    both: list[UpdateSums] = []
    with torch.no_grad(), capture.seen(layer.read, layer.side) as seen:
        for batch in streams.batches:
            seen.clear()
            out = streams.run(batch, block, number, batch.pruned)
            features, goal = layer.features(seen[-1]), targets(batch).to(out.device)
            both = both or [UpdateSums.zeros(features.shape[-1], out.shape[-1], device) for _ in range(2)]
            for part, own in enumerate(both):
                rows = rows_of(batch.part(bool(part)), features, goal - out, goal)
                if len(rows[0]):
                    own.add(*rows)
    return both[0], both[1]


def block_error(streams: Streams, outputs: list[Tensor], targets: Targets) -> float:
    """Held-out error of what a block makes of the pruned stream, batch by batch, with the token weights of its sums."""
    following = iter(outputs)
    return _mean(streams, lambda _batch: next(following), targets, True, power=1)


def error(streams: Streams, targets: Targets) -> float:
    """Held-out error of the pruned stream where it is."""
    return _mean(streams, _pruned, targets, True)


def at_the_cut(streams: Streams, carrier: nn.Module, number: int, end: int) -> dict[bool, float]:
    """Mean over the held-out and the train tokens of |Z|^2 / |H_end|^2, Z = H_end - H_start + M, at a carrier that comes next."""
    total, count = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for batch in streams.batches:
        written = written_of(carrier, streams.handle.family)
        with torch.no_grad(), streams.handle.borrow() as model, capture.seen(written, "output") as seen:
            scale = scale_of(model, streams.handle.family)
            out = streams.run(batch, carrier, number, batch.intact)
            target = batch.at[end].to(out.device) - out + scale * seen[-1].view_as(out)
        for part in total:
            z, goal = (rows.double() for rows in rows_of(batch.part(part), target.cpu(), batch.at[end]))
            total[part] += float((z.square().sum(-1) / goal.square().sum(-1).clamp_min(_TINY)).sum())
            count[part] += len(z)
    return {part: total[part] / max(1, count[part]) for part in total}


def report(streams: Streams, before: dict[bool, float], span: Span, steps: list[RefitStep] | None) -> FitReport:
    """The report of a walk that has just passed the carrier; `steps` None: nothing was to be solved. Time and unknowns are filled in at its end."""

    def at(boundary: int) -> Targets:
        return lambda batch: batch.at[boundary]

    ends, removed = at(span.end), at(span.start)
    moved = [step for step in steps or () if step.block == span.carrier]
    own = [step for step in moved if step.ridge is not None]
    notes = (
        ()
        if moved or steps is None
        else ("No change of the carrier lowered the held-out error; use more calibration tokens, or choose another span.",)
    )
    return FitReport(
        n_tokens=sum(int(batch.part(False).sum()) for batch in streams.batches),
        n_heldout_tokens=sum(int(batch.part(True).sum()) for batch in streams.batches),
        unknowns=0,
        train_error=_mean(streams, _pruned, ends, False) / before[False],
        heldout_error=_mean(streams, _pruned, ends, True) / before[True],
        removal_error=_mean(streams, removed, ends, True) / before[True],
        heldout_cosine=_cosine(streams, _pruned, ends),
        removal_cosine=_cosine(streams, removed, ends),
        condition=(own[-1].condition or 1.0) if own else 1.0,
        rank=0,
        ridge=(own[-1].ridge or 0.0) if own else 0.0,
        seconds=0.0,
        notes=notes,
    )


def together(reports: list[FitReport], unknowns: int) -> FitReport:
    """One report for all spans of a cut: means of the errors and cosines, the worst condition."""
    mean = {
        name: sum(getattr(report, name) for report in reports) / len(reports)
        for name in ("train_error", "heldout_error", "removal_error", "heldout_cosine", "removal_cosine")
    }
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    return replace(reports[0], **mean, condition=max(report.condition for report in reports), unknowns=unknowns, notes=tuple(notes))


def _pruned(batch: StreamBatch) -> Tensor:
    return batch.pruned


def _mean(streams: Streams, states: Targets, targets: Targets, part: bool, power: int = 2) -> float:
    """sum w |state - target|^2 / sum w |target|^2, w = 1/|target|^power: the mean relative error where the power is 2."""
    missed, aimed = 0.0, 0.0
    for batch in streams.batches:
        own, goal = (rows.double() for rows in rows_of(batch.part(part), states(batch), targets(batch)))
        weight = token_weights(goal).pow(power)
        missed += float(weight @ (own - goal).square().sum(-1))
        aimed += float(weight @ goal.square().sum(-1))
    return missed / aimed if aimed > 0 else missed


def _cosine(streams: Streams, states: Targets, targets: Targets) -> float:
    """Mean cosine over the held-out tokens."""
    total, count = 0.0, 0
    for batch in streams.batches:
        own, goal = (rows.double() for rows in rows_of(batch.part(True), states(batch), targets(batch)))
        total += float(torch.nn.functional.cosine_similarity(own, goal, dim=-1).sum())
        count += len(own)
    return total / max(1, count)
