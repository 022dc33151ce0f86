"""The span, one value behind heatmap, slider and table: whoever moves last decides, and the others follow."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.look import words
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Span


def chart_key(state: Studio) -> str:
    """The heatmap's widget key; a new one whenever the slider or the table moved the span."""
    return f"hm_{state.model}_{state.chart_nonce}"


def take_click(state: Studio) -> str:
    """Apply a click on the heatmap, before anything is drawn; returns why a cell cannot be chosen, if so.

    A stale or impossible selection changes nothing.
    """
    key = chart_key(state)
    cell = clicked_cell(st.session_state.get(key))
    if cell is None or (key, cell) == state.seen_click:
        return ""
    state.seen_click = (key, cell)
    if _possible(state, *cell):
        state.choose(_span(*cell), from_chart=True)
    return words.ROW_ZERO if cell[0] == 0 else ""


def choose_cell(state: Studio, start: int, end: int) -> bool:
    """Make the span of a cell of the table the present one; False if there is no such span."""
    if not _possible(state, start, end):
        return False
    state.choose(_span(start, end))
    return True


def _possible(state: Studio, start: int, end: int) -> bool:
    return 1 <= start < end <= (state.measurement.n_blocks if state.measurement else 0)


def clicked_cell(event: object) -> tuple[int, int] | None:
    """(start, end) of the selected cell, None when nothing is selected."""
    try:
        cell = event["selection"]["cell"]  # type: ignore[index]
        return int(cell[0]["start"]), int(cell[0]["end"])
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def span_slider(state: Studio, place: str) -> None:
    """A range of block numbers, first and last removed block. `place` keeps the keys of two pages apart."""
    n_blocks = state.measurement.n_blocks if state.measurement else 0
    if state.span is None or n_blocks < 2:
        return
    if n_blocks == 2:
        st.caption("A model of two blocks has one possible span: block 1.")
        return
    key = f"span_{place}_{state.model}"
    st.session_state[key] = (state.span.start, state.span.end - 1)
    st.slider(
        "Blocks to remove (first and last)",
        min_value=1,
        max_value=n_blocks - 1,
        key=key,
        on_change=_slid,
        args=(state, key),
        help=f"Block 0 always stays: {words.TERMS['carrier']}",
    )


def _slid(state: Studio, key: str) -> None:
    first, last = st.session_state[key]
    state.choose(_span(int(first), int(last) + 1))


def _span(start: int, end: int) -> "Span":
    from replaceme_core.artifacts import Span

    return Span(start, end)
