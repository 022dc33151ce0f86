"""By what a span is chosen among those of its length: each criterion says less where the removal should cost less.

    matrix, note = rank(measurement, length=3, criterion="missed")
    spans.top(matrix, 3, k=5)

`measured_kl` runs the model without each span (see `comparison.places`); whoever ranks by it brings what was measured. How well each one finds
the span of least KL: `python -m benchmarks.selection` and `python -m benchmarks.places`, figures in benchmarks/LOG.md.
"""

from dataclasses import dataclass

import torch

from replaceme_core.artifacts import Cut, DistanceMatrix, Measurement, Positions, Span
from replaceme_core.plans.plan import Criterion, MethodSection, PassCriterion, SpanSection, Structure
from replaceme_core.selection import sinks, spans
from replaceme_core.solvers.least_squares import least_errors


@dataclass(frozen=True)
class CriterionInfo:
    """A criterion in the words that people read."""

    title: str
    one_line: str


CRITERIA: dict[PassCriterion, CriterionInfo] = {
    "sinks_kept": CriterionInfo(
        "Distance, sinks kept",
        "The distance, and 1 more where the span makes or ends an attention sink: a token that the model makes a hundred times as long as "
        "the others, which a mean does not see and whose loss costs the most.",
    ),
    "distance": CriterionInfo("Distance", "1 \u2212 cosine between the two ends of the span: the paper's choice."),
    "path": CriterionInfo("Path", "How far the stream turns inside the span, block by block: a detour that leads back counts in full."),
    "missed": CriterionInfo(
        "Relative error of the fit", "What a fitted transform leaves of the stream behind the span, relative to its length, held out."
    ),
}

"""what one pass tells"""
MEASURED: dict[Criterion, CriterionInfo] = {
    "measured_kl": CriterionInfo(
        "Measured cost",
        "The model is run without each place, the fitted transform in its stead, on a few hundred held-out tokens: KL to the original's next-word "
        "probabilities. No estimate, but it takes about as long as the pass.",
    )
}
"""what takes further forward passes"""
NOT_MEASURED = "What the places cost was not measured: the distance with sinks kept chose instead."


def every() -> dict[Criterion, CriterionInfo]:
    """All criteria, those that measure first."""
    found = dict(MEASURED)
    found.update((name, about) for name, about in CRITERIA.items())
    return found


def rank(
    measurement: Measurement,
    length: int,
    criterion: Criterion,
    positions: Positions = "all",
    structure: Structure = "full",
    measured: DistanceMatrix | None = None,
) -> tuple[DistanceMatrix, str]:
    """What the criterion says of every span of `length` blocks (or of more), and a note if it fell back on the distance.

    `positions` are those of the distances and of the path, `structure` is that of the transform which 'missed' fits, `measured` is what
    was measured of all these spans, for 'measured_kl'.
    """
    distances = measurement.distances[positions]
    if criterion == "measured_kl":
        return (sinks.kept(measurement, positions), NOT_MEASURED) if measured is None else (measured, "")
    if criterion == "path":
        return spans.path(distances), ""
    if criterion == "distance":
        return distances, ""
    if criterion == "sinks_kept":
        return sinks.kept(measurement, positions), ""
    wanted = [point.span for point in spans.profile(distances, length)]
    lacking = [span for span in wanted if (span, "end_norm") not in measurement.moments]
    if lacking:
        return distances, (
            f"'missed' reads what a pass stores, and {len(lacking)} of the {len(wanted)} spans of {length} block(s) are not stored: the distance "
            f"chose instead. {measurement.lacking}".rstrip()
        )
    return _missed(measurement, wanted, structure), ""


def of_share(
    measurement: Measurement, section: SpanSection, structure: Structure = "full", measured: DistanceMatrix | None = None
) -> tuple[Span, str]:
    """The best span of the plan's share of depth by the plan's criterion, and the note of `rank`."""
    length = spans.length_of_share(measurement.n_blocks, section.share or 0)
    matrix, note = rank(measurement, length, section.criterion, section.positions, structure, measured)
    return spans.best(matrix, length), note


def several(measurement: Measurement, section: SpanSection) -> Cut:
    """The plan's number of spans for its share of depth, by the distance with sinks kept, or without if it says so."""
    length = spans.length_of_share(measurement.n_blocks, section.share or 0)
    matrix, _ = rank(measurement, length, section.criterion, section.positions)
    return spans.several(matrix, length, section.count)


def _missed(measurement: Measurement, wanted: list[Span], structure: Structure) -> DistanceMatrix:
    """Mean over held-out tokens of |M T + Y - H_end|^2 / |H_end|, over the mean of |H_end|, for the best ridge of weighted least squares.

    No spread is known, and no value where the carrier writes only zeros: nothing can be fitted there.
    """
    unknown = torch.full((measurement.n_blocks + 1,) * 2, torch.nan, dtype=torch.float64)
    values = unknown.clone()
    for span, moments, error in least_errors(measurement.moments.of_many(wanted, "end_norm"), MethodSection(structure=structure)):
        values[span.start, span.end] = error * moments.heldout.energy / (moments.heldout.n_tokens * float(measurement.norms[span.end]))
    distances = measurement.distances["all"]
    return DistanceMatrix(values, "all", measurement.n_heldout_tokens, distances.n_sequences, unknown, "missed")
