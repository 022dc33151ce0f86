"""Benchmarks: how much of the model's ability is left, with error bars and flips."""

import streamlit as st

from ui.benchmarks import columns as system_columns
from ui.benchmarks import form as suite_form
from ui.benchmarks import view as benchmark_view
from ui.frame.page import needs, page

with page("benchmarks") as state:
    if needs(state, variant=True, text=True):
        names = system_columns.ask_variants(state, "benchmarks")
        columns = system_columns.columns_of(state, names)
        settings = st.container()
        with settings:
            section = suite_form.ask(state)
        if section is None:
            benchmark_view.from_files(state)
        else:
            benchmark_view.run_button(state, columns, section)
            benchmark_view.results(state, columns, section)
