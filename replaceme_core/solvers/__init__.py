"""Fits of a transform, one solver per file, behind one interface and a table of names.

    transform = fit(measurement, Span(6, 9), "weighted_least_squares", ridge=None)
    transform = fit(measurement, Span(6, 9), MethodSection(structure="low_rank_update", rank=16))
    transform = fit(measurement, Span(6, 9), MethodSection(name="lbfgs", loss="cosine", l2=0.01), progress=bar)

What a fit can be told is the plan's method section. Solvers read only a `Measurement`, so a fit touches no model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.errors import InputError
from replaceme_core.plans.plan import LEAST_SQUARES, MethodSection, Structure
from replaceme_core.progress import SILENT, Progress
from replaceme_core.solvers import adam, cosine, least_squares, minimise, proximal, removal
from replaceme_core.solvers.least_squares import RidgePoint

Solve = Callable[[Measurement, Span, MethodSection, Progress], LinearTransform]


@dataclass(frozen=True)
class MethodInfo:
    """A solver with the words people read."""

    title: str
    one_line: str
    solve: Solve | None
    """None: a refit, which needs the model and not only its measurement (see refit/)"""
    live: bool = True
    """fast enough to follow a slider"""


METHODS: dict[str, MethodInfo] = {
    "weighted_least_squares": MethodInfo(
        "Least squares, weighted",
        "Every token counts by its relative error, so that a few tokens of huge norm do not rule the fit.",
        least_squares.solve,
    ),
    "least_squares": MethodInfo(
        "Least squares, plain",
        "The paper's closed form: all tokens weigh the same, and those of large norm dominate.",
        least_squares.solve,
    ),
    "cosine": MethodInfo(
        "Cosine",
        "The paper's other objective: the direction of every token's stream, solved in a few weighted steps.",
        cosine.solve,
    ),
    "cosine_simplified": MethodInfo(
        "Cosine, simplified",
        "The paper's short form: the direction of what the carrier should write, without the rest of the stream.",
        cosine.solve,
    ),
    "adam": MethodInfo("Adam", "The paper's gradient steps: 10 passes over the stored tokens.", adam.solve, live=False),
    "lbfgs": MethodInfo("L-BFGS", "Steps that remember the last ten gradients.", minimise.solve, live=False),
    "nonlinear_cg": MethodInfo("Nonlinear conjugate gradients", "Each step turns away from the last ones.", minimise.solve, live=False),
    "newton_cg": MethodInfo("Newton-CG", "Steps that also use the curvature, with a line search.", minimise.solve, live=False),
    "trust_region": MethodInfo("Trust region", "Curvature steps of bounded length.", minimise.solve, live=False),
    "proximal": MethodInfo("Proximal gradient", "For an l1 penalty: makes entries of T exactly 0.", proximal.solve, live=False),
    "refit": MethodInfo("Refit of the carrier", "Solves the carrier's own weights: they say more than its output.", None, live=False),
    "sequential_refit": MethodInfo(
        "Sequential refit", "The same for every later block in turn, from the pruned stream to the intact one.", None, live=False
    ),
    "deep_refit": MethodInfo(
        "Deep refit", "The same, with gradient steps on all weights of one block after the other: training.", None, live=False
    ),
    "drop": MethodInfo("Plain removal", "The blocks are cut and nothing takes their place.", removal.solve),
}

STRUCTURES: dict[Structure, tuple[str, str]] = {
    "full": ("Full", "Every channel may read every other."),
    "diagonal": ("Diagonal", "One factor per channel: all that merges where a norm follows the writer (Gemma 2 and 3, OLMo 2)."),
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
    require_kept(measurement, span)
    solve = METHODS[section.name].solve
    if solve is None:
        raise InputError(
            f"'{section.name}' needs the model and the calibration set, not only their measurement; use `refit.fit`, or a plan."
        )
    transform = solve(measurement, span, section, progress)
    solved = section.model_copy(update={"ridge": transform.report.ridge}) if section.takes_ridge else section
    return replace(transform, settings=solved.model_dump(exclude_none=True, exclude_defaults=True) | {"name": section.name})


def ridge_path(measurement: Measurement, span: Span, method: MethodSection | str) -> list[RidgePoint]:
    """Train and held-out error of `method` along its ridges; empty for a method that has none."""
    section = section_of(method)
    require_kept(measurement, span)
    if section.name not in LEAST_SQUARES or not section.takes_ridge:
        return []
    return least_squares.ridge_path(measurement.moments[span, least_squares.weighting_of(section)], section)


def error_map(
    measurement: Measurement, method: MethodSection | str, progress: Progress = SILENT
) -> Float64[Tensor, "boundaries boundaries"]:
    """Held-out error after the fit for every span the pass kept (at the best ridge), NaN elsewhere; T = I for 'drop'.

    Raises `InputError` for a method that is not solved from the moments alone: its map would take minutes.
    """
    section = section_of(method)
    if section.name not in (*LEAST_SQUARES, "drop"):
        raise InputError(
            f"There is no map of errors for '{section.name}', which needs a fit of its own for every span; choose a least-squares method."
        )
    values = torch.full((measurement.n_blocks + 1,) * 2, torch.nan, dtype=torch.float64)
    spans = measurement.spans()
    for number, span in enumerate(spans):
        progress.update(number, len(spans), "spans", "error after the fit")
        if section.name == "drop":
            values[span.start, span.end] = measurement.moments[span, "uniform"].heldout.error(None)
        else:
            moments = measurement.moments[span, least_squares.weighting_of(section)]
            values[span.start, span.end] = min(p.heldout_error for p in least_squares.ridge_path(moments, section))
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


def require_kept(measurement: Measurement, span: Span) -> None:
    """An error that says how to get the moments of a span that the pass did not keep."""
    span.check(measurement.n_blocks)
    if span not in measurement.spans():
        raise InputError(
            f"The calibration pass kept no moments for the span {span} (it kept {measurement.kept}). "
            "Measure again with this span, or with a larger memory budget."
        )
