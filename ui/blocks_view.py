"""The parts of the Blocks page: ruler, heatmap, savings, profile and its table twin."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from replaceme_core.errors import ReplaceMeError
from replaceme_core.span import Cut
from ui import live, words
from ui.chart_style import show
from ui.job_panel import has_active_job
from ui.matrix_charts import LAYERS, blocks_text, matrix_chart, profile_chart, profile_rows
from ui.model_form import amount, gib
from ui.palette import palette
from ui.ruler import ruler
from ui.span_control import chart_key
from ui.state import Studio
from ui.work import time_span

if TYPE_CHECKING:
    from replaceme_core.artifacts import DistanceMatrix

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
    candidates = [span for span, _ in spans.top(_distances(state, name), len(state.span), _CANDIDATES)]
    chart = matrix_chart(live.layer(state, name), LAYERS[name], state.span, candidates, palette())
    show(
        chart,
        key=chart_key(state),
        on_select="rerun",
        selection_mode="cell",
        alt="Distance of every span; the table holds the same figures.",
    )
    marks = f"Figures 1–{len(candidates)} mark the least distant spans of this length, the dashed line all of them."
    st.caption(f"{words.MATRIX_HELP} {words.COLOUR_HELP[name]} {marks}")
    st.caption(f":material/inventory_2: The pass kept {live.measured(state).kept}; these can be fitted at once.")


def _distances(state: Studio, layer: str) -> "DistanceMatrix":
    return live.measured(state).distances["last" if layer == "cosine_last" else "all"]


def best_of_length(state: Studio) -> None:
    """One button: the least distant span with as many blocks as now."""
    from replaceme_core import spans

    if state.span is None:
        return
    length = len(state.span)
    best = spans.best(live.measured(state).distances["all"], length)
    label = f"Best {length} blocks: {blocks_text(best.start, best.end)}" if length > 1 else f"Best single block: {best.start}"
    if st.button(
        label, disabled=best == state.span, icon=":material/target:", help="The least distant span of this length, as the paper chooses it."
    ):
        state.choose(best)
        st.rerun()


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


def profile(state: Studio) -> None:
    """Distance of every place for the present length."""
    from replaceme_core import spans

    if state.span is None:
        return
    points = spans.profile(live.measured(state).distances["all"], len(state.span))
    st.markdown(f"**Is this the best place for {blocks_count(len(state.span))}?**")
    show(profile_chart(points, state.span, palette()))
    st.caption("◆ the least distant place · ■ the chosen one · band: two standard errors")


def verdict(state: Studio) -> None:
    """Whether the minimum of the profile stands out, in words."""
    from replaceme_core import spans

    if state.span is None:
        return
    distances = live.measured(state).distances["all"]
    st.markdown("**Is this minimum real?**")
    st.markdown(_verdict(profile_rows(spans.profile(distances, len(state.span))), distances.n_sequences))
    st.caption(words.PROFILE_HELP)


def blocks_count(number: int) -> str:
    return "1 block" if number == 1 else f"{number} blocks"


def _verdict(rows: pd.DataFrame, n_sequences: int) -> str:
    """Whether the minimum is real: how many other places lie within two standard errors of the difference."""
    best = rows.loc[rows["distance"].idxmin()]
    gap = rows["distance"] - best["distance"]
    close = rows[(gap <= 2 * (rows["error"] ** 2 + best["error"] ** 2) ** 0.5) & (rows["start"] != best["start"])]
    if len(rows) == 1:
        return "There is only one place for a span this long."
    if close.empty:
        return f"**The minimum is real:** {best['removes']} stand apart from every other place ({n_sequences:,} sequences)."
    others = "another place is" if len(close) == 1 else f"{len(close)} other places are"
    return f"**Not decided:** besides {best['removes']}, {others} within the spread of {n_sequences:,} sequences."


def table(state: Studio) -> None:
    """The table twin of the profile; choosing a row chooses its span."""
    from replaceme_core import spans

    if state.span is None:
        return
    ranked = spans.top(live.measured(state).distances["all"], len(state.span), 10_000)
    errors = {point.span: point.standard_error for point in spans.profile(live.measured(state).distances["all"], len(state.span))}
    rows = pd.DataFrame(
        {
            "": ["●" if span == state.span else "" for span, _ in ranked],
            "removes": [blocks_text(span.start, span.end) for span, _ in ranked],
            "distance": [distance for _, distance in ranked],
            "± s.e.": [errors[span] for span, _ in ranked],
        }
    )
    st.markdown("**The same as a table**, least distant first")
    key = f"table_{chart_key(state)}_{state.span}"
    event = st.dataframe(
        rows,
        hide_index=True,
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        height=min(38 + 35 * len(rows), 290),
        column_config={
            "": st.column_config.TextColumn(width=30),
            "distance": st.column_config.NumberColumn(format="%.4f"),
            "± s.e.": st.column_config.NumberColumn(format="%.4f"),
        },
    )
    picked = event["selection"]["rows"]
    if picked and ranked[picked[0]][0] != state.span:
        state.choose(ranked[picked[0]][0])
        st.rerun()
