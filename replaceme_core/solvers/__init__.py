"""Fits of a transform, one solver per file, behind one interface and a table of names.

    transform = fit(measurement, Span(6, 9), "weighted_least_squares", ridge=None)

Solvers read only a `Measurement`, so a fit touches no model and takes milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span, Weighting
from replaceme_core.errors import InputError
from replaceme_core.solvers import diagonal, least_squares, removal
from replaceme_core.solvers.least_squares import RidgePoint

Solve = Callable[[Measurement, Span, float | None], LinearTransform]


@dataclass(frozen=True)
class MethodInfo:
    """A solver with the words people read."""

    title: str
    one_line: str
    solve: Solve
    weighting: Weighting
    """the token weights under which its errors are reported"""
    has_ridge: bool = True


METHODS: dict[str, MethodInfo] = {
    "weighted_least_squares": MethodInfo(
        "Least squares, weighted",
        "Every token counts by its relative error, so that a few tokens of huge norm do not rule the fit.",
        least_squares.solve_weighted,
        "end_norm",
    ),
    "least_squares": MethodInfo(
        "Least squares, plain",
        "The paper's closed form: all tokens weigh the same, and those of large norm dominate.",
        least_squares.solve_plain,
        "uniform",
    ),
    "diagonal": MethodInfo(
        "Least squares, diagonal",
        "One factor per channel: all that merges where a norm follows the writer (Gemma 2 and 3, OLMo 2).",
        diagonal.solve,
        "end_norm",
    ),
    "drop": MethodInfo("Plain removal", "The blocks are cut and nothing takes their place.", removal.solve, "uniform", has_ridge=False),
}


def fit(measurement: Measurement, span: Span, method: str, ridge: float | None = None) -> LinearTransform:
    """The transform of `span` by the named method. `ridge` None takes the one with the least held-out error."""
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'; choose one of {', '.join(METHODS)}.")
    span.check(measurement.n_blocks)
    if span not in measurement.spans():
        raise InputError(
            f"The calibration pass kept no moments for the span {span} (it kept {measurement.kept}). "
            "Measure again with this span, or with a larger memory budget."
        )
    return METHODS[method].solve(measurement, span, ridge)


def ridge_path(measurement: Measurement, span: Span, method: str) -> list[RidgePoint]:
    """Train and held-out error of `method` along its ridges."""
    return least_squares.ridge_path(measurement.moments[span, METHODS[method].weighting])


def error_map(measurement: Measurement, method: str) -> Float64[Tensor, "boundaries boundaries"]:
    """Held-out error after the fit for every span the pass kept (at the best ridge); NaN elsewhere."""
    values = torch.full((measurement.n_blocks + 1,) * 2, torch.nan, dtype=torch.float64)
    for span in measurement.spans():
        moments = measurement.moments[span, METHODS[method].weighting]
        if METHODS[method].has_ridge:
            values[span.start, span.end] = min(point.heldout_error for point in least_squares.ridge_path(moments))
        else:
            values[span.start, span.end] = moments.heldout.error(None)
    return values
