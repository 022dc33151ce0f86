"""The span, one value behind heatmap, slider and table: the strip of blocks that shows it, and the slider."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.look.glossary import TERMS
from ui.look.ruler import ruler
from ui.session.state import Studio

if TYPE_CHECKING:
    from collections.abc import Collection

    from replaceme_core.artifacts import Span


def ruler_of(state: Studio, solved: "Collection[int] | None" = None) -> None:
    """The strip of blocks with what is removed now, and the blocks that a refit gives new weights in place of a T."""
    if state.shown is not None:
        said = state.span_words(state.shown.n_blocks)
        ruler(state.shown.n_blocks, state.removed, said[:1].upper() + said[1:], solved=solved)


def span_slider(state: Studio, place: str) -> None:
    """A range of block numbers, first and last removed block. `place` keeps the keys of two pages apart."""
    n_blocks = state.shown.n_blocks if state.shown else 0
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
        help=f"Block 0 always stays: {TERMS['carrier']}",
    )


def _slid(state: Studio, key: str) -> None:
    first, last = st.session_state[key]
    state.choose(_span(int(first), int(last) + 1))


def _span(start: int, end: int) -> "Span":
    from replaceme_core.artifacts import Span

    return Span(start, end)
