"""Links from page to page, which stay in presenter mode and in their session."""

from typing import NoReturn

import streamlit as st
from streamlit.errors import StreamlitAPIException

from ui.session.state import carried


def link(file: str, label: str, icon: str) -> None:
    """A link to a page; only its label where a page is run by itself, without app.py."""
    try:
        st.page_link(file, label=label, icon=icon, query_params=carried() or None)
    except StreamlitAPIException:
        st.markdown(f"{icon} {label}")


def go(file: str) -> NoReturn:
    """Another page, now."""
    st.switch_page(file, query_params=carried() or None)
