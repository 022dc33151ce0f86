"""Overview: the way in, where you are, and what was done before. Run with `streamlit run app.py`."""

import streamlit as st

from ui.frame import resume
from ui.frame.navigation import next_step
from ui.frame.page import page
from ui.look.site import NAME, PAGES, TAGLINE
from ui.overview import notebook, plans
from ui.overview import view as overview
from ui.parts.links import go
from ui.parts.start import about_real, offers_real, real_button, start_button

with page("overview") as state:
    st.markdown(f"# {NAME}")
    st.markdown(TAGLINE)
    overview.picture(state)
    started = state.resident is not None
    with st.container(horizontal=True):
        step = next_step(state)
        if started and step and st.button(f"Continue with {PAGES[step].title}", type="primary", icon=":material/arrow_forward:"):
            go(PAGES[step].file)
        if st.button("Learn it in ten minutes", type="secondary" if started else "primary", icon=PAGES["lesson"].icon, key="learn"):
            go(PAGES["lesson"].file)
        if offers_real():
            real_button(state, primary=False)
        start_button(state, primary=False)
        resume.offer(state)
        if st.button("Use another model", icon=":material/folder_open:"):
            go(PAGES["model"].file)
    if offers_real():
        about_real()
    st.markdown("### The steps")
    overview.steps(state.done_steps, next_step(state))
    overview.hardware()
    plans.offer(state)
    notebook.recent_runs(state)
