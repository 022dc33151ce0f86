"""Fits of a transform, one solver per file, behind one interface and a table of names.

    transform = fit(measurement, Span(6, 9), "weighted_least_squares", ridge=None)
    transform = fit(measurement, Span(6, 9), MethodSection(structure="low_rank_update", rank=16))
    transform = fit(measurement, Span(6, 9), MethodSection(name="lbfgs", loss="cosine", l2=0.01), progress=bar)

What a fit can be told is the plan's method section. Solvers read only a `Measurement`, so a fit touches no model.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span, Weighting
from replaceme_core.errors import InputError
from replaceme_core.plans.methods import METHODS as METHODS
from replaceme_core.plans.methods import MethodInfo as MethodInfo
from replaceme_core.plans.plan import LEAST_SQUARES, MethodSection, Structure
from replaceme_core.progress import SILENT, Progress
from replaceme_core.solvers import least_squares, low_rank
from replaceme_core.solvers.least_squares import RidgePoint

Solve = Callable[[Measurement, Span, MethodSection, Progress], LinearTransform]

STRUCTURES: dict[Structure, tuple[str, str]] = {
    "full": ("Full", "Every channel may read every other."),
    "diagonal": ("Diagonal", "One factor per channel: all that merges where a norm follows the output projection (Gemma 2 and 3, OLMo 2)."),
    "triangular": ("Lower triangular", "Each channel reads itself and those after it."),
    "orthogonal": ("Orthogonal", "Rotates and keeps lengths."),
    "low_rank": ("Low rank", "Keeps that many directions of what the carrier writes and drops the rest."),
    "low_rank_update": ("Identity + low rank", "Leaves what the carrier writes and corrects that many directions."),
}
"""title and one line of each structure of least squares"""


def fit(
    measurement: Measurement, span: Span, method: MethodSection | str, ridge: float | None = None, progress: Progress = SILENT
) -> LinearTransform:
    """The transform of `span`. A bare name stands for that method with its defaults and this ridge (None: least held-out error).

    Raises `NumericsError` where the numbers do not determine the fit; whoever implements `progress` stops a slow one from there.
    """
    section = section_of(method, ridge)
    require_moments(measurement, span)
    solver = METHODS[section.name].solver
    if not solver:
        raise InputError(
            f"'{section.name}' needs the model and the calibration set, not only their measurement; use `refit.fit`, or a plan."
        )
    solve: Solve = import_module(f"replaceme_core.solvers.{solver}").solve
    transform = solve(measurement, span, section, progress)
    solved = section.model_copy(update={"ridge": transform.report.ridge}) if section.takes_ridge else section
    return replace(transform, settings=solved.model_dump(exclude_none=True, exclude_defaults=True) | {"name": section.name})


def require_takes(method: MethodSection, width: int) -> None:
    """Before a pass: an `InputError` for a T that is none of this width."""
    if method.rank is not None:
        low_rank.require_rank(method.rank, width)


def ridge_path(measurement: Measurement, span: Span, method: MethodSection | str) -> list[RidgePoint]:
    """Train and held-out error of `method` along its ridges; empty for a method that has none."""
    section = section_of(method)
    require_moments(measurement, span)
    if section.name not in LEAST_SQUARES or not section.takes_ridge:
        return []
    return least_squares.ridge_path(measurement.moments[span, least_squares.weighting_of(section)], section)


def error_map(
    measurement: Measurement, method: MethodSection | str, progress: Progress = SILENT
) -> Float64[Tensor, "boundaries boundaries"]:
    """Held-out error after the fit for every span the pass stored (at the best ridge), NaN elsewhere; T = I for 'drop'.

    NaN as well where a carrier writes only zeros, so that nothing can be fitted there.
    Raises `InputError` for a method that is not solved from the moments alone: its map would take minutes.
    """
    section = section_of(method)
    if section.name not in (*LEAST_SQUARES, "drop"):
        raise InputError(
            f"There is no map of errors for '{section.name}', which needs a fit of its own for every span; choose a least-squares method."
        )
    values = torch.full((measurement.n_blocks + 1,) * 2, torch.nan, dtype=torch.float64)
    spans = measurement.spans()
    dropped = section.name == "drop"
    found = measurement.moments.of_many(spans, "uniform" if dropped else least_squares.weighting_of(section))
    errors = ((span, each, each.heldout.error(None)) for span, each in found) if dropped else least_squares.least_errors(found, section)
    for number, (span, _, error) in enumerate(errors):
        progress.update(number, len(spans), "spans", "error after the fit")
        values[span.start, span.end] = error
    return values


def section_of(method: MethodSection | str, ridge: float | None = None) -> MethodSection:
    """A section from a bare name and a ridge; a section is taken as it is. Raises `InputError` for what does not exist."""
    if isinstance(method, MethodSection):
        if ridge is not None:
            raise InputError("The ridge was given twice; put it into the method section.")
        return method
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'; choose one of {', '.join(METHODS)}.")
    return MethodSection.parse({"name": method, "ridge": ridge}, origin=f"method '{method}'")


def require_moments(measurement: Measurement, span: Span) -> None:
    """An error that says how to get the moments of a span that the pass did not store."""
    span.check(measurement.n_blocks)
    if not any((span, weighting) in measurement.moments for weighting in get_args(Weighting)):
        raise InputError(
            measurement.lacking
            or f"The calibration pass did not store what a fit of the span {span} reads. Measure again with this span, or with all of them."
        )
