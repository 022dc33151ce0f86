"""Compare: one prompt, side by side; where the systems part, how the answer forms, and what test text says."""

from ui.compare import asking, systems
from ui.compare import heldout as heldout_view
from ui.compare import lens as lens_view
from ui.compare import prompt_set as set_view
from ui.compare import reading as reading_view
from ui.compare import writing as writing_view
from ui.frame.page import needs, page

with page("compare") as state:
    if needs(state, variant=True, text=True):
        found = systems.choose(state)
        if found is not None:
            asking.ask(state, found)
            writing_view.columns(state, found)
            reading_view.parting(state, found)
            lens_view.lens(state, found)
            heldout_view.heldout(state, found)
            set_view.section(state, found)
