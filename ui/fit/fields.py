"""What the form of the method shows when the method was set elsewhere: by a plan, by a point of a sweep, or in a tab that was reloaded.

The method lives in the session, the fields in the browser tab. Where they say different things, the session is right.
"""

from typing import TYPE_CHECKING

import streamlit as st

from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import MethodSection

GRADIENT_KIND, REFIT_KIND = "gradient", "refits"
"""what the first choice calls the methods that have a choice of their own below it"""
AUTOMATIC = "by held-out error"
STEPS = 20
"""of a deep refit, on each block"""
_SHOWN = "fit_shows"
"""key of the method that the fields of this tab were filled in from, or stand for since"""


def begin(state: Studio) -> None:
    """Fill the fields in from the session's method, unless they stand for it already: what a person then changes stays."""
    method = state.method
    if st.session_state.get(_SHOWN) != method:
        for key, value in _fields(method).items():
            st.session_state[key] = value
        st.session_state[_SHOWN] = method


def took(state: Studio, method: "MethodSection") -> None:
    """What the fields stand for now becomes the session's method; unless a job has set that meanwhile, which the next run shows."""
    if state.method == st.session_state[_SHOWN]:
        state.method = st.session_state[_SHOWN] = method


def ridge() -> float | None:
    """The ridge that the fields stand for, also where they are not drawn; None: that of least held-out error."""
    return None if st.session_state.get("fit_automatic", True) else st.session_state.get("fit_ridge")


def _fields(method: "MethodSection") -> dict[str, object]:
    """Widget keys and values. A field that the method does not have stays as it was."""
    from replaceme_core.plans.plan import GRADIENT, REFIT

    if method.name in REFIT:
        ahead = AUTOMATIC if method.lookahead is None else method.lookahead
        return {
            "fit_method": REFIT_KIND,
            "fit_refit": method.name,
            "fit_attention": method.attention,
            "fit_lookahead": ahead,
            "fit_refit_steps": method.max_iterations or STEPS,
        }
    found: dict[str, object] = {"fit_method": method.name, "fit_separate": method.separate, "fit_automatic": method.ridge is None}
    if method.name in GRADIENT:
        penalties = {"fit_l1": method.l1, "fit_l2": method.l2}
        own = {"fit_method": GRADIENT_KIND, "fit_steps": method.name, "fit_loss": method.objective}
        return found | own | penalties | {"fit_iterations": method.max_iterations}
    given = {"fit_rank": method.rank, "fit_ridge": method.ridge}
    found |= {"fit_structure": method.structure, "fit_rounds": method.max_iterations}
    return found | {key: value for key, value in given.items() if value is not None}
