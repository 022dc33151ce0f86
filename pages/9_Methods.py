"""Methods: this project's and the field's on one table, at equal budgets."""

from ui.frame.page import needs, page
from ui.methods import view as methods_view

with page("methods") as state:
    if needs(state, text=True) and methods_view.can_compare(state):
        methods_view.results(state, methods_view.ask(state))
