"""Overview: where you are, the way in, and what was done before. Run with `streamlit run app.py`."""

import streamlit as st

from ui.frame import resume
from ui.frame.navigation import next_step
from ui.frame.page import page
from ui.look.site import NAME, PAGES, TAGLINE
from ui.overview import notebook, plans
from ui.overview import view as overview
from ui.parts.start import about_real, offers_real, real_button, start_button

with page("overview") as state:
    st.markdown(f"# {NAME}")
    st.markdown(TAGLINE)
    overview.picture(state)
    with st.container(horizontal=True):
        started = state.resident is not None
        step = next_step(state)
        if started and step and st.button(f"Continue with {PAGES[step].title}", type="primary", icon=":material/arrow_forward:"):
            st.switch_page(PAGES[step].file)
        lesson_first = overview.lesson_button()
        if offers_real():
            real_button(state, primary=not started and not lesson_first)
        start_button(state, primary=not started and not offers_real() and not lesson_first)
        resume.offer(state)
        if st.button("Use another model", icon=":material/folder_open:"):
            st.switch_page("pages/1_Model.py")
    if offers_real():
        about_real()
    st.markdown("### The steps")
    overview.steps(state.done_steps, next_step(state))
    overview.hardware()
    plans.offer(state)
    notebook.recent_runs(state)
