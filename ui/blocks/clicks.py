"""A cell chosen on the heatmap or in its table: whoever moved last decides, and the others follow."""

import streamlit as st

from ui.blocks import words
from ui.blocks.state import BlocksState
from ui.parts.heatmap import clicked_cell
from ui.session.state import Studio


def chart_key(state: Studio) -> str:
    """The heatmap's widget key; a new one once the slider or the table has moved the span away from a clicked cell.

    It is the only way to drop a stale choice, without which the same cell could not be clicked again; and it makes the browser build the
    whole chart anew, so that it stays the same from step to step of the slider.
    """
    return f"hm_{state.model}_{state.slot(BlocksState).charts}"


def places_key(state: Studio) -> str:
    """Part of the widget keys of what lists places: a new one whenever the span was moved by anything but a click on the heatmap."""
    return f"{state.model}_{state.span_moves}"


def take_click(state: Studio) -> str:
    """Apply a click on the heatmap, before anything is drawn; returns why a cell cannot be chosen, if so.

    A stale or impossible selection changes nothing.
    """
    key, own = chart_key(state), state.slot(BlocksState)
    cell = clicked_cell(st.session_state.get(key))
    if cell is None:
        return ""
    if own.seen_click is not None and own.seen_click[:2] == (key, cell):
        own.charts += own.seen_click[2] != state.span_moves
        return ""
    choose_cell(state, *cell, from_chart=True)
    own.seen_click = (key, cell, state.span_moves)
    return words.ROW_ZERO if cell[0] == 0 else ""


def choose_cell(state: Studio, start: int, end: int, from_chart: bool = False) -> bool:
    """Make the span of a cell the present one; False if there is no such span."""
    from replaceme_core.artifacts import Span

    if not 1 <= start < end <= (state.shown.n_blocks if state.shown else 0):
        return False
    state.choose(Span(start, end), from_chart)
    return True
