"""The parts of the Blocks page about one span: ruler, heatmap, savings, time, and what a fit of it would give."""

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from replaceme_core.span import Cut
from ui import live, words
from ui.chart_style import show
from ui.job_panel import has_active_job
from ui.matrix_charts import LAYERS, matrix_chart
from ui.model_form import amount, gib
from ui.palette import palette
from ui.place_view import criterion_title
from ui.ruler import ruler
from ui.span_control import chart_key
from ui.state import Studio
from ui.work import time_span

_CANDIDATES = 3


def ruler_of(state: Studio) -> None:
    n_blocks = live.measured(state).n_blocks
    ruler(n_blocks, state.removed, state.span_words(n_blocks)[:1].upper() + state.span_words(n_blocks)[1:])


def ask_layer() -> str:
    """Which layer of the matrix is drawn."""
    return (
        st.segmented_control(
            "What the colour shows",
            list(LAYERS),
            format_func=lambda key: words.LAYERS[key][0],
            default="cosine_all",
            required=True,
            key="matrix_layer",
            persist_state="session",
        )
        or "cosine_all"
    )


def heatmap(state: Studio, name: str) -> None:
    """The upper triangle; a click on a cell is read by `span_control.take_click`."""
    from replaceme_core import spans

    if state.span is None:
        return
    st.caption(words.LAYERS[name][1])
    ranking, _ = live.ranking(state, len(state.span))
    candidates = [span for span, _ in spans.top(ranking, len(state.span), _CANDIDATES)]
    chart = matrix_chart(live.layer(state, name), LAYERS[name], state.span, candidates, palette())
    show(
        chart,
        key=chart_key(state),
        on_select="rerun",
        selection_mode="cell",
        alt="Distance of every span; the table holds the same figures.",
    )
    marks = f"Figures 1–{len(candidates)} mark the first spans of this length by '{criterion_title(state)}', the dashed line all of them."
    st.caption(f"{words.MATRIX_HELP} {words.COLOUR_HELP[name]} {marks}")
    st.caption(f":material/inventory_2: The pass kept {live.measured(state).kept}; these can be fitted at once.")


def savings(state: Studio) -> None:
    """What the pruned model no longer has to store and to compute, all spans together."""
    resident, cut = state.resident, state.cut
    if resident is None or cut is None:
        return
    handle = resident.handle
    saved = sum(resident.block_parameters[block] for block in cut.blocks)
    depth, parameters, memory = st.columns(3)
    depth.metric(
        "Depth",
        f"−{len(cut) / handle.n_blocks:.0%}",
        help="Share of the blocks that is removed; time per token falls by about as much.",
    )
    parameters.metric("Parameters", f"−{amount(saved)}", help=f"{saved / handle.n_parameters:.1%} of {amount(handle.n_parameters)}")
    memory.metric("Memory", f"−{gib(handle.n_bytes * saved / handle.n_parameters)}", help=f"of {gib(handle.n_bytes)} in {handle.dtype}")


def timing(state: Studio) -> None:
    """Measured time per token with and without the span, or the button that measures it."""
    resident = state.resident
    if resident is None or state.span is None:
        return
    if state.reads_images:
        return
    if resident.merges_on_disk:
        st.caption(f":material/timer: {words.NO_TIMING.format(held=words.held(resident.section))}")
        return
    cut = resident.cuts.get(Cut((state.span,)))
    before = state.speeds.get(resident.handle.fingerprint)
    after = state.speeds.get(cut.handle.fingerprint) if cut is not None else None
    if before is None or after is None:
        if st.button(
            "Time it",
            icon=":material/timer:",
            disabled=has_active_job(state),
            help="Measures the time per token with and without these blocks.",
        ):
            time_span(state, state.span)
            st.rerun()
        return
    old, new = 1000 / before.decode_tokens_per_s, 1000 / after.decode_tokens_per_s
    st.caption(f":material/timer: Measured: {old:.1f} → **{new:.1f} ms per token** ({new / old - 1:+.0%}), median of {after.repeats}.")


def expected(state: Studio) -> None:
    """The refitted report in one line, live with the span."""
    if state.span is None:
        return
    if not live.can_fit(state, state.span):
        st.info("The calibration pass did not keep this span. The Fit page can measure it.", icon=":material/straighten:")
        return
    try:
        report = live.transform(state, state.span, live.closed_form(state)).report
    except ReplaceMeError as error:
        st.warning(str(error), icon=":material/warning:")
        return
    fitted, removed = st.columns(2)
    tokens = f"On {report.n_heldout_tokens:,} held-out tokens."
    fitted.metric("Error after the fit", f"{report.heldout_error:.1%}", help=f"{tokens} {words.FIT_HELP}")
    removed.metric("Plain removal", f"{report.removal_error:.1%}", help=f"The same error with nothing in the blocks' place. {tokens}")
