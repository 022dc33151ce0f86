"""The sidebar: the way from page to page and what is current; and the foot of a page: what comes next, and its words."""

from collections.abc import Iterable

import streamlit as st

from ui.look.glossary import TERMS
from ui.look.ruler import ruler
from ui.look.site import EXTRAS, NAME, PAGES, STEPS
from ui.parts.links import go, link
from ui.session.state import Studio


def next_step(state: Studio) -> str | None:
    """The first step without a result."""
    done = state.done_steps
    return next((step for step in STEPS if step not in done), None)


def navigation(state: Studio, name: str) -> None:
    """The pages, with a mark at the steps that have a result."""
    st.markdown(f"**{NAME}**")
    done = state.done_steps
    link("app.py", label="Overview", icon=":material/home:")
    for number, step in enumerate(STEPS, start=1):
        icon = "check_circle" if step in done else "radio_button_checked" if step == name else "radio_button_unchecked"
        link(PAGES[step].file, label=f"{number} · {PAGES[step].title}", icon=f":material/{icon}:")
    for extra in EXTRAS:
        link(PAGES[extra].file, label=PAGES[extra].title, icon=PAGES[extra].icon)


def current(state: Studio) -> None:
    """Current model, calibration set, span and variants."""
    resident = state.resident
    if resident is None:
        st.caption("No model loaded yet.")
        return
    handle = resident.handle
    st.caption(f"**Model** {handle.name} · {handle.n_blocks} blocks · width {handle.width} · {handle.dtype}")
    if state.shown is not None:
        measured = state.shown
        of = f" of {state.partial_of:,} tokens so far" if state.partial is not None else " tokens"
        st.caption(f"**Calibration set** {measured.calibration_name} · {measured.n_tokens:,}{of}")
    if state.span is not None:
        said = state.span_words(handle.n_blocks)
        ruler(handle.n_blocks, state.removed, said, compact=True)
        st.caption(f"**Span** {said}")
    if state.variants:
        st.caption("**Variants** " + ", ".join(state.variants))


def next_button(state: Studio, name: str) -> None:
    """The one way on from a page, once it has a result."""
    about = PAGES[name]
    if not about.next_file or name not in state.done_steps:
        return
    if st.button(f"Next: {about.next_label}", type="primary", icon=":material/arrow_forward:", icon_position="right", key=f"next_{name}"):
        go(about.next_file)


def footer(state: Studio, name: str) -> None:
    """The next step once this one is done, unless the page itself has it in a better place; and one line for every term of the page."""
    about = PAGES[name]
    if not about.next_beside and about.next_file and name in state.done_steps:
        st.divider()
        next_button(state, name)
    if about.terms:
        with st.container(key="stage_words"):
            _words(name)


@st.fragment
def _words(name: str) -> None:
    """The list is drawn when it is opened: read by few, and as much text as all the rest of a page."""
    terms = PAGES[name].terms
    box = st.expander("Words on this page", icon=":material/menu_book:", key=f"words_{name}", on_change="rerun")
    if box.open:
        with box:
            st.markdown(_listed(terms))
            st.markdown("**All other words**")
            st.markdown(_listed(sorted(set(TERMS) - set(terms), key=str.lower)))


def _listed(terms: Iterable[str]) -> str:
    return "\n".join(f"- **{term[0].upper()}{term[1:]}** – {TERMS[term]}" for term in terms)
