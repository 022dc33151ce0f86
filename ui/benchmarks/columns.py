"""Which variants a page sets beside the original and the cut, with their models."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.look import ruler
from ui.parts.quantised import held_note
from ui.session.state import Studio
from ui.session.variants import systems

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle

_MOST = 3


def ask_variants(state: Studio, place: str) -> list[str]:
    """Which variants are set beside the original and the cut; the newest by default."""
    names = list(state.variants)
    if len(names) == 1:
        return names
    key = f"variants_{place}"
    kept = [name for name in st.session_state.get(key, []) if name in names]
    if key in st.session_state:
        st.session_state[key] = kept or names[-1:]
    chosen = st.multiselect(
        "Variants to set beside the original",
        names,
        default=None if key in st.session_state else names[-1:],
        max_selections=_MOST,
        key=key,
        persist_state="session",
    )
    return chosen or names[-1:]


def columns_of(state: Studio, names: list[str]) -> "dict[str, ModelHandle]":
    """Name -> model of every column, with the ruler of the first variant above."""
    columns = systems(state, names)
    resident = state.resident
    if resident is not None and names:
        ruler.of_variant(resident.handle.n_blocks, names[0], state.variants[names[0]].transform)
        held_note(state)
    return columns
