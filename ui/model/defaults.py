"""What the calibration form starts with: the text that was measured on, else what suits the loaded model (`plans.defaults`)."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.model import sources
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import CalibrationSection

_FOR = "text_for"
"""key of the model that the fields were filled in for"""


def begin(state: Studio) -> None:
    """Fill the fields in, once for every model that is loaded; what a person then changes stays."""
    if st.session_state.get(_FOR) == state.model:
        return
    st.session_state[_FOR] = state.model
    section = state.calibration_section if state.calibration_text is None else None
    for key, value in _fields(section or _suits(state), state).items():
        st.session_state[key] = value


def _suits(state: Studio) -> "CalibrationSection":
    from replaceme_core import pipeline
    from replaceme_core.plans.plan import CalibrationSection

    resident = state.resident
    if resident is None:
        raise RuntimeError("text is chosen for a model")
    return pipeline.filled(CalibrationSection(), resident.handle, resident.section.path)


def _fields(section: "CalibrationSection", state: Studio) -> dict[str, object]:
    """Widget keys and values; a source of another place (a file, a data set of the hub) leaves its own fields as they are."""
    from replaceme_core.calibration.self_text import kind_for

    tokenizer = state.resident.handle.tokenizer if state.resident else None
    found: dict[str, object] = {
        "text_tokens": section.max_tokens,
        "text_length": section.max_length,
        "text_holdout": round(100 * section.holdout),
        "text_seed": section.seed,
        "text_skip": section.skip_first,
        "text_mix": section.second is not None,
        "second_share": round(100 * section.second_share),
    }
    offered = {"text": sources.offered(state), "second": sources.offered_second(state)}
    for place, source in (("text", section.source), ("second", section.second or "")):
        kind, _, name = source.partition(":")
        found[f"{place}_source"] = kind if kind in offered[place] else offered[place][0]
        if kind in ("demo", "smollm2", "self") and name:
            found[f"{place}_self_{kind_for(tokenizer)}" if kind == "self" else f"{place}_{kind}"] = name
    return found
