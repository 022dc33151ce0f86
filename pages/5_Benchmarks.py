"""Benchmarks: how much of the model's ability is left, with error bars and flips."""

import streamlit as st

from ui.benchmarks import columns as compare_view
from ui.benchmarks import form as suite_form
from ui.benchmarks import view as benchmark_view
from ui.frame.boot import needs, page

with page("benchmarks") as state:
    if needs(state, variant=True, text=True):
        names = compare_view.ask_variants(state, "benchmarks")
        columns = compare_view.columns_of(state, names)
        settings = st.container()
        with settings:
            section = suite_form.ask(state)
        if section is None:
            benchmark_view.from_files()
        else:
            benchmark_view.run_button(state, columns, section)
            benchmark_view.results(state, columns, section)
