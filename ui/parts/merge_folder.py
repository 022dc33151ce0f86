"""Keeping a variant of a model that is held quantised or spread: merged into its checkpoint on disk, into a folder that is asked for."""

import re
from typing import TYPE_CHECKING

import streamlit as st

from ui.look import words
from ui.model.form import gib
from ui.session.access import access
from ui.session.hub import Resident, available_memory
from ui.session.state import Studio

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from replaceme_core.artifacts import LinearTransform

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def folder_name(name: str) -> str:
    """What a variant's folder or zip is called: letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "variant"


def ask_folder(place: "DeltaGenerator", name: str, key: str) -> str:
    """Where a model called `name` goes; fixed on a shared server."""
    suggestion = f"exports/{folder_name(name)}"
    if access().shared:
        place.text_input("Folder", value=suggestion, disabled=True, help="On a shared server the folder is fixed.")
        return suggestion
    return place.text_input("Folder", value=suggestion, key=f"{key}_{suggestion}", persist_state="session").strip()


def explain(resident: Resident, fitted: "LinearTransform") -> None:
    """What Keep does to such a model, and whether the merged one fits into memory to be proved."""
    removed = sum(resident.block_parameters[block] for block in fitted.cut.blocks)
    needed = (resident.handle.n_parameters - removed) * BYTES[resident.section.dtype]
    st.caption(
        f"The model is {words.held(resident.section)}, so Keep writes the merged model to this folder: the checkpoint's own weights with T "
        f"merged in, not quantised. It is then read back once ({gib(needed)} in {resident.section.dtype}), proved, and offered for Compare and "
        "Benchmarks. Later it loads from the Model page like any other folder."
    )
    free = available_memory()
    if needed > 0.9 * free and resident.section.device != "spread":
        st.warning(
            f"The merged model needs {gib(needed)} to be proved, and {gib(free)} are free. Load the model in bfloat16 or over all devices, "
            "or unload others first.",
            icon=":material/memory:",
        )


def held_note(state: Studio) -> None:
    """Under the columns of Compare and Benchmarks: which of them is quantised."""
    resident = state.resident
    if resident is not None and resident.merges_on_disk and resident.section.quantisation:
        st.caption(f":material/info: The original is {words.held(resident.section)}, as it was measured. {words.UNEQUAL}")
