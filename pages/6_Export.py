"""Export: the proofs, the folder, and the recipe that repeats the run."""

from ui.export import push as export_push
from ui.export import view as export_view
from ui.frame.page import needs, page

with page("export") as state:
    if needs(state, variant=True):
        variant = export_view.ask_variant(state)
        export_view.proofs(state, variant)
        export_view.save(state, variant)
        export_view.done(state)
        export_push.offer(state)
        export_view.recipe(state, variant)
