"""A table of which one row is chosen, with the mouse or the keyboard."""

from typing import Any

import pandas as pd
import streamlit as st

_HEAD, _ROW = 38, 35
"""pixels"""


def chosen_row(frame: pd.DataFrame, key: str, columns: dict[str, Any], alt: str, most: int = 420) -> int | None:
    """Draw the table, at most `most` pixels high; the number of the chosen row, None where none is."""
    event = st.dataframe(
        frame,
        hide_index=True,
        height=min(_HEAD + _ROW * len(frame), most),
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        column_config=columns,
        alt=alt,
    )
    return next((row for row in event["selection"]["rows"] if row < len(frame)), None)
