"""The folder that a page writes to: its name from that of a variant, fixed where a server is shared."""

import re
from typing import TYPE_CHECKING

from ui.session.access import access
from ui.session.state import studio

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""of a number, by precision"""
FIXED = "On a shared server the folder is fixed."


def folder_name(name: str, otherwise: str = "variant") -> str:
    """What a folder or zip of this name is called: letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or otherwise


def ask_folder(place: "DeltaGenerator", name: str, key: str) -> str:
    """Where a model called `name` goes; fixed on a shared server, and there of this session, so that two students do not meet."""
    suggestion = f"exports/{folder_name(name)}"
    if access().shared:
        suggestion = f"{suggestion}-{studio().owner}"
        place.text_input("Folder", value=suggestion, disabled=True, help=FIXED)
        return suggestion
    return place.text_input("Folder", value=suggestion, key=f"{key}_{suggestion}", persist_state="session").strip()
