"""Attention sinks: tokens, often the first of a sequence, that one block makes a hundred times as long as all others, and a later one short.

A mean over tokens does not see one token of a hundred and seventy, so that a span which takes the block that makes the sink, or
ends it, may have the least distance of all and cost the most: on SmolLM2-135M the first token goes from 228 to 27,700 in block 11, and of
the spans of eight blocks that with the least distance, 11:19, removes it (benchmarks/LOG.md). What shows it is the longest token of a
boundary beside the typical one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from replaceme_core.artifacts import DistanceMatrix, Measurement, Positions, Span, StreamLengths

CHANGE = 4.0
"""the longest token beside the typical one: a span across which this grows or shrinks as many times makes or ends a sink"""
LEAST = 10.0
"""how many times as long as the typical token a sink is at least"""
PENALTY = 1.0
"""in distance, of a span that makes or ends a sink; mean distances are below 1 but where streams turn against each other"""


@dataclass(frozen=True)
class Change:
    """What a span does to the longest token."""

    span: Span
    before: float
    """|H_start| of the longest token"""
    after: float
    """|H_end| of the longest token"""
    block: int
    """the block of the span that does most of it"""
    makes: bool
    """else it ends a sink"""

    @property
    def sentence(self) -> str:
        """What is wrong with the span, and what to do."""
        does, how = ("makes", "grows") if self.makes else ("ends", "shrinks")
        return (
            f"Block {self.block}, which is to go, {does} an attention sink: the longest token {how} from {self.before:,.0f} to {self.after:,.0f} "
            "in the span. A mean over tokens hardly shows it, and removing it can cost many times what the distance and the error of the fit "
            "say. Choose a span that leaves this block, or look at the measured KL before you trust this one."
        )


def reach(lengths: StreamLengths) -> Float64[Tensor, " boundaries"]:
    """The longest token beside the typical one, at every boundary."""
    return lengths.largest / lengths.typical.clamp_min(torch.finfo(torch.float64).tiny)


def change(lengths: StreamLengths, span: Span) -> Change | None:
    """What the span does to a sink; None where it leaves it as it is, or there is none."""
    found = reach(lengths)
    if not _changed(found)[span.start, span.end]:
        return None
    makes = bool(found[span.end] > found[span.start])
    steps = (found[span.start + 1 : span.end + 1] / found[span.start : span.end]).log()
    block = span.start + int(steps.argmax() if makes else steps.argmin())
    return Change(span, float(lengths.largest[span.start]), float(lengths.largest[span.end]), block, makes)


def changes(lengths: StreamLengths, spans: Iterable[Span]) -> tuple[Change, ...]:
    """What these spans do to a sink."""
    return tuple(found for span in spans if (found := change(lengths, span)) is not None)


def kept(measurement: Measurement, positions: Positions = "all") -> DistanceMatrix:
    """The distances, with `PENALTY` more where a span makes or ends a sink."""
    distances = measurement.distances[positions]
    values = distances.values + PENALTY * _changed(reach(measurement.lengths))
    return DistanceMatrix(values, positions, distances.n_tokens, distances.n_sequences, distances.spread, "sinks_kept")


def _changed(reach: Float64[Tensor, " boundaries"]) -> Bool[Tensor, "boundaries boundaries"]:
    """[start, end]: whether the longest token beside the typical one differs so much between two boundaries that one of them has a sink."""
    start, end = reach.unsqueeze(1), reach.unsqueeze(0)
    more = torch.maximum(start, end)
    return (more >= LEAST) & (more >= CHANGE * torch.minimum(start, end))
