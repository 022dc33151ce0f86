"""Fit: the transform that stands in for the removed blocks, live."""

import streamlit as st

from ui.fit import heal as heal_view
from ui.fit import keep as keep_view
from ui.fit import method_form
from ui.fit import refit as refit_view
from ui.fit import tokens as token_view
from ui.fit import variants as variants_view
from ui.fit import view as fit_view
from ui.frame.page import needs, page
from ui.look.layout import split
from ui.parts import span as span_control

with page("fit") as state:
    if needs(state):
        strip = st.empty()
        picture, settings = split("fit", [3, 2], last_first=True)
        with settings:
            span_control.span_slider(state, "fit")
            method_form.ask_method(state)
        with strip:
            span_control.ruler_of(state, refit_view.solved(state))
        with picture:
            fitted = fit_view.fit_now(state)
            if fitted is not None:
                with strip:
                    span_control.ruler_of(state, refit_view.solved(state, fitted))
                fit_view.report(fitted)
                keep_view.keep(state, fitted)
                method_form.ridge_path(state)
        if fitted is not None:
            refit_view.steps(fitted)
            token_view.section(state, fitted)
            fit_view.pictures(state, fitted)
        variants_view.kept(state)
        heal_view.section(state)
