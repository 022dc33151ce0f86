"""Many prompts at once: every system goes on with all of them, and the list says where they part soonest or are furthest apart."""

import statistics
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.compare import words
from ui.compare.generation import Chat
from ui.compare.prompt_files import MOST, prompts_of
from ui.compare.prompt_jobs import PromptSet, PromptSetState, Row, write_all
from ui.compare.prompts import chats, unread
from ui.compare.systems import Systems
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.systems import system_colours
from ui.look.token_text import differences, text_html
from ui.parts.job_panel import has_active_job, is_running, show_job
from ui.parts.rows import chosen_row
from ui.session.state import Studio

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_SOURCES = {"unread": "Texts no fit has read", "file": "A file of prompts"}
_ORDERS = {"kl": "KL, the largest first", "parts": "where they part, the soonest first", "own": "as they were given"}
_HEIGHT = 330


def section(state: Studio, found: Systems) -> None:
    """Settings and job; then the list, and the chosen prompt with what every system made of it."""
    st.markdown("### Many prompts at once")
    st.caption(words.SET_INTRO.format(reference=found.reference))
    _ask(state, found)
    if is_running(state, words.SET_TITLE):
        show_job(state, large=True)
    made = state.slot(PromptSetState).made
    if made is None or not made.rows:
        return
    if not made.of(found.handles):
        st.caption(words.SET_OTHERS)
        return
    _list(made, found)


def _ask(state: Studio, found: Systems) -> None:
    source_box, amount_box, length_box, button = split("prompt_set", [5, 3, 2, 3], "bottom")
    source = source_box.segmented_control(
        "Prompts", list(_SOURCES), format_func=_SOURCES.get, default="unread", required=True, key="set_source", persist_state="session"
    )
    prompts: list[str] = []
    if source == "file":
        given = amount_box.file_uploader("One prompt a line, or JSONL", type=["txt", "jsonl"], key="set_file", help=words.SET_FILE_HELP)
        if given is not None:
            try:
                prompts = prompts_of(given.name, given.getvalue())
            except ReplaceMeError as error:
                st.error(str(error), icon=":material/error:")
    else:
        offered = unread(state)
        amount = amount_box.number_input("How many", 1, MOST, min(20, max(1, len(offered))), 10, key="set_amount", persist_state="session")
        prompts = offered[: int(amount)]
        if len(offered) < amount:
            st.caption(f"The calibration set has {len(offered)} held-out and test texts.")
    length = length_box.number_input("New tokens", 4, 400, 32, 8, key="set_length", persist_state="session")
    if button.button(
        f"Generate {len(prompts)} × {len(found.handles)}",
        icon=":material/playlist_play:",
        disabled=not prompts or has_active_job(state),
        width="stretch",
        key="set_run",
    ):
        chat = Chat() if source == "file" and chats(state) and st.session_state.get("gen_chat") else None
        write_all(state, found, prompts, int(length), chat)
        st.rerun()


def _list(made: PromptSet, found: Systems) -> None:
    others = [name for name in made.names if name != made.reference]
    who, by = split("prompt_order", [1, 1], "bottom")
    other = who.selectbox(f"Against '{made.reference}'", others, index=len(others) - 1, key=f"set_other_{'|'.join(others)}")
    order = by.selectbox("Sorted by", list(_ORDERS), format_func=_ORDERS.get, key="set_order", persist_state="session")
    rows = ordered(made.rows, other, order)
    st.markdown(summary(made.rows, other, made.reference))
    columns = {"prompt": st.column_config.TextColumn(width="medium", pinned=True)}
    columns |= {f"KL, {name}": st.column_config.NumberColumn(format="%.3f") for name in others}
    key = f"set_rows_{id(made)}_{other}_{order}_{len(rows)}"
    picked = chosen_row(frame_of(rows, others), key, columns, words.SET_ALT, _HEIGHT)
    st.caption(words.SET_HELP.format(reference=made.reference, n=made.n_tokens))
    _read(rows[picked or 0], made, found)


def ordered(rows: list[Row], other: str, by: str) -> list[Row]:
    """By KL, the largest first; by where they part, the soonest first and those that never do last; or as they were given."""
    if by == "kl":
        return sorted(rows, key=lambda row: -row.kl[other])
    if by == "parts":
        return sorted(rows, key=lambda row: (row.parts[other] is None, row.parts[other] or 0, -row.kl[other]))
    return list(rows)


def summary(rows: list[Row], other: str, reference: str) -> str:
    """How often the two write the same, and where half of the texts have parted."""
    same = sum(row.parts[other] is None for row in rows)
    parted = sorted(row.parts[other] or 0 for row in rows if row.parts[other] is not None)
    half = f" Of the others, half part within {statistics.median_low(parted) + 1} tokens." if parted else ""
    kl = sum(row.kl[other] for row in rows) / len(rows)
    said = f"On **{same} of {len(rows)}** prompts both write the same.{half} Mean KL **{kl:.3f}** nats per token."
    return f"{other} beside {reference}: ".replace("*", "\\*").replace("_", "\\_") + said


def frame_of(rows: list[Row], others: list[str]) -> pd.DataFrame:
    """prompt, then for each system its KL and the token at which it parts (counted from 1; empty: never)."""
    return pd.DataFrame(
        [
            {"prompt": " ".join(row.prompt[-90:].split())}
            | {f"KL, {name}": row.kl[name] for name in others}
            | {f"parts at, {name}": None if row.parts[name] is None else row.parts[name] + 1 for name in others}  # type: ignore[operator]
            for row in rows
        ]
    )


def _read(row: Row, made: PromptSet, found: Systems) -> None:
    """The prompt, and the texts side by side with what differs marked."""
    shades = system_colours(found.names, palette())
    base = row.pieces[made.reference]
    with st.container(border=True, key="stage_prompt"):
        st.text(row.prompt)
        for place, name in zip(split("prompt_texts", [1] * len(made.names)), made.names, strict=True):
            _text(place, name, row.pieces[name], base if name != made.reference else None, shades.get(name, palette().muted))


def _text(place: "DeltaGenerator", name: str, pieces: list[str], base: list[str] | None, shade: str) -> None:
    marks = differences(base, pieces)[1] if base is not None else None
    place.html(f'<div style="border-left:5px solid {shade};padding-left:8px;font-weight:600">{escape(name)}</div>')
    place.html(text_html(pieces, marks, shade, palette()))
