"""Blocks: the distance matrix, and the span that is chosen on it; in a second tab the studies that measure more about places."""

import streamlit as st

from ui.blocks import clicks, words
from ui.blocks import costs as cost_view
from ui.blocks import linearity as linearity_view
from ui.blocks import pin as pin_view
from ui.blocks import places as place_view
from ui.blocks import search as search_view
from ui.blocks import several as cut_view
from ui.blocks import table as matrix_table
from ui.blocks import view as blocks_view
from ui.frame.navigation import next_button
from ui.frame.page import needs, page
from ui.look.layout import split
from ui.parts import span as span_control

with page("blocks") as state:
    if needs(state, partial=True):
        refused = clicks.take_click(state)
        matrix_table.take_cell(state)
        state.mark_done("blocks", lambda state: state.span is not None)
        blocks_view.under_way(state)
        span_control.ruler_of(state)
        slider, way_on = split("choose", [7, 3], "bottom", stacks=False)
        with slider:
            span_control.span_slider(state, "blocks")
        with way_on:
            next_button(state, "blocks")
        if refused:
            st.info(refused, icon=":material/info:")
        chosen, studies = st.tabs(list(words.TABS), key=words.PART, on_change="rerun")
        with chosen:
            matrix, side = split("matrix", [3, 2], last_first=True)
            with matrix:
                layer = blocks_view.ask_layer()
            with side:
                cost_view.suggestion(state, layer)
                place_view.ask_criterion(state)
                place_view.best_of_length(state)
                place_view.sinks_at_risk(state)
                cut_view.spread(state)
                blocks_view.savings(state)
                figures = blocks_view.is_fitted(state)
                if figures:  # the browser shows them before it draws
                    blocks_view.expected(state)
            with matrix:
                blocks_view.heatmap(state, layer)
            with side:
                if not figures:  # the outline does not wait for the fit
                    blocks_view.expected(state)
                blocks_view.timing(state)
            pin_view.compare(state)
            picture, words_ = split("profile", [3, 2])
            with words_:
                place_view.verdict(state)
            with picture:
                place_view.profile(state)
        if studies.open:  # else every click on the matrix would draw them, too
            with studies:
                if state.partial is None:
                    search_view.places(state)
                    cut_view.several(state)
                    linearity_view.linearity(state)
                else:
                    st.caption(words.STUDIES_LATER)
