"""Compare: one prompt, side by side, and what held-out text says."""

from ui import compare_view
from ui.boot import needs, page

with page("compare") as state:
    if needs(state, variant=True, text=True):
        names = compare_view.ask_variants(state, "compare")
        columns = compare_view.columns_of(state, names)
        compare_view.generate(state, columns)
        compare_view.differences(state, columns)
        compare_view.quality(state, columns)
