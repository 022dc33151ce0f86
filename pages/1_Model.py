"""Model: which model, and which text it is measured on."""

import streamlit as st

from ui.frame.page import page
from ui.model import calibration_form as text_form
from ui.model import form as model_form
from ui.model import preview as text_preview
from ui.model import stored, words
from ui.model import unload as unload_view
from ui.parts.job_panel import has_active_job, show_job
from ui.session.work import load_model, measure_set

with page("model") as state:
    busy = has_active_job(state)
    st.markdown("### 1. The model")
    model_form.card(state)
    unload_view.button(state)
    with st.expander("Choose another model" if state.resident else "Choose a model", expanded=state.resident is None):
        section = model_form.ask(state)
        with st.container(horizontal=True):
            load = st.button("Load this model", type="primary" if state.resident is None else "secondary", disabled=busy or section is None)
            check = section is not None and model_form.must_ask(section) and st.button("Check memory first")
        if load:
            load_model(state, section)
            st.rerun()
        if section is not None:
            model_form.show_preflight(section, asked=check)
    if busy:
        show_job(state, large=True)
        text_preview.under_way(state)
    if state.resident is not None:
        st.markdown("### 2. The calibration set")
        chosen = text_form.ask(state)
        if chosen is not None:
            fresh = text_preview.is_new(state, chosen)
            label, kind = ("Measure", "primary") if fresh else ("Measure again", "secondary")
            if st.button(label, type=kind, icon=":material/straighten:", disabled=busy, help=words.MEASURE_HELP):
                measure_set(state, chosen, again=not fresh)
                st.rerun()
            text_preview.preview(state, chosen)
        text_preview.measured(state)
        stored.kept()
