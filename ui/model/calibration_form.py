"""The form that chooses the calibration set: one text or two, their size and split, and for a model of images their folder."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.look.glossary import TERMS
from ui.look.layout import split
from ui.model import defaults, stored, words
from ui.model import sources as text_sources
from ui.model.state import ModelPageState
from ui.session.access import access
from ui.session.calibration_choice import Chosen, GivenText, set_name
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.calibration.calibration import CalibrationSet
    from replaceme_core.plans.plan import CalibrationSection


def ask(state: Studio) -> Chosen | None:
    """What the form describes; None while something is missing or cannot be read (the page says what)."""
    defaults.begin(state)
    described = _images() if state.reads_images else _texts(state)
    settings = _settings()
    if described is None:
        return None
    fields, given = described
    from replaceme_core.plans.plan import CalibrationSection

    section = CalibrationSection(**fields, **settings)
    stored.say(state, section)
    if state.reads_images or _is_slow(section):
        return Chosen(section, None, given)
    try:
        return Chosen(section, _prepared(state, section, given), given)
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return None


def _is_slow(section: "CalibrationSection") -> bool:
    return any(source.split(":")[0] in text_sources.SLOW for source in (section.source, section.second or ""))


def _texts(state: Studio) -> tuple[dict[str, Any], GivenText | None] | None:
    """The first text, and the one mixed into it if there is one."""
    source = _ask_source("Where is the text?", text_sources.offered(state), "text_source", state, _another)
    first = text_sources.ask(source, "text", state)
    mixed = st.toggle("Mix in a second text", key="text_mix", persist_state="session", help=words.MIX_HELP)
    if not mixed:
        return first
    with st.container(border=True):
        kind = _ask_source("Where is the second text?", text_sources.offered_second(state), "second_source", state)
        second = text_sources.ask(kind, "second", state, column_is_set=source in ("upload", "hub"))
        share = _ask_percent(st, "Share of the second text, %", 50.0, "second_share")
    if first is None or second is None:
        return None
    fields = {key: value for key, value in second[0].items() if key != "source"}
    return {**fields, **first[0], "second": second[0]["source"], "second_share": share}, first[1]


def _another() -> None:
    """A text of one's own is not mixed unless one says so; what the model writes is, where it writes two kinds."""
    if st.session_state["text_source"] not in text_sources.OWN:
        st.session_state["text_mix"] = False


def _ask_source(label: str, sources: list[str], key: str, state: Studio, changed: Callable[[], None] | None = None) -> str:
    source = st.segmented_control(
        label,
        sources,
        format_func=lambda kind: text_sources.title(kind, state),
        default=sources[0],
        required=True,
        key=key,
        persist_state="session",
        on_change=changed or "rerun",
    )
    return source or sources[0]


def _images() -> tuple[dict[str, Any], None] | None:
    """The folder of a model of images, looked through by name only."""
    if access().shared:
        st.info("This model reads images from a folder of this machine, which a shared server does not open.")
        return None
    st.caption(words.IMAGES_HELP)
    folder = st.text_input("Folder of images", placeholder="/home/me/photos", key="image_folder", persist_state="session").strip()
    if not folder:
        st.caption("Fill in the folder to go on.")
        return None
    from replaceme_core.models.image_files import list_images

    try:
        n_images = len(list_images(folder))
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return None
    st.caption(f"{n_images:,} images. Each of them is a sequence, each patch of it a token.")
    return {"source": folder}, None


def _prepared(state: Studio, section: "CalibrationSection", given: GivenText | None) -> "CalibrationSet":
    """Tokenised once per description; the last one is kept."""
    from replaceme_core import pipeline
    from replaceme_core.calibration import calibration

    resident = state.resident
    if resident is None:
        raise RuntimeError("text is tokenised for a model")
    texts = given.texts if given else None
    described = section.model_dump_json()
    key = (state.model, described, hashlib.sha256("\0".join(texts or []).encode()).hexdigest())
    own = state.slot(ModelPageState)
    if key not in own.prepared:
        with st.spinner("Reading the text …", show_time=True):
            within, _ = pipeline.within(section, resident.handle)
            own.prepared = {key: calibration.prepare(within, resident.handle.tokenizer, texts, set_name(section, given))}
    return own.prepared[key]


def _settings() -> dict[str, int | float]:
    with st.expander("Size and split"):
        tokens, length, holdout, seed = split("settings", [1, 1, 1, 1])
        skip = st.toggle(
            "Leave each text's first token out of the fit", key="text_skip", persist_state="session", help=words.SKIP_FIRST_HELP
        )
        also = defaults.also()
        if also:
            st.caption(f"As the plan says: {', '.join(f'{key} {value:,}' for key, value in also.items())}.")
        return also | {
            "skip_first": skip,
            "max_tokens": tokens.number_input(
                "Tokens", 2, None, 16_384, 1024, key="text_tokens", persist_state="session", help=words.TOKENS_HELP
            ),
            "max_length": length.number_input(
                "Tokens per sequence", 2, None, 512, 32, key="text_length", persist_state="session", help=words.LENGTH_HELP
            ),
            "holdout": _ask_percent(holdout, "Held-out %", 10.0, "text_holdout", TERMS["held-out"]),
            "seed": seed.number_input("Seed", value=0, key="text_seed", persist_state="session", help=words.SEED_HELP),
        }


def _ask_percent(place: Any, label: str, value: float, key: str, help_: str | None = None) -> float:
    """A share, asked for in per cent; any that a plan can say."""
    least, most = defaults.LEAST_PERCENT, defaults.MOST_PERCENT
    return defaults.share(place.number_input(label, least, most, value, 5.0, "%g", key=key, persist_state="session", help=help_))
