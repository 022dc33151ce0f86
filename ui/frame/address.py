"""The address bar of a session: what a new address asks for is taken over as far as it can be had, and no model is loaded without a click."""

from urllib.parse import urlencode

import streamlit as st

from replaceme_core.errors import ReplaceMeError, SpanError
from replaceme_core.span import Cut
from ui.frame import words
from ui.parts import share
from ui.parts.start import start_demo
from ui.session.access import access
from ui.session.jobs import runner
from ui.session.link import LONGEST_PROMPT, Address, LinkState, PromptInUse, bar, read, show
from ui.session.reach import page_address
from ui.session.state import Studio
from ui.session.work import load_model

_PASSING = ("model", "span", "prompt")
"""what is used once and then leaves the address bar, which would soon be out of date"""


def arrive(state: Studio) -> None:
    """Take over what a new address asks for, as far as it can be had now; called at the start of every page."""
    raw, link_ = bar(), state.slot(LinkState)
    if raw and raw != link_.seen and not state.turned:
        address, link_.problems = read(raw)
        if address.present is not None:
            state.present = address.present
        if address.card is not None:
            link_.card = address.card
        if address.poll is not None:
            link_.poll = address.poll
        link_.wanted = address if address.asks else None
    state.turned = False
    _fulfil(state)
    if state.present:
        show(present="1")
    elif "present" in st.query_params:
        del st.query_params["present"]
    link_.seen = bar()


def _fulfil(state: Studio) -> None:
    """Choose the span and the prompt of the address once its model is loaded and measured."""
    link_, resident = state.slot(LinkState), state.resident
    wanted = link_.wanted
    if wanted is None or resident is None or (wanted.model and resident.section.path != wanted.model):
        return
    if wanted.spans and state.shown is None:
        return
    if wanted.spans:
        try:
            cut = Cut(wanted.spans).check(resident.handle.n_blocks)
        except SpanError as error:
            link_.problems = [f"The address does not fit this model. {error}"]
        else:
            state.choose(cut.spans[0])
            state.more = list(cut.spans[1:])
    if wanted.prompt:
        link_.prompt = wanted.prompt
        in_use = state.slot(PromptInUse)
        in_use.text = in_use.text if in_use.text == wanted.prompt else ""
    forget(state)


def forget(state: Studio) -> None:
    """The address is done, or was put away."""
    state.slot(LinkState).wanted = None
    for key in _PASSING:
        if key in st.query_params:
            del st.query_params[key]


def notice(state: Studio) -> None:
    """What of the address could not be used, and the one button that does what it asks for."""
    link_ = state.slot(LinkState)
    if link_.problems:
        st.warning("  \n".join(link_.problems), icon=":material/link_off:")
    if link_.wanted is None or runner().active(state.owner):
        return
    with st.container(border=True, key="address_notice"):
        st.markdown(f":material/link: This address asks for {link_.wanted.describe()}.")
        with st.container(horizontal=True, vertical_alignment="center"):
            _offer(state, link_.wanted)
            if st.button("Not now", key="address_forget"):
                forget(state)
                link_.seen = {}
                st.rerun()


def _offer(state: Studio, wanted: Address) -> None:
    """The button that loads the model of the address, if this server offers it."""
    resident = state.resident
    if resident is not None and wanted.model in (None, resident.section.path):
        st.caption(words.ADDRESS_MEASURE)
        return
    path = wanted.model or "demo"
    try:
        access().require(path)
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/lock:")
        return
    if path == "demo":
        if st.button("Load and measure the demo model", type="primary", icon=":material/play_arrow:", key="address_load"):
            start_demo(state)
            st.rerun()
    elif st.button("Load this model", type="primary", icon=":material/download:", key="address_load", help=words.ADDRESS_LOAD_HELP):
        from replaceme_core.plans.plan import ModelSection

        load_model(state, ModelSection(path=path))
        st.rerun()


def carried(state: Studio) -> dict[str, str]:
    """The query parameters that bring somebody else to where this session is."""
    values: dict[str, str] = {}
    if state.resident is not None:
        values["model"] = state.resident.section.path
        if state.cut is not None:
            values["span"] = ",".join(map(str, state.cut.spans))
    prompt = state.slot(PromptInUse).text or state.slot(LinkState).prompt
    if prompt and len(prompt) <= LONGEST_PROMPT:
        values["prompt"] = prompt
    if "card" in st.query_params:
        values["card"] = st.query_params["card"]
    return values | ({"present": "1"} if state.present else {})


def link(state: Studio) -> str:
    """The whole address of this page with what it carries."""
    values = carried(state)
    return page_address() + ("?" + urlencode(values) if values else "")


def copy_link(state: Studio) -> None:
    """The address of what is on the screen, as others reach it."""
    with st.popover("Copy link", icon=":material/link:", width="stretch"):
        share.address(link(state))
        st.caption(words.ADDRESS_HELP)
