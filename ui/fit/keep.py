"""Saving a fit as a variant and going on with it: its name; and the folder, where the model is held quantised or spread and is merged on disk."""

from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core import memory
from ui.fit import words
from ui.look.figures import gib
from ui.look.site import PAGES
from ui.parts.folder import BYTES, ask_folder
from ui.parts.job_panel import has_active_job
from ui.parts.links import go
from ui.parts.quantised import held
from ui.session.hub import Resident
from ui.session.state import Studio
from ui.session.variants import free_name, is_taken, keep_variant, variant_name

if TYPE_CHECKING:
    from replaceme_core.artifacts import LinearTransform


def keep(state: Studio, fitted: "LinearTransform") -> None:
    """Name the result, save it and go on to Compare: the primary action of the page. Or save it and stay, to fit another one."""
    base = variant_name(fitted.cut, fitted.method)
    with st.container(border=True):
        st.caption(words.KEEP_WHY)
        name = st.text_input("Name of the variant", value=free_name(state, base), key=f"variant_name_{base}_{len(state.variants)}").strip()
        taken = is_taken(state, name)
        resident = state.resident
        on_disk = resident is not None and resident.merges_on_disk
        folder = ask_folder(st.container(), name, "merge_folder") if on_disk else None
        refused = not name or taken or has_active_job(state, "short") or folder == ""
        with st.container(horizontal=True):
            if st.button("Save and continue", type="primary", icon=":material/arrow_forward:", icon_position="right", disabled=refused):
                keep_variant(state, name, fitted, folder)
                go(PAGES["compare"].file)
            if st.button("Save and stay", icon=":material/bookmark_add:", disabled=refused, help=words.STAY_HELP):
                keep_variant(state, name, fitted, folder)
                st.rerun()
        if taken:
            st.caption("This name is taken; choose another one.")
        if resident is not None and on_disk:
            _explain(resident, fitted)
        else:
            st.caption(words.KEEP_HELP)


def _explain(resident: Resident, fitted: "LinearTransform") -> None:
    """What saving does to such a model, and whether the merged one fits into memory to be checked."""
    removed = sum(resident.block_parameters[block] for block in fitted.cut.blocks)
    needed = (resident.handle.n_parameters - removed) * BYTES[resident.section.dtype]
    st.caption(
        f"The model is {held(resident.section)}, so saving writes the merged model to this folder: the checkpoint's own weights with T "
        f"merged in, not quantised. It is then read back once ({gib(needed)} in {resident.section.dtype}), checked, and offered for Compare and "
        "Benchmarks. Later it loads from the Model page like any other folder."
    )
    free = memory.of(resident.handle.device)[0]
    if needed > 0.9 * free and resident.section.device != "spread":
        st.warning(
            f"The merged model needs {gib(needed)} to be checked, and {gib(free)} are free. Load the model in bfloat16 or over all devices, "
            "or unload others first.",
            icon=":material/memory:",
        )
