"""Links from page to page, which stay in presenter mode."""

import streamlit as st
from streamlit.errors import StreamlitAPIException

from ui.session.state import presenting


def link(file: str, label: str, icon: str) -> None:
    """A link to a page; only its label where a page is run by itself, without app.py."""
    try:
        st.page_link(file, label=label, icon=icon, query_params={"present": "1"} if presenting() else None)
    except StreamlitAPIException:
        st.markdown(f"{icon} {label}")
