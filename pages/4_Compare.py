"""Compare: one prompt, side by side; where the systems part, how the answer forms, and what held-out text says."""

from ui import heldout_view, lens_view, reading_view, systems, writing_view
from ui.frame.boot import needs, page

with page("compare") as state:
    if needs(state, variant=True, text=True):
        found = systems.choose(state)
        if found is not None:
            writing_view.ask(state, found)
            writing_view.columns(state, found)
            reading_view.parting(state, found)
            lens_view.lens(state, found)
            heldout_view.heldout(state, found)
