"""Fits of a transform, one solver per file, behind one interface and a table of names.

    transform = fit(measurement, Span(6, 9), "weighted_least_squares", ridge=None)

Solvers read only a `Measurement`, so a fit touches no model and takes milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import FitMoments, LinearTransform, Measurement, Span, Weighting
from replaceme_core.errors import InputError
from replaceme_core.solvers import cosine, cosine_adam, diagonal, least_squares, removal
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
    path: Callable[[FitMoments], list[RidgePoint]] | None = None
    """errors along the ridges, for a method that is solved from the moments alone"""
    live: bool = True
    """fast enough to follow a slider"""


METHODS: dict[str, MethodInfo] = {
    "weighted_least_squares": MethodInfo(
        "Least squares, weighted",
        "Every token counts by its relative error, so that a few tokens of huge norm do not rule the fit.",
        least_squares.solve_weighted,
        "end_norm",
        least_squares.ridge_path,
    ),
    "least_squares": MethodInfo(
        "Least squares, plain",
        "The paper's closed form: all tokens weigh the same, and those of large norm dominate.",
        least_squares.solve_plain,
        "uniform",
        least_squares.ridge_path,
    ),
    "cosine": MethodInfo(
        "Cosine",
        "The paper's other objective: the direction of every token's stream, solved in a few weighted steps.",
        cosine.solve,
        "end_norm",
    ),
    "cosine_adam": MethodInfo(
        "Cosine, by Adam",
        "The same objective by the paper's gradient steps, for comparison.",
        cosine_adam.solve,
        "end_norm",
        live=False,
    ),
    "diagonal": MethodInfo(
        "Least squares, diagonal",
        "One factor per channel: all that merges where a norm follows the writer (Gemma 2 and 3, OLMo 2).",
        diagonal.solve,
        "end_norm",
        diagonal.ridge_path,
    ),
    "drop": MethodInfo("Plain removal", "The blocks are cut and nothing takes their place.", removal.solve, "uniform"),
}


def fit(measurement: Measurement, span: Span, method: str, ridge: float | None = None) -> LinearTransform:
    """The transform of `span` by the named method. `ridge` None takes the one with the least held-out error."""
    require_kept(measurement, span)
    return info(method).solve(measurement, span, ridge)


def ridge_path(measurement: Measurement, span: Span, method: str) -> list[RidgePoint]:
    """Train and held-out error of `method` along its ridges; empty for a method that has none."""
    require_kept(measurement, span)
    path, weighting = info(method).path, info(method).weighting
    return path(measurement.moments[span, weighting]) if path else []


def error_map(measurement: Measurement, method: str) -> Float64[Tensor, "boundaries boundaries"]:
    """Held-out error after the fit for every span the pass kept (at the best ridge), NaN elsewhere; T = I for 'drop'.

    Raises `InputError` for a method that is not solved from the moments alone: its map would take minutes.
    """
    path, weighting = info(method).path, info(method).weighting
    if path is None and method != "drop":
        raise InputError(
            f"There is no map of errors for '{method}', which needs a fit of its own for every span; choose a least-squares method."
        )
    values = torch.full((measurement.n_blocks + 1,) * 2, torch.nan, dtype=torch.float64)
    for span in measurement.spans():
        moments = measurement.moments[span, weighting]
        values[span.start, span.end] = min(p.heldout_error for p in path(moments)) if path else moments.heldout.error(None)
    return values


def info(method: str) -> MethodInfo:
    """The method of that name, or an `InputError` that lists the names."""
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'; choose one of {', '.join(METHODS)}.")
    return METHODS[method]


def require_kept(measurement: Measurement, span: Span) -> None:
    """An error that says how to get the moments of a span that the pass did not keep."""
    span.check(measurement.n_blocks)
    if span not in measurement.spans():
        raise InputError(
            f"The calibration pass kept no moments for the span {span} (it kept {measurement.kept}). "
            "Measure again with this span, or with a larger memory budget."
        )
