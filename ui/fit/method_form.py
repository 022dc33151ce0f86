"""The form that says how the transform is estimated: method, structure and ridge live; gradient methods and refits as a job."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from ui.fit import fields, words
from ui.fit import refit as refit_view
from ui.fit.charts import ridge_chart
from ui.fit.fields import GRADIENT_KIND, REFIT_KIND
from ui.look.figures import number
from ui.look.glossary import TERMS
from ui.look.palette import palette
from ui.look.words import IN_SEQUENCE
from ui.parts.chart import show
from ui.session import live, methods
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import MethodSection

_RANK = 16
_DIGITS = 6
"""of a ridge on its slider: two that read alike would be one"""
_LOSSES = {
    "cosine": "direction of the residual stream (cosine)",
    "cosine_simplified": "direction of the output projection (cosine, simplified)",
    "mse": "squared error",
    "relative_mse": "squared error, relative to each token",
}


def ask_method(state: Studio) -> None:
    """Method and settings. The canonical value lives in the state, so that other pages see it."""
    fields.begin(state)
    titles = _offered(state)
    name = st.radio("Method", list(titles), format_func=lambda name: titles[name][0], key="fit_method", persist_state="session")
    st.caption(titles[name][1])
    fields.took(state, _settings(state, name))


def _offered(state: Studio) -> dict[str, tuple[str, str]]:
    """Title and one line of every method, or kind of methods, that fits the model and what the form is set to."""
    from replaceme_core.solvers import METHODS

    separate = _is_separate(state)
    names = methods.live_methods(state, separate) if not state.more else ["weighted_least_squares"]
    names += ["drop"] if state.method.name == "drop" else []  # a plan or a sweep chose it
    titles = {name: (" · ".join(filter(None, (METHODS[name].title, METHODS[name].note))), METHODS[name].one_line) for name in names}
    if len(methods.structures(state, separate)) > 1 and not state.more:
        titles[GRADIENT_KIND] = (
            "By gradient steps · for comparison",
            "Adam, L-BFGS and others, with penalties: slower than the closed forms.",
        )
    if methods.refits(state):
        titles[REFIT_KIND] = (
            "Refit the weights · recommended, runs the model",
            "Solves the weights that stay anew: closer to the original than any T, in seconds to minutes. Choose the span with a T that "
            "follows the slider, then refit.",
        )
    return titles


def _settings(state: Studio, name: str) -> "MethodSection":
    """The method with what the form asks of it."""
    from replaceme_core.plans.plan import MethodSection
    from replaceme_core.solvers import METHODS

    if name == REFIT_KIND:
        return MethodSection.parse(refit_view.ask(state), "the method")
    if state.more or name == "drop":
        st.caption(IN_SEQUENCE if state.more else words.DROP)
        return MethodSection(name=name)
    chosen: dict[str, Any] = {"separate": _ask_separate(state)}
    if name == GRADIENT_KIND:
        chosen |= _ask_gradient()
    else:
        asked = _ask_structure(state, chosen["separate"]) if "structure" in METHODS[name].takes else _ask_rounds(name)
        chosen |= {"name": name} | asked
    section = MethodSection.parse(chosen, "the method")
    _price(state, section)
    if section.structure == "orthogonal":
        st.caption("This structure has no ridge.")
    return section.model_copy(update={"ridge": _ask_ridge(state, section)}) if section.takes_ridge else section


def _ask_structure(state: Studio, separate: bool) -> dict[str, Any]:
    """The structure of T, and its rank where it has one."""
    from replaceme_core.solvers import STRUCTURES

    offered = methods.structures(state, separate)
    structure = st.selectbox(
        "Structure of T",
        offered,
        format_func=lambda name: STRUCTURES[name][0],
        key="fit_structure",
        persist_state="session",
    )
    st.caption(STRUCTURES[structure][1])
    if not structure.startswith("low_rank"):
        return {"structure": structure}
    width = live.width(state)
    st.session_state["fit_rank"] = min(st.session_state.get("fit_rank", _RANK), width)  # that of a wider model would be outside
    rank = st.slider("Rank", 1, width, key="fit_rank", persist_state="session")
    return {"structure": structure, "rank": rank}


def _ask_rounds(name: str) -> dict[str, Any]:
    """The number of reweightings."""
    most = st.number_input(
        "Most steps", 1, value=None, placeholder="default", key="fit_rounds", persist_state="session", help=words.ROUNDS_HELP
    )
    return {"name": name, "max_iterations": most}


def _ask_separate(state: Studio) -> bool:
    """Whether T stays a layer of its own; not for a model that is merged on disk."""
    if not _can_be_separate(state):
        return False
    return st.toggle("Keep T as a layer of its own", key="fit_separate", persist_state="session", help=words.SEPARATE_HELP)


def _is_separate(state: Studio) -> bool:
    """What that control says, before it is drawn: where only a diagonal T merges, the methods above it hang on it."""
    return _can_be_separate(state) and bool(st.session_state.get("fit_separate"))


def _can_be_separate(state: Studio) -> bool:
    return state.resident is not None and not state.resident.merges_on_disk


def _price(state: Studio, section: "MethodSection") -> None:
    """What a layer of its own costs."""
    from replaceme_core import memory
    from replaceme_core.surgery import patch

    if section.separate and state.resident is not None:
        added = patch.parameters_of(section, live.width(state))
        dtype = state.resident.handle.dtype
        said = f"Adds {added:,} parameters ({memory.size(added * (4 if dtype == 'float32' else 2))} in {dtype}) to the model; merged it would add none."
        st.caption(f"{said} Its time is measured on the Compare page. Such a variant cannot be exported.")


def _ask_ridge(state: Studio, method: "MethodSection") -> float | None:
    """A ridge, or None for that of least held-out error; of a method that starts with weighted least squares, that of its start."""
    from replaceme_core.plans.plan import LEAST_SQUARES, MethodSection

    held = fields.ridge()
    if state.span is None or not live.can_fit(state, state.span):
        return held
    if method.name not in LEAST_SQUARES:
        st.caption("The ridge is that of weighted least squares, where this method starts.")
        method = MethodSection()
    if not live.has_path(state, state.span, method):
        said = "The ridge of least held-out error" if held is None else f"Ridge {number(held)}"
        st.caption(f"{said} is taken. Others can be chosen when the fit is there.")
        return held
    points = live.ridge_path(state, state.span, method)
    automatic = st.toggle(
        "Choose the ridge by held-out error", value=True, key="fit_automatic", persist_state="session", help=TERMS["ridge"]
    )
    best = min(points, key=lambda point: point.heldout_error).ridge
    if automatic:
        st.caption(f"Ridge {number(best)}, the least held-out error of {len(points)} tried.")
        return None
    ridges = sorted({*(point.ridge for point in points), *([] if held is None else [held])})
    return st.select_slider(
        "Ridge", ridges, value=best, format_func=lambda ridge: number(ridge, _DIGITS), key="fit_ridge", persist_state="session"
    )


def ridge_path(state: Studio) -> None:
    """The errors along the ridge as a picture, where the present method has a ridge."""
    from replaceme_core.plans.plan import LEAST_SQUARES

    if state.span is None or state.more or state.method.name not in LEAST_SQUARES or not live.can_fit(state, state.span):
        return
    points = live.ridge_path(state, state.span, state.method) if live.has_path(state, state.span, state.method) else []
    if not points:
        return
    best = min(points, key=lambda point: point.heldout_error)
    ridge = best.ridge if state.method.ridge is None else state.method.ridge
    st.markdown("#### How hard should the ridge pull?")
    said = f"Least held-out error {best.heldout_error:.1%} at ridge {number(best.ridge)}; the line stands at {number(ridge)}."
    show(ridge_chart(points, ridge, palette()), alt=said)
    st.caption(f"{said} {TERMS['ridge']}")


def _ask_gradient() -> dict[str, Any]:
    """Optimiser, loss, penalties and the number of steps."""
    from replaceme_core.plans.plan import GRADIENT
    from replaceme_core.solvers import METHODS

    name = st.selectbox("Steps", GRADIENT, format_func=lambda name: METHODS[name].title, key="fit_steps", persist_state="session")
    st.caption(METHODS[name].one_line)
    loss = st.selectbox("Loss", list(_LOSSES), format_func=_LOSSES.__getitem__, key="fit_loss", persist_state="session")
    left, middle, right = st.columns(3, vertical_alignment="bottom")
    free = loss != "cosine_simplified"
    l1 = l2 = 0.0
    if free and "l1" in METHODS[name].takes:
        l1 = left.number_input(
            "L1", 0.0, value=0.0, step=0.01, format="%.4f", key="fit_l1", persist_state="session", help=words.PENALTY_HELP
        )
    if free:
        l2 = middle.number_input(
            "L2", 0.0, value=0.0, step=0.01, format="%.4f", key="fit_l2", persist_state="session", help=words.PENALTY_HELP
        )
    most = right.number_input(
        "Most steps", 1, value=None, placeholder="default", key="fit_iterations", persist_state="session", help=words.STEPS_HELP
    )
    return {"name": name, "loss": loss, "l1": l1, "l2": l2, "max_iterations": most}
