"""The parts of the Fit page: settings, the live report, pictures of T, and the kept variants."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from ui.blocks.view import ruler_of as ruler_of
from ui.fit.charts import colour_bar, error_bars, matrix_picture, spectrum_chart
from ui.fit.method_form import ask_method as ask_method
from ui.look import fit_words, words
from ui.look.chart_style import show
from ui.look.layout import split
from ui.look.palette import palette
from ui.parts import merge_folder as merge_view
from ui.parts.heatmap import blocks_text
from ui.parts.job_panel import has_active_job, show_job
from ui.session import live
from ui.session.calibration_choice import Chosen
from ui.session.state import Studio
from ui.session.work import fit_slowly, keep_variant, measure_set

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, LinearTransform, Span

_ENOUGH = 10
"""tokens per row of T from which the fit is steady"""
_LARGE = 1500
"""width from which pictures of T are drawn only when asked for"""


def fit_now(state: Studio) -> "LinearTransform | None":
    """The transform of the present settings; a span the pass did not keep can be measured from here."""
    if state.span is None:
        return None
    if state.more or live.can_fit(state, state.span) or live.is_refit(state.method):
        return _fit(state, state.cut if state.more and state.cut else state.span)
    st.info(f"The calibration pass kept {live.measured(state).kept}. This span needs one more pass.", icon=":material/straighten:")
    if has_active_job(state):
        show_job(state, large=True)
    elif st.button("Measure this span", type="primary") and state.calibration and state.calibration_section:
        measure_set(state, Chosen(state.calibration_section, state.calibration, state.calibration_text), [state.span])
        st.rerun()
    return None


def _fit(state: Studio, span: "Span | Cut") -> "LinearTransform | None":
    """At once, or as a job where the method is too slow to follow the slider."""
    from replaceme_core.solvers import METHODS

    if (METHODS[state.method.name].live and not state.more) or live.is_fitted(state, span, state.method):
        return live.transform(state, span, state.method)
    st.info(fit_words.SLOW_REFIT if live.is_refit(state.method) or state.more else fit_words.SLOW_STEPS, icon=":material/hourglass_empty:")
    if has_active_job(state):
        show_job(state, large=True)
    elif st.button("Fit it", type="primary", icon=":material/play_arrow:"):
        fit_slowly(state, span, state.method)
        st.rerun()
    return None


def report(fitted: "LinearTransform") -> None:
    """The evidence: errors, cosines, condition, data need."""
    evidence = fitted.report
    rows = pd.DataFrame(
        [
            {"what": "plain removal, held-out", "error": evidence.removal_error},
            {"what": "fitted, held-out", "error": evidence.heldout_error},
            {"what": "fitted, train", "error": evidence.train_error},
        ]
    )
    said = f"Unexplained share: plain removal {evidence.removal_error:.1%}, fitted {evidence.heldout_error:.1%}, both held-out."
    show(error_bars(rows, palette()), alt=said)
    st.caption(f"{words.FIT_HELP} Fitted on {evidence.n_tokens:,} tokens, checked on {evidence.n_heldout_tokens:,} held-out tokens.")
    cosine, condition, seconds = st.columns(3)
    cosine.metric(
        "Held-out cosine",
        f"{evidence.heldout_cosine:.4f}",
        delta=f"{evidence.heldout_cosine - evidence.removal_cosine:+.4f} to removal",
        help="Between what the pruned model has at the end of the span and what the original has; 1 is the same direction.",
    )
    condition.metric("Condition", f"{evidence.condition:.0e}", help=words.TERMS["condition"])
    took = f"{1000 * evidence.seconds:.0f} ms" if evidence.seconds < 1 else f"{evidence.seconds:.1f} s"
    seconds.metric("Fitted in", took, help=fit_words.REFIT_TIME_HELP if fitted.steps else fit_words.FIT_TIME_HELP)
    if evidence.iterations is not None:
        st.caption(
            f"{evidence.iterations} steps; the gradient is {evidence.gradient:.0e} of that at plain removal "
            f"({'converged' if evidence.converged else 'not converged'})."
        )
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


def keep(state: Studio, fitted: "LinearTransform") -> None:
    """Name the result and keep it: the primary action of the page."""
    places = ", ".join(blocks_text(span.start, span.end).removeprefix("blocks ").removeprefix("block ") for span in fitted.cut.spans)
    base = f"blocks {places}, {short_name(fitted.method)}"
    with st.container(border=True):
        name_box, button = st.columns([3, 2], vertical_alignment="bottom")
        name = name_box.text_input(
            "Name of the variant", value=free_name(state, base), key=f"variant_name_{base}_{len(state.variants)}"
        ).strip()
        taken = name in state.variants
        resident = state.resident
        on_disk = resident is not None and resident.merges_on_disk
        folder = merge_view.ask_folder(st.container(), name, "merge_folder") if on_disk else None
        if button.button(
            "Keep this variant",
            type="primary",
            icon=":material/bookmark_add:",
            disabled=not name or taken or has_active_job(state) or folder == "",
            width="stretch",
        ):
            keep_variant(state, name, fitted, folder)
            st.rerun()
        if taken:
            st.caption("This name is taken; choose another one.")
        if resident is not None and on_disk:
            merge_view.explain(resident, fitted)
        else:
            st.caption(words.KEEP_HELP)


def short_name(method: str) -> str:
    """'weighted', 'plain', 'weighted diagonal', ...: the method in a variant's name."""
    return " ".join(method.replace("least_squares", "").replace("_", " ").split()) or "plain"


def free_name(state: Studio, base: str) -> str:
    """The name, numbered if a variant has it already."""
    names, number = state.variants, 2
    if base not in names:
        return base
    while f"{base} ({number})" in names:
        number += 1
    return f"{base} ({number})"


def pictures(state: Studio, fitted: "LinearTransform") -> None:
    """T minus the identity, and the singular values."""
    if fitted.matrix is None:
        return
    width = len(fitted.matrix)
    with st.expander("Pictures of T", expanded=True):
        if width > _LARGE and not st.toggle(f"Draw them (width {width}: takes a while)", key="fit_draw", persist_state="session"):
            return
        matrix = fitted.matrix.numpy()
        left, right = split("pictures", [1, 1])
        picture, reach = matrix_picture(matrix, palette())
        distance = float(np.linalg.norm(matrix - np.eye(width))) / width**0.5
        left.image(picture, alt="T minus the identity")
        left.caption(
            f"{words.MATRIX_T_HELP} Full colour: ±{reach:.2g}. Distance from the identity: {distance:.2f} (0 would be plain removal)."
        )
        left.html(colour_bar(reach, palette()))
        values = live.singular_values(state, fitted)
        said = f"From {values[0]:.3g} to {values[-1]:.2g}; {int((values > 1).sum())} of {len(values)} directions are stretched, the others shrunk."
        show(spectrum_chart(values, palette()), right, alt=f"Singular values of T. {said}")
        right.caption(f"{words.SPECTRUM_HELP} {said}")
