"""From a distance matrix to spans: the best of a length, the top few, the profile along the model, and the length of the path."""

from dataclasses import dataclass
from functools import cache
from math import inf, isnan

import torch

from replaceme_core.artifacts import Cut, DistanceMatrix, Span
from replaceme_core.errors import SpanError
from replaceme_core.plans.plan import SpanSection


@dataclass(frozen=True)
class ProfilePoint:
    """One start of a fixed length, with the uncertainty of its distance over calibration sequences."""

    span: Span
    distance: float
    standard_error: float


def length_of_share(n_blocks: int, share: float) -> int:
    """Blocks that make up `share` of the depth, at least 1, at most n_blocks - 1."""
    return min(n_blocks - 1, max(1, round(share * n_blocks)))


def profile(distances: DistanceMatrix, length: int) -> list[ProfilePoint]:
    """The distance of every span of `length` blocks, by ascending start."""
    n_blocks = distances.n_blocks
    if n_blocks < 2:
        raise SpanError("A model of one block has nothing to remove: the block before a span always stays.")
    if not 1 <= length <= n_blocks - 1:
        raise SpanError(f"A span of {length} blocks does not fit a model of {n_blocks}: choose between 1 and {n_blocks - 1}.")
    spans = [Span(start, start + length) for start in range(1, n_blocks - length + 1)]
    error = max(1, distances.n_sequences) ** 0.5
    return [ProfilePoint(span, distances.at(span), float(distances.spread[span.start, span.end]) / error) for span in spans]


def top(distances: DistanceMatrix, length: int, k: int) -> list[tuple[Span, float]]:
    """The `k` spans of `length` blocks with the least distance, the least first."""
    points = sorted(profile(distances, length), key=lambda point: (isnan(point.distance), point.distance))  # what has no value comes last
    return [(point.span, point.distance) for point in points[:k]]


def best(distances: DistanceMatrix, length: int) -> Span:
    """The span of `length` blocks with the least distance (arXiv 2505.02819, section 3)."""
    return top(distances, length, 1)[0][0]


def several(distances: DistanceMatrix, total: int, count: int) -> Cut:
    """The `count` spans of `total` blocks together with the least sum of distances, with a block between any two: every way is weighed."""
    n_blocks = distances.n_blocks
    if not count <= total <= n_blocks - count:
        raise SpanError(
            f"{total} blocks in {count} spans do not fit a model of {n_blocks}: each span needs a block of its own and one before it. "
            f"Choose {count} to {max(count, n_blocks - count)} blocks, or fewer spans."
        )

    @cache
    def least(first: int, blocks: int, spans: int) -> tuple[float, tuple[Span, ...]]:
        """The best of `spans` spans with `blocks` blocks that start at boundary `first` or later."""
        if spans == 0:
            return (0.0, ()) if blocks == 0 else (inf, ())
        best: tuple[float, tuple[Span, ...]] = (inf, ())
        for start in range(first, n_blocks):
            for end in range(start + 1, min(n_blocks, start + blocks) + 1):
                rest, others = least(end + 1, blocks - (end - start), spans - 1)
                span = Span(start, end)
                if distances.at(span) + rest < best[0]:
                    best = distances.at(span) + rest, (span, *others)
        return best

    return Cut(least(1, total, count)[1])


def fixed_cut(section: SpanSection) -> Cut | None:
    """All spans that a plan names outright, those that touch as one: it may name them in any order."""
    if section.start is None or section.end is None:
        return None
    return Cut.of(Span(*pair) for pair in ((section.start, section.end), *section.more))


def path(distances: DistanceMatrix) -> DistanceMatrix:
    """How far the stream turns in all, block by block: the sum of the angles (of the mean cosine, over pi) of a span's blocks.

    A detour that leads back costs nothing in the distance and its full length here. `spread` is the sum of the blocks' spreads
    (first order in the angle), so that a standard error made from it is at most too large.
    """
    angles, distance = distances.angular().diagonal(1), distances.values.diagonal(1).clamp(0, 2)
    slope = 1 / (torch.pi * (distance * (2 - distance)).sqrt())
    spreads = torch.where(distance > 0, distances.spread.diagonal(1) * slope, 0.0)
    below = torch.ones_like(distances.values).tril(-1).bool()
    values, spread = (_between(steps).masked_fill(below, torch.nan) for steps in (angles, spreads))
    return DistanceMatrix(values, distances.positions, distances.n_tokens, distances.n_sequences, spread, "path")


def _between(steps: torch.Tensor) -> torch.Tensor:
    """[boundaries, boundaries] sums of steps[start:end]."""
    until = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return until.unsqueeze(0) - until.unsqueeze(1)
