"""Presenter mode: large type, larger charts, fewer controls, and the keyboard, on every page. `?present=1` in the address, too."""

from typing import Literal

import streamlit as st

from ui.frame import words
from ui.look.site import EXTRAS, PAGES, STEPS
from ui.parts import links
from ui.session.state import Studio, presenting

_CSS = """<style>
html{font-size:21px}
[data-testid="stMainBlockContainer"]{max-width:1560px;padding-top:2.6rem;padding-bottom:2rem}
[data-testid="stHeader"]{height:2.2rem;background:transparent}
[data-testid="stToolbar"]{visibility:hidden}
.st-key-presenter_bar{opacity:.85}
@media (max-width:900px){html{font-size:18px}}
</style>"""
_QUIET = """<style>
[data-testid="stMain"] [data-testid="stExpander"]{display:none}
[data-testid="stMain"] [class*="st-key-stage"] [data-testid="stExpander"]{display:block}
</style>"""
STAGE = "stage"
"""how the key of a container begins whose expanders a room sees: results, not settings"""
_KEEPS_FORMS = ("model", "benchmarks", "export")
"""pages whose expanders are what they are for"""


def sidebar() -> Literal["auto", "collapsed"]:
    """The sidebar makes room in presenter mode; a click on its arrow brings it back. Asked before the address is read."""
    return "collapsed" if presenting() or st.query_params.get("present") == "1" else "auto"


def css(name: str) -> str:
    """What the page `name` looks like in presenter mode; nothing otherwise."""
    if not presenting():
        return ""
    return _CSS + ("" if name in _KEEPS_FORMS else _QUIET)


def toggle(state: Studio) -> None:
    """The switch in the sidebar. Its key changes with it, so that it gives the keyboard back: keys do nothing while a switch has them."""
    key = f"presenter_switch_{state.present}"
    st.session_state[key] = state.present
    st.toggle("Presenter mode", key=key, on_change=_switched, args=(state,), help=words.PRESENTER_HELP)


def _switched(state: Studio) -> None:
    state.present, state.turned = not state.present, True


def bar(state: Studio, name: str) -> None:
    """From page to page by button or key, and the way out; in presenter mode only."""
    if not state.present:
        return
    order = ("overview", *STEPS, *EXTRAS)
    at = order.index(name)
    before, after = order[at - 1] if at else None, order[at + 1] if at + 1 < len(order) else None
    with st.container(horizontal=True, horizontal_alignment="distribute", key="presenter_bar"):
        if before and st.button(PAGES[before].title, icon=":material/chevron_left:", type="tertiary", shortcut="P", key="page_before"):
            links.go(PAGES[before].file)
        if st.button("Leave presenter mode", type="tertiary", shortcut="Esc", key="presenter_leave"):
            state.present, state.turned = False, True
            st.rerun()
        if after and st.button(
            PAGES[after].title,
            icon=":material/chevron_right:",
            icon_position="right",
            type="tertiary",
            shortcut="N",
            key="page_after",
        ):
            links.go(PAGES[after].file)
