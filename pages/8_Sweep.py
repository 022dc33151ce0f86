"""Sweep: methods x places as a queue, quality against depth and time, and what a cut really gains."""

from ui.frame.page import needs, page
from ui.sweep import form as sweep_form
from ui.sweep import view as sweep_view

with page("sweep") as state:
    if needs(state, text=True) and sweep_form.can_sweep(state):
        sweep_view.progress(state)
        sweep_view.results(state)
        sweep_form.ask(state)
