"""What the pages say of a model that is held quantised or spread, so that its transform is merged on disk."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import ModelSection

_UNEQUAL = "The variants are not quantised, so a part of every difference is that of the quantisation. Nothing is removed in memory, so there is no column without a transform."


def held(section: "ModelSection") -> str:
    """How such a model is in memory: 'held in 4 bits (NF4)', 'spread over all devices', or both."""
    bits = {"nf4": "held in 4 bits (NF4)", "int8": "held in 8 bits (int8)"}.get(section.quantisation or "", "")
    return ", ".join(part for part in (bits, "spread over all devices" if section.device == "spread" else "") if part)


def held_note(state: Studio) -> None:
    """Under the columns of Compare and Benchmarks: which of them is quantised."""
    resident = state.resident
    if resident is not None and resident.merges_on_disk and resident.section.quantisation:
        st.caption(f":material/info: The original is {held(resident.section)}, as it was measured. {_UNEQUAL}")


def prunes_in_memory(state: Studio, refused: str) -> bool:
    """Whether cuts of the loaded model can be made in memory; `refused` is said where it is held otherwise."""
    resident = state.resident
    if resident is not None and resident.merges_on_disk:
        st.info(refused, icon=":material/info:")
        return False
    return resident is not None and resident.handle.family.merge != "refused"
