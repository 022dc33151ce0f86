"""The parts of the Overview: picture, steps and hardware. Recent runs are in notebook."""

import os
import platform
import sys

import streamlit as st

from replaceme_core import memory
from ui.look.ruler import ruler
from ui.look.site import PAGES, STEPS
from ui.parts.links import link
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
    """The steps as links, each with where it stands in a word and a sign."""
    with st.container(horizontal=True, gap="xsmall", key="steps"):
        for number, step in enumerate(STEPS, start=1):
            icon, said = ("check_circle", "done") if step in done else ("play_circle", "next") if step == current else ("circle", "to do")
            with st.container(width=128, gap=None):
                link(PAGES[step].file, f"{number} · {PAGES[step].title}", f":material/{icon}:")
                st.caption(said)


def hardware() -> None:
    """What this machine offers; it looks again each second until the libraries are loaded."""
    st.fragment(_hardware, run_every=None if _device() else 1.0)()


def _hardware() -> None:
    st.markdown("### This machine")
    device, main, cores = st.columns(3)
    cores.metric("Processor cores", os.cpu_count() or 1, help=platform.processor() or platform.machine())
    main.metric("Free memory", f"{memory.of('cpu')[0] / 2**30:.1f} GiB", help="Main memory that a model can use now.")
    device.metric(
        "Runs on", _device() or "checking …", help="The device is chosen on the Model page; 'auto' takes a graphics card if there is one."
    )
    for name, free, total in memory.cards() if _device() else []:  # of each, beside its name: two cards may be of one kind
        st.caption(f":material/memory: {name}: {free / 2**30:.1f} of {total / 2**30:.1f} GiB free.")


def _device() -> str:
    """The best device, empty while the libraries are still being loaded."""
    torch = sys.modules.get("torch")
    if torch is None or warm().is_alive():  # while it is being imported, a module may be there by half
        return ""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return "Apple GPU" if torch.backends.mps.is_available() else "CPU"
