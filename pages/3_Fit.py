"""Fit: the transform that stands in for the removed blocks, live."""

from ui import fit_view, heal_view, refit_view, span_control
from ui.boot import needs, page
from ui.layout import split

with page("fit") as state:
    if needs(state):
        fit_view.ruler_of(state)
        picture, settings = split("fit", [3, 2])
        with settings:
            span_control.span_slider(state, "fit")
            fit_view.ask_method(state)
        with picture:
            fitted = fit_view.fit_now(state)
            if fitted is not None:
                fit_view.report(fitted)
        if fitted is not None:
            fit_view.keep(state, fitted)
            refit_view.steps(fitted)
            fit_view.pictures(state, fitted)
        fit_view.kept(state)
        heal_view.section(state)
