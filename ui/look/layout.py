"""Columns that stand beside each other on a wide page and under each other on a narrow one."""

from typing import Any, Literal

import streamlit as st

STACKING = """@media (max-width:1050px){
[class*="st-key-split_"]>[data-testid="stLayoutWrapper"]>[data-testid="stHorizontalBlock"]{flex-wrap:wrap}
[class*="st-key-split_"]>[data-testid="stLayoutWrapper"]>[data-testid="stHorizontalBlock"]>[data-testid="stColumn"]{flex:1 1 100%;min-width:100%}
}"""


def split(name: str, ratio: list[int], align: Literal["top", "center", "bottom"] = "top") -> list[Any]:
    """Columns of these widths; `name` must be unique on the page."""
    with st.container(key=f"split_{name}"):
        return list(st.columns(ratio, gap="medium", vertical_alignment=align))
