"""The two starts, a real language model and the small demo: all that each does, and where it leads."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.models.checkpoints import smollm2
from ui.look.site import PAGES
from ui.parts.links import go
from ui.session.access import access
from ui.session.calibration_choice import Chosen
from ui.session.hub import Resident, hub
from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.work import measure_now, submit

if TYPE_CHECKING:
    from replaceme_core.plans.plan import CalibrationSection

LABEL = "Start with the small demo, in seconds"
ICON = ":material/play_arrow:"
REAL_LABEL = "Start with a real language model"
REAL_ICON = ":material/rocket_launch:"
_TOKENS = 8192
"""64 for every unknown of the demo model, and the matrix in seconds"""
_NEXT = "blocks"


def start_demo(state: Studio) -> Job:
    """Load the demo model, measure it on the mixture, choose a span: everything up to the matrix."""
    from replaceme_core.plans.plan import CalibrationSection

    return _start(state, "Starting the demo model", "demo", lambda _: CalibrationSection(max_tokens=_TOKENS))


def start_real(state: Studio) -> Job:
    """The same with SmolLM2, on the text that belongs to it (`plans.defaults`); the matrix is there before the pass has ended."""

    def follow_the_model(resident: Resident) -> "CalibrationSection":
        from replaceme_core import pipeline  # in the job: on the page it would be waited for
        from replaceme_core.plans.plan import CalibrationSection

        return pipeline.filled(CalibrationSection(), resident.handle, smollm2.NAME)

    return _start(state, "Starting SmolLM2", smollm2.NAME, follow_the_model)


def _start(state: Studio, title: str, path: str, text: "Callable[[Resident], CalibrationSection]") -> Job:
    """One job: load, then measure on that text."""

    def work(job: Job) -> None:
        from replaceme_core.plans.plan import ModelSection

        access().require(path)
        job.update(0, 0, "", "loading the libraries")
        resident = hub().load(ModelSection(path=path), job)
        state.use_model(resident)
        measure_now(state, resident, Chosen(text(resident)), job)

    return submit(state, title, work, moves=True)


def start_button(state: Studio, primary: bool = True, key: str | None = None) -> None:
    """The demo's button; a press starts the job and goes to the page that shows its matrix."""
    _button(state, LABEL, ICON, start_demo, primary, key)


def real_button(state: Studio, primary: bool = True, key: str | None = None) -> None:
    """The real model's."""
    _button(state, REAL_LABEL, REAL_ICON, start_real, primary, key)


def _button(state: Studio, label: str, icon: str, start: Callable[[Studio], Job], primary: bool, key: str | None) -> None:
    if st.button(label, type="primary" if primary else "secondary", icon=icon, key=key):
        start(state)
        go(PAGES[_NEXT].file)


def offers_real() -> bool:
    """Whether this server lets SmolLM2 be loaded."""
    return not access().shared or smollm2.NAME in access().models


def about_real() -> None:
    """Which SmolLM2 the button means on this machine, and how to have it without a network."""
    here = smollm2.packaged() is not None
    st.caption(
        "*A real language model* is SmolLM2-135M-Instruct: 30 blocks, 135 million parameters. It is loaded from "
        f"{smollm2.origin()}{', without a network' if here else ''}."
    )
    if not here:
        st.caption("To have it on this machine, for use without a network, type this once (92 MB) and start the app again:")
        st.code(smollm2.INSTALL, language="bash")
