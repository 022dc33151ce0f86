"""What the calibration pass will write to the disk, said before it starts, beside what there is room for."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.look.figures import gib
from ui.model import words
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import CalibrationSection


def say(state: Studio, section: "CalibrationSection") -> None:
    """One line; a warning where there is no room: the pass then measures distances alone."""
    resident = state.resident
    if resident is None:
        return
    from replaceme_core.measurement import past_passes
    from replaceme_core.measurement.activation_store import Layout

    handle, room = resident.handle, past_passes.room()
    needed = Layout.of(handle.n_blocks, handle.width, handle.dtype, section.max_tokens).n_bytes
    if needed <= room:
        st.caption(f":material/hard_drive: {words.STORED.format(needed=gib(needed), room=gib(room))}")
    else:
        fitting = room * section.max_tokens // needed
        st.warning(
            f"{words.NOT_STORED.format(needed=gib(needed), room=gib(room), place=past_passes.folder())} About {fitting:,} tokens would fit.",
            icon=":material/hard_drive:",
        )
