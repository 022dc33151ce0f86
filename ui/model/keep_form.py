"""What the calibration pass keeps of the model, said before it starts: the spans that can be fitted afterwards, and their memory."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.look.figures import gib
from ui.look.layout import split
from ui.model import words
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.measurement.budget import KeepPlan

_AUTO = "auto"


def ask(state: Studio) -> dict[str, Any] | None:
    """`keep` and `budget_gib` of the plan, with what they come to; None where the budget does not allow the choice."""
    resident = state.resident
    if resident is None:
        return None
    from replaceme_core.measurement import budget

    handle = resident.handle
    choices = {choice.keep: choice for choice in budget.choices(handle.n_blocks, handle.width)}
    said = st.empty()
    with st.expander("What the pass keeps"):
        st.caption(words.KEPT_HELP)
        spans, memory = split("keep", [3, 1])
        keep = spans.selectbox(
            "Spans to keep",
            [_AUTO, *choices],
            format_func=lambda key: _label(choices.get(key)),
            key=f"keep_{handle.n_blocks}_{handle.width}",
            persist_state="session",
        )
        size = memory.number_input(
            "Memory of the pass, GiB",
            0.05,
            1024.0,
            budget.DEFAULT_BUDGET / budget.GIB,
            0.5,
            format="%.2f",
            key="keep_budget",
            persist_state="session",
            help="Half of it is for these sums, the other half for stored tokens and the states of one batch.",
        )
    try:
        planned = budget.plan_keep(handle.n_blocks, handle.width, int(size * budget.GIB), keep=keep)
    except ReplaceMeError as error:
        said.error(str(error), icon=":material/error:")
        return None
    said.caption(
        f":material/inventory_2: The pass will keep {planned.words}; at its peak it takes {gib(planned.n_bytes)} beside the weights."
    )
    return {"keep": keep, "budget_gib": size}


def _label(choice: "KeepPlan | None") -> str:
    if choice is None:
        return "as many as the memory allows"
    spans = "all spans" if choice.keep == "all" else f"spans of {choice.keep} block{'s' if choice.keep != 1 else ''}"
    return f"{spans}: {choice.n_spans} of them, {gib(choice.n_bytes)}"
