"""The form that chooses the calibration set, its preview, and what the last pass measured."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui import words
from ui.access import access
from ui.layout import split
from ui.state import Studio

if TYPE_CHECKING:
    from replaceme_core.calibration import CalibrationSet
    from replaceme_core.plan import CalibrationSection

_SOURCES = {
    "demo": "Shipped set",
    "upload": "Upload",
    "paste": "Paste",
    "self": "Written by the model",
    "preset": "Paper's sets",
    "hub": "Hub data set",
}
_SLOW = ("self", "preset", "hub")
"""read inside the job"""


@dataclass(frozen=True, eq=False)
class Chosen:
    """A described calibration set; `prepared` is None where reading it belongs into the job."""

    section: "CalibrationSection"
    prepared: "CalibrationSet | None"


def ask(state: Studio) -> Chosen | None:
    """What the form describes; None while something is missing or cannot be read (the page says what)."""
    source = st.segmented_control(
        "Where is the text?",
        list(_SOURCES),
        format_func=_SOURCES.get,
        default="demo",
        required=True,
        key="text_source",
        persist_state="session",
    )
    ask_fields = {"demo": _shipped, "upload": lambda: _upload(state), "paste": _paste, "self": _self, "preset": _preset, "hub": _hub}
    fields = ask_fields[source or "demo"]()
    settings = _settings(state)
    if fields is None:
        return None
    texts = fields.pop("texts", None)
    from replaceme_core.plan import CalibrationSection

    section = CalibrationSection(**fields, **settings)
    if source in _SLOW:
        return Chosen(section, None)
    try:
        return Chosen(section, _prepared(state, section, texts))
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return None


def _prepared(state: Studio, section: "CalibrationSection", texts: list[str] | None) -> "CalibrationSet":
    """Tokenised once per description; the last one is kept."""
    from replaceme_core import calibration

    resident = state.resident
    if resident is None:
        raise RuntimeError("text is tokenised for a model")
    key = (state.model, section.model_dump_json(), hashlib.sha256("\0".join(texts or []).encode()).hexdigest())
    if key not in state.prepared:
        state.prepared = {
            key: calibration.prepare(section, resident.handle.tokenizer, texts, section.source if texts is not None else None)
        }
    return state.prepared[key]


def _shipped() -> dict[str, object]:
    from replaceme_core.calibration import DEMO_SETS

    name = st.selectbox(
        "Set", list(DEMO_SETS), format_func=lambda key: f"{key} – {DEMO_SETS[key]}", key="text_demo", persist_state="session"
    )
    return {"source": f"demo:{name}"}


def _upload(state: Studio) -> dict[str, object] | None:
    file, column = st.columns([3, 1])
    upload = file.file_uploader(
        "A txt, jsonl, csv or parquet file",
        key="text_upload",
        help="txt: one text per paragraph or line. jsonl: one object per line with the column below, or 'messages'.",
    )
    name = column.text_input(
        "Column", value="text", key="text_column", persist_state="session", help="The field that holds the text (not used for txt)."
    )
    if upload is None:
        st.caption("Choose a file to go on.")
        return None
    from replaceme_core import calibration

    tokenizer = state.resident.handle.tokenizer if state.resident else None
    try:
        texts = calibration.read_upload(upload.name, upload.getvalue(), name.strip() or "text", tokenizer)
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return None
    return {"source": upload.name, "column": name.strip() or "text", "texts": texts}


def _paste() -> dict[str, object] | None:
    text = st.text_area("Text, one document per paragraph (an empty line between)", height=180, key="text_paste", persist_state="session")
    texts = [part.strip() for part in text.split("\n\n") if part.strip()]
    if not texts:
        st.caption("Paste some text to go on.")
        return None
    return {"source": "pasted text", "texts": texts}


def _self() -> dict[str, object]:
    st.caption("The model writes its own calibration text, sampled from the beginning of a text. Takes a while for a large model.")
    return {"source": "self"}


def _preset() -> dict[str, object] | None:
    if access().shared:
        st.info("Hub data sets are switched off on this shared server.")
        return None
    from replaceme_core.hub_text import presets

    known = presets()
    name = st.selectbox(
        "Set", list(known), format_func=lambda key: f"{key} – {known[key]['about']}", key="text_preset", persist_state="session"
    )
    st.caption("Streamed from the hub: needs a network, and fetches only as much as is used.")
    return {"source": f"preset:{name}"}


def _hub() -> dict[str, object] | None:
    if access().shared:
        st.info("Hub data sets are switched off on this shared server.")
        return None
    name, config, part, column = split("hub", [3, 2, 1, 1])
    fields = {
        "source": name.text_input("Id", placeholder="Salesforce/wikitext", key="text_hub", persist_state="session").strip(),
        "config": config.text_input("Configuration", placeholder="wikitext-2-raw-v1", key="text_config", persist_state="session").strip()
        or None,
        "split": part.text_input("Split", value="train", key="text_split", persist_state="session").strip() or "train",
        "column": column.text_input("Column", value="text", key="text_hub_column", persist_state="session").strip() or "text",
    }
    if not fields["source"]:
        st.caption("Fill in the id of the data set. It is streamed: only as much as is needed is fetched.")
        return None
    return {**fields, "source": f"hub:{fields['source']}"}


def _settings(state: Studio) -> dict[str, int | float]:
    with st.expander("Size and split"):
        tokens, length, holdout, seed = split("settings", [1, 1, 1, 1])
        return {
            "max_tokens": tokens.number_input(
                "Tokens",
                64,
                10_000_000,
                state.calibration_section.max_tokens if state.calibration_section else 16_384,
                1024,
                key="text_tokens",
                persist_state="session",
                help="Tokens to use, fitted and held-out together.",
            ),
            "max_length": length.number_input(
                "Tokens per sequence",
                2,
                8192,
                512,
                32,
                key="text_length",
                persist_state="session",
                help="Longer texts are cut into several sequences.",
            ),
            "holdout": holdout.number_input(
                "Held-out %", 5, 50, 10, 5, key="text_holdout", persist_state="session", help=words.TERMS["held-out"]
            )
            / 100,
            "seed": seed.number_input(
                "Seed", 0, 10_000, 0, key="text_seed", persist_state="session", help="Decides which texts are drawn and which are held out."
            ),
        }
