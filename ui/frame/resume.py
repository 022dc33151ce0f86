"""After a reload: the session of the address is found again by its id; else a button leads back to what the last tab had."""

import streamlit as st

from ui.session.access import access
from ui.session.hub import hub
from ui.session.jobs import runner
from ui.session.link import show
from ui.session.reach import listens
from ui.session.state import SESSION, Studio, adopt, has_studio


def find_again() -> None:
    """Go on with the session that the address names, where this tab has none yet and no other tab shows that one.

    So a reload loses nothing, and an address that is passed on does not let two people into one session.
    """
    wanted = st.query_params.get(SESSION)
    if not wanted or has_studio():
        return
    other = next((each for each in hub().sessions if each.owner == wanted), None)
    if other is not None and not _is_shown(other):
        adopt(other)


def keep_address(state: Studio) -> None:
    """The id in the address of a session that has something to come back to; an id that leads nowhere goes."""
    state.tab = _tab()
    if state.has_work:
        show(**{SESSION: state.owner})
    elif SESSION in st.query_params:
        del st.query_params[SESSION]


def _tab() -> str:
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    context = get_script_run_ctx()
    return context.session_id if context is not None else ""


def _is_shown(other: Studio) -> bool:
    """Whether a browser tab that is still connected shows this session."""
    from streamlit import runtime

    return bool(other.tab) and runtime.exists() and runtime.get_instance().is_active_session(other.tab)


def offer(state: Studio) -> None:
    """The button, where this tab has nothing and another one had. Not offered where other people reach the server."""
    if state.resident is not None or access().shared or listens():
        return
    other = last_tab(state)
    if other is None:
        return
    active = runner().active(other.owner)
    said = f" ({active[0].title}, still running)" if active else ""
    if st.button(f"Pick up the last tab's work{said}", icon=":material/history:", key="resume"):
        adopt(other)
        st.rerun()


def last_tab(mine: Studio) -> Studio | None:
    """The newest other session that holds a model or has a job under way, and that no connected tab shows."""
    for other in reversed(hub().sessions):
        if other is not mine and not _is_shown(other) and (other.resident is not None or runner().active(other.owner)):
            return other
    return None
