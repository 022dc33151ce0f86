"""*Start with the demo model*: all that it does, and where it leads."""

import streamlit as st

from ui.look.site import PAGES
from ui.session.calibration_choice import Chosen
from ui.session.hub import hub
from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.work import measure_now, submit

LABEL = "Start with the demo model"
ICON = ":material/play_arrow:"
_MODEL = "demo"
_TOKENS = 8192
"""64 for every unknown of the demo model, and the matrix in seconds"""
_NEXT = "blocks"


def start_demo(state: Studio) -> Job:
    """Load the demo model, measure it on the mixture, choose a span: everything up to the matrix."""
    from replaceme_core.plans.plan import CalibrationSection, ModelSection

    def work(job: Job) -> None:
        job.update(0, 0, "", "loading the libraries")
        resident = hub().load(ModelSection(path=_MODEL), job)
        state.use_model(resident)
        measure_now(state, resident, Chosen(CalibrationSection(max_tokens=_TOKENS)), job)

    return submit(state, "Starting the demo model", work)


def start_button(state: Studio, primary: bool = True, key: str | None = None) -> None:
    """The button; a press starts the job and goes to the page that shows its matrix."""
    if st.button(LABEL, type="primary" if primary else "secondary", icon=ICON, key=key):
        start_demo(state)
        st.switch_page(PAGES[_NEXT].file)
