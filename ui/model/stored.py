"""What the calibration pass will write to the disk, said before it starts, beside what there is room for."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.look.figures import gib
from ui.model import words
from ui.session.access import access
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import CalibrationSection


def kept() -> None:
    """How many passes, fits and variants lie in the cache, and a button that removes them; nothing on a server that is shared."""
    from replaceme_core.measurement import past_passes
    from replaceme_core.storage import shelf
    from replaceme_core.storage.cache import cache_folder

    held = {"pass": past_passes.held(), **{kind.removesuffix("s"): shelf.held(kind) for kind in shelf.KINDS}}
    number, size = (sum(figures) for figures in zip(*held.values(), strict=True))
    if not number or access().shared:
        return
    plural = {"pass": "passes"}
    parts = [f"{n} {what if n == 1 else plural.get(what, f'{what}s')}" for what, (n, _) in held.items() if n]
    said, button = st.columns([3, 1], vertical_alignment="center")
    said.caption(
        f":material/inventory_2: {_listed(parts)} of this and earlier sessions {'are' if number > 1 else 'is'} kept in {cache_folder()} "
        f"({gib(size)}); the oldest go by themselves when room is needed. {words.KEPT}"
    )
    if button.button("Remove them", key="remove_passes", help="What is measured and saved now stays until the model is unloaded."):
        past_passes.clear()
        shelf.clear()
        st.rerun()


def _listed(parts: list[str]) -> str:
    """'one', 'one and two', 'one, two and three'."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


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
