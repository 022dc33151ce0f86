"""Columns that stand beside each other on a wide page and under each other on a narrow one."""

from typing import Any, Literal

import streamlit as st

STACKING = """@media (max-width:1050px){
[class*="st-key-split_"]:not([class*="_together"])>[data-testid="stLayoutWrapper"]>[data-testid="stHorizontalBlock"]{flex-wrap:wrap}
[class*="st-key-split_"]:not([class*="_together"])>[data-testid="stLayoutWrapper"]>[data-testid="stHorizontalBlock"]>[data-testid="stColumn"]{flex:1 1 100%;min-width:100%}
[class*="_lastfirst"]>[data-testid="stLayoutWrapper"]>[data-testid="stHorizontalBlock"]>[data-testid="stColumn"]:last-child{order:-1}
}"""


def split(
    name: str, ratio: list[int], align: Literal["top", "center", "bottom"] = "top", stacks: bool = True, last_first: bool = False
) -> list[Any]:
    """Columns of these widths; `name` must be unique on the page.

    `last_first`: where they stand under each other the last one is above, as settings are above what comes out of them. Not `stacks`:
    they stay beside each other.
    """
    with st.container(key=f"split_{name}{'' if stacks else '_together'}{'_lastfirst' if last_first else ''}"):
        return list(st.columns(ratio, gap="medium", vertical_alignment=align))
