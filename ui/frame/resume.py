"""After a reload: the way back to what the last tab had, its running job included."""

import streamlit as st

from ui.session.access import access
from ui.session.hub import hub
from ui.session.jobs import runner
from ui.session.state import Studio, adopt


def offer(state: Studio) -> None:
    """The button, where this tab has nothing and another one had. Not offered where several people share the server."""
    if state.resident is not None or access().shared:
        return
    other = last_tab(state)
    if other is None:
        return
    job = runner().latest(other.owner)
    said = f" ({job.title}, still running)" if job is not None and job.active else ""
    if st.button(f"Pick up the last tab's work{said}", icon=":material/history:", key="resume"):
        adopt(other)
        st.rerun()


def last_tab(mine: Studio) -> Studio | None:
    """The newest other session that holds a model or has a job under way."""
    for other in reversed(hub().sessions):
        job = runner().latest(other.owner)
        if other is not mine and (other.resident is not None or (job is not None and job.active)):
            return other
    return None
