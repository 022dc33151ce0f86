"""The parts of the Fit page about one fit: making it, its report, and pictures of T."""

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ui.fit import refit as refit_view
from ui.fit import words
from ui.fit.charts import colour_bar, error_bars, matrix_picture, spectrum_chart
from ui.fit.jobs import fit_slowly, was_stopped
from ui.look.figures import duration, number, short_time
from ui.look.glossary import TERMS
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.systems import CUT
from ui.look.words import FIT_HELP
from ui.parts.chart import show
from ui.parts.job_panel import has_active_job, show_job
from ui.session import live, methods
from ui.session.methods import is_refit
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, LinearTransform, Span

_ENOUGH = 10
"""tokens per row of T from which the fit is steady"""
_LARGE = 1500
"""width from which pictures of T are drawn only when asked for"""


def fit_now(state: Studio) -> "LinearTransform | None":
    """The transform of the present settings; where the disk could not take what a fit reads, the sentence that says so."""
    if state.span is None:
        return None
    if state.more or live.can_fit(state, state.span) or is_refit(state.method):
        return _fit(state, state.cut if state.more and state.cut else state.span)
    st.info(f"{live.measured(state).lacking} A refit needs nothing stored.", icon=":material/hard_drive:")
    return None


def _fit(state: Studio, span: "Span | Cut") -> "LinearTransform | None":
    """At once, or as a job where the method is too slow to follow the slider."""
    from replaceme_core.solvers import METHODS

    seconds = live.expected_seconds(state, span, state.method)
    is_live = METHODS[state.method.name].live and not state.more
    if seconds == 0.0 or (is_live and seconds <= live.LONG):
        with live.fitting(state, span, state.method):
            return live.transform(state, span, state.method)
    st.info(words.SLOW_WIDE.format(time=duration(seconds)) if is_live else _why_slow(state), icon=":material/hourglass_empty:")
    if is_live and not has_active_job(state, "short") and not was_stopped(state, span, state.method):
        fit_slowly(state, span, state.method)  # by itself, as where it is quick
    if has_active_job(state, "short"):
        show_job(state, large=True)
    elif st.button("Fit it", type="primary", icon=":material/play_arrow:"):
        fit_slowly(state, span, state.method)
        st.rerun()
    if is_refit(state.method):
        refit_view.to_beat(state)
    return None


def _why_slow(state: Studio) -> str:
    if is_refit(state.method):
        return words.SLOW_REFIT.format(time=duration(methods.seconds(state.method, live.measured(state).seconds)))
    return words.SLOW_SPANS if state.more else words.SLOW_STEPS


def report(fitted: "LinearTransform") -> None:
    """The evidence: errors, cosines, condition, data need."""
    evidence = fitted.report
    errors = {
        f"{CUT}, held-out": evidence.removal_error,
        "fitted, held-out": evidence.heldout_error,
        "fitted, train": evidence.train_error,
    }
    said = f"Relative error: {CUT} {evidence.removal_error:.1%}, fitted {evidence.heldout_error:.1%}, both held-out."
    picture = st.container()
    st.caption(
        f"{FIT_HELP} Fitted on {evidence.n_tokens:,} tokens, chosen and checked on {evidence.n_heldout_tokens:,} held-out tokens: Compare measures it on text that chose nothing."
    )
    cosine, condition, seconds = st.columns(3)
    cosine.metric(
        "Held-out cosine",
        f"{evidence.heldout_cosine:.4f}",
        delta=f"{evidence.heldout_cosine - evidence.removal_cosine:+.4f} to removal",
        help="Between what the pruned model has at the end of the span and what the original has; 1 is the same direction.",
    )
    condition.metric("Condition", number(evidence.condition), help=TERMS["condition"])
    seconds.metric("Fitted in", short_time(evidence.seconds), help=words.REFIT_TIME_HELP if fitted.steps else words.FIT_TIME_HELP)
    if evidence.iterations is not None:
        st.caption(
            f"{evidence.iterations} steps; the gradient is {number(evidence.gradient)} of that at T = identity "
            f"({'converged' if evidence.converged else 'not converged'})."
        )
    with picture:  # after the figures, which the browser shows at once
        show(error_bars(errors, palette()), alt=said)
    _data_need(fitted)
    for note in evidence.notes:
        st.warning(note, icon=":material/warning:")


def _data_need(fitted: "LinearTransform") -> None:
    """Tokens against unknowns: every token is one equation for each column of T."""
    evidence = fitted.report
    if fitted.matrix is None:
        return
    per_column = max(1.0, evidence.unknowns / len(fitted.matrix))
    per_unknown = evidence.n_tokens / per_column
    said = (
        "plenty"
        if per_unknown >= _ENOUGH
        else "few: trust the held-out figure"
        if per_unknown >= 1
        else "too few: only the ridge keeps this fit together"
    )
    st.progress(
        min(1.0, per_unknown / _ENOUGH),
        text=f"Data: {per_unknown:.0f} tokens for each of the {per_column:.0f} unknowns of a column ({said}; {_ENOUGH} are enough)",
    )


def pictures(state: Studio, fitted: "LinearTransform") -> None:
    """T minus the identity, and the singular values."""
    if fitted.matrix is None:
        return
    width = len(fitted.matrix)
    with st.container(key="stage_pictures"), st.expander("Pictures of T", expanded=True):
        if width > _LARGE and not st.toggle(f"Draw them (width {width}: takes a while)", key="fit_draw", persist_state="session"):
            return
        matrix = fitted.matrix.numpy()
        left, right = split("pictures", [1, 1])
        picture, reach = matrix_picture(matrix, palette())
        distance = float(np.linalg.norm(matrix - np.eye(width))) / width**0.5
        left.image(picture, alt="T minus the identity")
        left.caption(f"{words.MATRIX_T_HELP} Full colour: ±{reach:.2g}. Distance from the identity: {distance:.2f} (0 would be {CUT}).")
        left.html(colour_bar(reach, palette()))
        values = live.singular_values(state, fitted)
        said = f"From {values[0]:.3g} to {values[-1]:.2g}; {int((values > 1).sum())} of {len(values)} directions are stretched, the others shrunk."
        show(spectrum_chart(values, palette()), right, alt=f"Singular values of T. {said}")
        right.caption(f"{words.SPECTRUM_HELP} {said}")
