"""Methods: this project's and the field's on one table, at equal budgets."""

from ui import methods_view
from ui.frame.boot import needs, page

with page("methods") as state:
    if needs(state, text=True) and methods_view.can_compare(state):
        methods_view.results(state, methods_view.ask(state))
