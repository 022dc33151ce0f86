"""The parts of the Blocks page about one span: heatmap, savings, time, and what a fit of it would give."""

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.blocks import savings as savings_of
from ui.blocks import words
from ui.blocks.clicks import chart_key
from ui.blocks.costs import COST_LAYERS
from ui.blocks.layers import LAYERS, cells_of, compute_errors
from ui.blocks.ranking import criterion_title, ranking
from ui.blocks.state import PinnedState
from ui.blocks.table import matrix_table
from ui.look.figures import duration
from ui.look.palette import palette
from ui.look.systems import CUT
from ui.look.words import FIT_HELP, IN_SEQUENCE
from ui.parts.chart import show
from ui.parts.heatmap import Marks, matrix_chart
from ui.parts.job_panel import has_active_job, show_job
from ui.parts.quantised import held
from ui.session import live
from ui.session.methods import closed_form
from ui.session.state import Studio
from ui.session.work import submit

_CANDIDATES = 3


def ask_layer() -> str:
    """Which layer of the matrix is drawn."""
    return (
        st.segmented_control(
            "What the colour shows",
            list(LAYERS),
            format_func=lambda key: LAYERS[key].title,
            default="cosine_all",
            required=True,
            key="matrix_layer",
            wrap=True,
            persist_state="session",
        )
        or "cosine_all"
    )


def heatmap(state: Studio, name: str) -> None:
    """The upper triangle; a click on a cell is read by `clicks.take_click`. Its table twin is below it."""
    from replaceme_core.selection import spans

    if state.span is None:
        return
    layer = LAYERS[name]
    st.caption(layer.help)
    values = layer.values(state)
    if values is None and name in COST_LAYERS:
        st.caption(words.COSTS_LATER)
        return
    if values is None:
        _errors_first(state)
        return
    if layer.caption is not None:
        st.caption(layer.caption(state))
    matrix, _ = ranking(state, len(state.span))
    candidates = tuple(span for span, _ in spans.top(matrix, len(state.span), _CANDIDATES))
    kept = state.slot(PinnedState).cut
    pinned = kept.spans if kept is not None else ()
    marks = Marks(state.span, candidates, tuple(state.more), tuple(span for span in pinned if span != state.span))
    show(
        matrix_chart(cells_of(state, name, values), live.shown(state).n_blocks, layer.look, marks, palette()),
        key=chart_key(state),
        on_select="rerun",
        selection_mode="cell",
        alt=f"{layer.title} of every span; the table below holds the same figures.",
    )
    said = f"Thin frames: all spans of this length; figures 1–{len(candidates)}: the first of them by '{criterion_title(state)}'."
    more = f" {words.DASHED_HELP}" if marks.others or marks.pinned else ""
    st.caption(f"{words.MATRIX_HELP} {layer.colour_help} {said}{more}")
    matrix_table(state, name, values)


def under_way(state: Studio) -> None:
    """The pass that is not over yet: its progress, and from how much of it the matrix is."""
    if state.partial is None:
        return
    with st.container(border=True, key="so_far"):
        show_job(state, large=True)
        st.markdown(f":material/motion_photos_on: The matrix is **{so_far(state)}**.")
        st.caption(words.SO_FAR)


def so_far(state: Studio) -> str:
    """'from 1,536 of 6,656 tokens so far'."""
    return f"from {live.shown(state).n_tokens:,} of {state.partial_of:,} tokens so far"


def _errors_first(state: Studio) -> None:
    """The layer of errors takes a fit for every span: a job, begun by choosing the layer and ended by its last span."""
    if state.partial is not None:
        st.caption(words.ERRORS_LATER)
        return
    if not has_active_job(state):
        st.caption(words.ERRORS_HELP)
        n_spans = len(live.measured(state).spans())
        if not st.button(f"Fit all {n_spans} spans", icon=":material/play_arrow:", type="primary"):
            return
        submit(state, words.ERRORS, lambda job: compute_errors(state, job), closed_form(state).model_dump_json())
        st.rerun()
    show_job(state, large=True)


def savings(state: Studio) -> None:
    """What the pruned model no longer has to store and to compute, all spans together; time is measured, or asked for."""
    saved = savings_of.cut(state, state.cut)
    if saved is None:
        return
    with st.container(horizontal=True, gap="medium"):
        st.metric("Depth", f"−{saved.depth:.0%}", help="Share of the blocks that is removed.", width="content")
        st.metric("Parameters", f"−{saved.parameters}", help=saved.parameters_help, width="content")
        st.metric("Memory", f"−{saved.memory}", help=saved.memory_help, width="content")


def timing(state: Studio) -> None:
    """Measured time per token with and without the blocks, or the button that measures it."""
    resident, cut = state.resident, state.cut
    if resident is None or cut is None or state.reads_images:
        return
    if resident.merges_on_disk:
        st.caption(f":material/timer: {words.NO_TIMING.format(held=held(resident.section))}")
        return
    time = savings_of.time_per_token(state, cut)
    if time is not None:
        st.markdown(
            f":material/timer: Measured: {time.before:.1f} → **{time.after:.1f} ms per token** ({time.share:+.0%})".replace("-", "−")
        )
        st.caption(time.spread)
    if st.button(
        "Time it" if time is None else "Time it again",
        icon=":material/timer:",
        disabled=has_active_job(state),
        help="Measures the time per token with and without these blocks.",
    ):
        savings_of.time_cuts(state, [cut])
        st.rerun()


def is_fitted(state: Studio) -> bool:
    """Whether what `expected` shows is there already."""
    return state.span is not None and state.partial is None and live.is_fitted(state, state.span, closed_form(state))


def expected(state: Studio) -> None:
    """The refitted report in one line, live with the span."""
    if state.span is None:
        return
    if state.more:
        st.caption(f":material/view_week: {IN_SEQUENCE.split(';')[0]}, on the Fit page.")
        return
    if state.partial is not None:
        st.caption(f":material/hourglass_top: {words.FIT_LATER}")
        return
    if not live.can_fit(state, state.span):
        st.info(live.measured(state).lacking, icon=":material/hard_drive:")
        return
    seconds = live.expected_seconds(state, state.span, closed_form(state))
    if seconds > live.LONG:
        st.caption(f":material/hourglass_empty: {words.FIT_LONG.format(time=duration(seconds))}")
        return
    try:
        with live.fitting(state, state.span, closed_form(state)):
            report = live.transform(state, state.span, closed_form(state)).report
    except ReplaceMeError as error:
        st.warning(str(error), icon=":material/warning:")
        return
    tokens = f"On {report.n_heldout_tokens:,} held-out tokens."
    with st.container(horizontal=True, gap="medium"):
        st.metric("Error, fitted", f"{report.heldout_error:.1%}", help=f"{tokens} {FIT_HELP}", width="content")
        st.metric(
            CUT.capitalize(),
            f"{report.removal_error:.1%}",
            help=f"The same error with nothing in the blocks' place. {tokens}",
            width="content",
        )
