"""The parts of the Overview: picture, steps and hardware. Recent runs are in notebook."""

import os
import platform
import sys

import streamlit as st

from ui.look.palette import palette
from ui.look.ruler import ruler, steps_html
from ui.session.access import access
from ui.session.hub import available_memory
from ui.session.state import Studio
from ui.session.warm import warm


def picture(state: Studio) -> None:
    """The current model as a ruler, or an example that shows the idea."""
    resident = state.resident
    if resident is not None:
        n_blocks = resident.handle.n_blocks
        ruler(n_blocks, state.removed, f"{resident.handle.name}: {state.span_words(n_blocks)}")
        return
    ruler(12, range(6, 9), "An example: blocks 6–8 of 12 go; block 5 carries the matrix that stands in for them.")


def steps(done: set[str], current: str | None) -> None:
    """The strip of steps and, under it, the way to each page."""
    st.html(steps_html(done, current, palette()))


def lesson_button() -> bool:
    """The way to the lesson, first where people share a server: it needs no model. Whether it is there."""
    if not access().shared:
        return False
    if st.button(
        "Begin with the lesson", type="primary", icon=":material/school:", help="Figures that were measured beforehand; nothing is loaded."
    ):
        st.switch_page("pages/7_Lesson.py")
    return True


def hardware() -> None:
    """What this machine offers; it looks again each second until the libraries are loaded."""
    st.fragment(_hardware, run_every=None if _device() else 1.0)()


def _hardware() -> None:
    st.markdown("### This machine")
    device, memory, cores = st.columns(3)
    cores.metric("Processor cores", os.cpu_count() or 1, help=platform.processor() or platform.machine())
    memory.metric("Free memory", f"{available_memory() / 2**30:.1f} GiB", help="Main memory that a model can use now.")
    device.metric(
        "Runs on", _device() or "checking …", help="The device is chosen on the Model page; 'auto' takes a graphics card if there is one."
    )


def _device() -> str:
    """The best device, empty while the libraries are still being loaded."""
    torch = sys.modules.get("torch")
    if torch is None or warm().is_alive():  # while it is being imported, a module may be there by half
        return ""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return "Apple GPU" if torch.backends.mps.is_available() else "CPU"
