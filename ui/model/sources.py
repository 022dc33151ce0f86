"""The fields of each place that calibration text can come from. `place` is 'text' for the first text and 'second' for one mixed in."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.look.layout import split
from ui.session.access import access
from ui.session.calibration_choice import GivenText, pasted, uploaded
from ui.session.state import Studio

SOURCES = {
    "demo": "Shipped set",
    "upload": "Upload",
    "paste": "Paste",
    "self": "Written by the model",
    "preset": "Paper's sets",
    "hub": "Hub data set",
}
SECOND = ("demo", "preset", "hub")
"""what can be mixed in"""
SLOW = ("self", "preset", "hub")
"""read inside the job"""
Fields = dict[str, Any]


def ask(source: str, place: str, state: Studio, column_is_set: bool = False) -> tuple[Fields, GivenText | None] | None:
    """The keys of the plan's calibration section and the text that was given, if it was; None while something is missing.

    `column_is_set`: column, configuration and split are those of the first text, because a plan has them once.
    """
    if source == "upload":
        return _given(_upload(state))
    if source == "paste":
        return _given(_paste())
    ask_fields: dict[str, Callable[[], Fields | None]] = {
        "demo": lambda: _shipped(place),
        "self": _self,
        "preset": lambda: _preset(place),
        "hub": lambda: _hub(place, column_is_set),
    }
    fields = ask_fields[source]()
    return None if fields is None else (fields, None)


def _given(found: tuple[GivenText, Fields] | None) -> tuple[Fields, GivenText] | None:
    if found is None:
        return None
    given, fields = found
    return {"source": given.source, **fields}, given


def _shipped(place: str) -> Fields:
    from replaceme_core.calibration.calibration import DEMO_SETS

    name = st.selectbox(
        "Set",
        list(DEMO_SETS),
        index=1 if place == "second" else 0,
        format_func=lambda key: f"{key} – {DEMO_SETS[key]}",
        key=f"{place}_demo",
        persist_state="session",
    )
    return {"source": f"demo:{name}"}


def _upload(state: Studio) -> tuple[GivenText, Fields] | None:
    file, column = split("upload", [3, 1])
    upload = file.file_uploader(
        "A txt, jsonl, csv or parquet file",
        key="text_upload",
        help="txt: one text per paragraph or line. jsonl: one object per line with the column below, or 'messages'.",
    )
    name = (
        column.text_input(
            "Column", value="text", key="text_column", persist_state="session", help="The field that holds the text (not used for txt)."
        ).strip()
        or "text"
    )
    if upload is None:
        st.caption("Choose a file to go on.")
        return None
    from replaceme_core.calibration import calibration

    tokenizer = state.resident.handle.tokenizer if state.resident else None
    try:
        texts = calibration.read_upload(upload.name, upload.getvalue(), name, tokenizer)
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return None
    return uploaded(upload.name, upload.getvalue(), texts), {"column": name}


def _paste() -> tuple[GivenText, Fields] | None:
    text = st.text_area("Text, one document per paragraph (an empty line between)", height=180, key="text_paste", persist_state="session")
    texts = [part.strip() for part in text.split("\n\n") if part.strip()]
    if not texts:
        st.caption("Paste some text to go on.")
        return None
    return pasted(texts), {}


def _self() -> Fields:
    st.caption("The model writes its own calibration text, sampled from the beginning of a text. Takes a while for a large model.")
    return {"source": "self"}


def _preset(place: str) -> Fields | None:
    if access().shared:
        st.info("Hub data sets are switched off on this shared server.")
        return None
    from replaceme_core.calibration.hub_text import presets

    known = presets()
    name = st.selectbox(
        "Set", list(known), format_func=lambda key: f"{key} – {known[key]['about']}", key=f"{place}_preset", persist_state="session"
    )
    st.caption("Streamed from the hub: needs a network, and fetches only as much as is used.")
    return {"source": f"preset:{name}"}


def _hub(place: str, column_is_set: bool) -> Fields | None:
    if access().shared:
        st.info("Hub data sets are switched off on this shared server.")
        return None
    if column_is_set:
        name, others = st.container(), {}
        st.caption("Column, configuration and split are those of the first text.")
    else:
        name, config, part, column = split(f"{place}_hub", [3, 2, 1, 1])
        others = {
            "config": _line(config, "Configuration", f"{place}_config", placeholder="wikitext-2-raw-v1") or None,
            "split": _line(part, "Split", f"{place}_split", value="train") or "train",
            "column": _line(column, "Column", f"{place}_hub_column", value="text") or "text",
        }
    identity = _line(name, "Id", f"{place}_hub", placeholder="Salesforce/wikitext")
    if not identity:
        st.caption("Fill in the id of the data set. It is streamed: only as much as is needed is fetched.")
        return None
    return {**others, "source": f"hub:{identity}"}


def _line(box: Any, label: str, key: str, **options: str) -> str:
    return str(box.text_input(label, key=key, persist_state="session", **options)).strip()
