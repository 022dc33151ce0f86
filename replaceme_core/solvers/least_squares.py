"""Ridge least squares in closed form (arXiv 2505.02819, the least-squares estimate), plain or token-weighted, T of any structure.

T = (M'M + a I)^-1 M'Z from the moments alone; the other structures are in files of their own, behind the same interface.
The weighted form uses token weights 1/|H_end|, half way between every token alike and its relative error (1/|H_end|^2). Some models
carry one token a sequence that is a hundred times as long as the others (an attention sink): alike, it rules the fit, by relative error it
is lost, and either costs much more than this (benchmarks/LOG.md). The ridge pulls T to 0.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isnan, nan

from replaceme_core.artifacts import FitMoments, LinearTransform, Measurement, Span, SpanMoments, Weighting
from replaceme_core.errors import NumericsError
from replaceme_core.figures import number
from replaceme_core.plans.plan import MethodSection, Structure
from replaceme_core.progress import Progress
from replaceme_core.solvers.diagonal import Diagonal
from replaceme_core.solvers.evidence import report
from replaceme_core.solvers.low_rank import LowRank
from replaceme_core.solvers.orthogonal import Orthogonal
from replaceme_core.solvers.recent import recent
from replaceme_core.solvers.spectrum import ClosedForm, Spectrum, spectrum_of
from replaceme_core.solvers.triangular import Triangular

_ILL_CONDITIONED = 1e12
_SCARCE = 10
"""tokens per unknown of a column of T under which the report warns"""
_FORMS: dict[Structure, Callable[[SpanMoments, int], ClosedForm]] = {
    "full": lambda moments, _rank: spectrum_of(moments),
    "diagonal": lambda moments, _rank: Diagonal.of(moments),
    "triangular": lambda moments, _rank: Triangular.of(moments),
    "orthogonal": lambda moments, _rank: Orthogonal.of(moments),
    "low_rank": LowRank.of,
    "low_rank_update": LowRank.update_of,
}


@dataclass(frozen=True)
class RidgePoint:
    """One point of the ridge path."""

    ridge: float
    train_error: float
    heldout_error: float


def weighting_of(section: MethodSection) -> Weighting:
    """The token weights of a least-squares method."""
    return "uniform" if section.name == "least_squares" else "end_norm"


def solve(measurement: Measurement, span: Span, section: MethodSection, _progress: Progress) -> LinearTransform:
    """Least squares with token weights 1/|H_end|, or uniform ones (the paper's form)."""
    began = time.perf_counter()
    moments = measurement.moments[span, weighting_of(section)]
    form = form_of(moments.train, section.structure, section.rank or 0)
    ridge = section.ridge
    if ridge is None:
        ridge = min(ridge_path(moments, section), key=lambda point: point.heldout_error).ridge
    _require_enough(moments.train.n_tokens, form, ridge)
    matrix = form.solve(ridge)
    seconds = time.perf_counter() - began
    evidence = report(
        measurement,
        span,
        moments,
        matrix,
        unknowns=form.unknowns,
        condition=form.condition(ridge),
        rank=form.rank,
        ridge=ridge,
        seconds=seconds,
        notes=_notes(moments, form, ridge),
    )
    return LinearTransform(span, section.label, matrix, evidence)


def ridge_path(moments: FitMoments, section: MethodSection) -> list[RidgePoint]:
    """Train and held-out error along the ridges, from one decomposition; points whose errors are no numbers (NaN) are left out."""
    form = form_of(moments.train, section.structure, section.rank or 0)
    if isinstance(form, Spectrum):
        points = [RidgePoint(ridge, *errors) for ridge, errors in zip(form.ridges, form.errors(moments), strict=True)]
    else:
        fits = ((ridge, form.solve(ridge)) for ridge in form.ridges)
        points = [RidgePoint(ridge, moments.train.error(matrix), moments.heldout.error(matrix)) for ridge, matrix in fits]
    known = [point for point in points if not isnan(point.train_error) and not isnan(point.heldout_error)]
    if not known:
        raise NumericsError(
            "No ridge gives a fit whose error is a number (all are NaN); use more calibration tokens (max_tokens), or another structure."
        )
    return known


def least_errors(found: Iterable[tuple[Span, FitMoments]], section: MethodSection) -> Iterator[tuple[Span, FitMoments, float]]:
    """Spans with their moments and the held-out error at the best ridge; NaN where nothing can be fitted: a carrier may write only zeros.

    Raises the `NumericsError` of the last one if that is so everywhere.
    """
    fitted, failed = False, None
    for span, moments in found:
        try:
            error, fitted = min(point.heldout_error for point in ridge_path(moments, section)), True
        except NumericsError as problem:
            error, failed = nan, problem
        yield span, moments, error
    if failed is not None and not fitted:
        raise failed


@recent(most=4)
def form_of(moments: SpanMoments, structure: Structure, rank: int) -> ClosedForm:
    """The closed form of a structure; the last few are kept, so that moving the ridge is fast."""
    return _FORMS[structure](moments, rank)


def _require_enough(n_tokens: int, form: ClosedForm, ridge: float) -> None:
    width = form.tallest
    if n_tokens < width and ridge == 0:
        raise NumericsError(
            f"{n_tokens} calibration tokens for a width of {width} (rank {form.rank}): without a ridge the fit is not determined. "
            f"Use at least {width} tokens, better {_SCARCE * width}, or a ridge above 0 (now 0)."
        )


def _notes(moments: FitMoments, form: ClosedForm, ridge: float) -> tuple[str, ...]:
    """Warnings in plain words."""
    width, n = form.tallest, moments.train.n_tokens
    notes = []
    if n < _SCARCE * width:
        notes.append(
            f"Only {n:,} tokens for a width of {width}: use {_SCARCE * width:,} or more, or trust the held-out error rather than the train error."
        )
    special = form.warnings(ridge)
    notes += special
    if not special and form.condition(ridge) > _ILL_CONDITIONED:
        notes.append(
            f"Ill-conditioned (condition {number(form.condition(ridge))}): raise the ridge (now {number(ridge, 6)}) or use more tokens."
        )
    return tuple(notes)
