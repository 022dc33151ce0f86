"""Overview: where you are, the way in, and what was done before. Run with `streamlit run app.py`."""

import streamlit as st

from ui.frame import resume
from ui.frame.boot import done_steps, next_step, page
from ui.look import words
from ui.overview import view as overview
from ui.session.work import start_demo

with page("overview") as state:
    st.markdown(f"# {words.NAME}")
    st.markdown(words.TAGLINE)
    overview.picture(state)
    with st.container(horizontal=True):
        started = state.resident is not None
        if st.button("Start with the demo model", type="secondary" if started else "primary", icon=":material/play_arrow:"):
            start_demo(state)
            st.switch_page("pages/2_Blocks.py")
        step = next_step(state)
        if started and step and st.button(f"Continue with {words.PAGES[step].title}", type="primary", icon=":material/arrow_forward:"):
            st.switch_page(words.PAGES[step].file)
        resume.offer(state)
        if st.button("Use another model", icon=":material/folder_open:"):
            st.switch_page("pages/1_Model.py")
    st.markdown("### The steps")
    overview.steps(done_steps(state), next_step(state))
    overview.hardware()
    overview.recent_runs()
