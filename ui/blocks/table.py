"""The table twin of the heatmap, for the keyboard: arrow keys go from cell to cell, and the cell one stands on is the chosen span."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from ui.blocks import words
from ui.blocks.clicks import choose_cell
from ui.blocks.layers import LAYERS
from ui.blocks.state import BlocksState
from ui.session.state import Studio

_HEIGHT = 470


def frame_of(values: np.ndarray) -> pd.DataFrame:
    """Rows: first removed block; columns: last removed block; cells that are no span are empty."""
    n_blocks = len(values) - 1
    spans = np.triu(np.ones((n_blocks - 1, n_blocks - 1), dtype=bool))
    return pd.DataFrame(
        np.where(spans, values[1:n_blocks, 2:], np.nan),
        index=[f"from {start}" for start in range(1, n_blocks)],
        columns=[f"to {last}" for last in range(1, n_blocks)],
    )


def take_cell(state: Studio) -> None:
    """Apply a move in the table, before anything is drawn. A selection from before somebody else moved the span is dropped."""
    moves = state.slot(BlocksState)
    number, own = moves.table_moves
    picked = _picked(st.session_state.get(_key(state)))
    if picked is not None and picked != own and choose_cell(state, *picked):
        moves.table_moves = (number, picked)
    elif own is not None and state.span is not None and own != (state.span.start, state.span.end):
        moves.table_moves = (number + 1, None)


def matrix_table(state: Studio, name: str, values: np.ndarray) -> None:
    """The same figures as the heatmap, drawn when it is opened."""
    box = st.expander("The matrix as a table (for the keyboard)", icon=":material/table:", key="matrix_table", on_change="rerun")
    if not box.open:
        return
    with box:
        st.caption(words.MATRIX_TABLE_HELP)
        frame = frame_of(values)
        st.dataframe(
            frame,
            key=_key(state),
            placeholder="",
            on_select="rerun",
            selection_mode="single-cell",
            height=min(38 + 35 * len(frame), _HEIGHT),
            column_config={column: st.column_config.NumberColumn(format=_format(name), width=66) for column in frame.columns},
            alt=f"{LAYERS[name].title} of every span: rows are the first removed block, columns the last.",
        )


def _key(state: Studio) -> str:
    return f"cells_{state.model}_{state.slot(BlocksState).table_moves[0]}"


def _format(name: str) -> str:
    """In the notation of a table's column."""
    format = LAYERS[name].look.format
    return "percent" if format.endswith("%") else f"%{format}"


def _picked(event: Any) -> tuple[int, int] | None:
    """(start, end) of the selected cell; None when nothing is selected."""
    try:
        row, column = event["selection"]["cells"][0]
        return int(row) + 1, int(column.removeprefix("to ")) + 1
    except (KeyError, IndexError, TypeError, ValueError):
        return None
