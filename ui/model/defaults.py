"""What the calibration form starts with: the text that was measured on, else what suits the loaded model (`plans.defaults`)."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.model import sources
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import CalibrationSection

LEAST_PERCENT, MOST_PERCENT = 0.001, 99.999
ALSO = "text_also"
"""key of what a plan says that has no field"""
_UNASKED = ("test_tokens", "max_texts")
_EXACT = 2**53 - 1
"""up to which a browser counts exactly"""
_FOR = "text_for"
"""key of what the fields were filled in for"""


def begin(state: Studio) -> None:
    """Fill the fields in, once for every model that is loaded and every plan that is opened; what a person then changes stays."""
    filled_for = (state.model, state.text_moves)
    if st.session_state.get(_FOR) == filled_for:
        return
    st.session_state[_FOR] = filled_for
    section = state.calibration_section if state.calibration_text is None else None
    for key, value in _fields(section or _suits(state), state).items():
        st.session_state[key] = value


def percent(share: float) -> float:
    """A share as its field shows it, so that `share` of it is the same number again; one that no field holds becomes the nearest."""
    return min(max(round(100 * share, 13), LEAST_PERCENT), MOST_PERCENT)


def share(percent: float) -> float:
    return round(percent / 100, 15)


def also() -> dict[str, int]:
    """What a plan says beside the fields."""
    found: dict[str, int] = st.session_state.get(ALSO, {})
    return found


def _suits(state: Studio) -> "CalibrationSection":
    from replaceme_core import pipeline
    from replaceme_core.plans.plan import CalibrationSection

    resident = state.resident
    if resident is None:
        raise RuntimeError("text is chosen for a model")
    return pipeline.filled(CalibrationSection(), resident.handle, resident.section.path)


def _fields(section: "CalibrationSection", state: Studio) -> dict[str, object]:
    """Widget keys and values; a source of another place (a file) leaves its own fields as they are."""
    from replaceme_core.calibration.self_text import kind_for

    tokenizer = state.resident.handle.tokenizer if state.resident else None
    found: dict[str, object] = {
        "text_tokens": min(section.max_tokens, _EXACT),
        "text_length": min(section.max_length, _EXACT),
        "text_holdout": percent(section.holdout),
        "text_seed": max(-_EXACT, min(section.seed, _EXACT)),
        "text_skip": section.skip_first,
        "text_mix": section.second is not None,
        "second_share": percent(section.second_share),
        ALSO: {key: getattr(section, key) for key in _UNASKED if getattr(section, key) != type(section).model_fields[key].default},
    }
    offered = {"text": sources.offered(state), "second": sources.offered_second(state)}
    for place, source in (("text", section.source), ("second", section.second or "")):
        kind, _, name = source.partition(":")
        found[f"{place}_source"] = kind if kind in offered[place] else offered[place][0]
        if kind in ("demo", "smollm2", "self", "preset", "hub") and name:
            found[f"{place}_self_{kind_for(tokenizer)}" if kind == "self" else f"{place}_{kind}"] = name
        if kind == "hub":
            found |= {f"{place}_config": section.config or "", f"{place}_split": section.split, f"{place}_hub_column": section.column}
    return found
