"""Addresses that carry state, so that a class can follow: `?model=demo&span=5:8&prompt=…&card=4&present=1`.

An address may come from anybody. Every value is checked, a wrong one becomes a sentence, and no model is loaded without a click.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import category
from urllib.parse import urlencode

import streamlit as st

from replaceme_core.errors import ReplaceMeError, SpanError
from replaceme_core.span import Cut, Span
from ui.look import words
from ui.session.access import access
from ui.session.jobs import runner
from ui.session.work import load_model, start_demo

if TYPE_CHECKING:
    from ui.session.state import Studio

LONGEST_MODEL = 200
LONGEST_PROMPT = 1500
"""characters of a prompt that an address carries"""
CARDS = 10
_LONGEST_SPANS = 80
_KEYS = ("model", "span", "prompt", "card", "present")
_PASSING = ("model", "span", "prompt")
"""what is used once and then leaves the address bar, which would soon be out of date"""
_SPANS = re.compile(r"[0-9]{1,4}:[0-9]{1,4}(,[0-9]{1,4}:[0-9]{1,4})*")


@dataclass(frozen=True)
class Address:
    """What an address asks for; None or empty: nothing was said."""

    model: str | None = None
    spans: tuple[Span, ...] = ()
    prompt: str | None = None
    card: int | None = None
    present: bool | None = None

    @property
    def asks(self) -> bool:
        """Whether a model has to be there before the address is done."""
        return bool(self.model or self.spans or self.prompt)

    def describe(self) -> str:
        """For example: the model 'demo', without the blocks 5-7, with the prompt "Once upon a time"."""
        model = "the demo model" if self.model == "demo" else f"the model `{self.model}`" if self.model else "the loaded model"
        parts = [model]
        if self.spans:
            parts.append("without " + ", ".join(_blocks(span) for span in self.spans))
        if self.prompt:
            parts.append(f"with the prompt “{_plain(self.prompt)}”")
        return ", ".join(parts)


def read(params: Mapping[str, str]) -> tuple[Address, list[str]]:
    """The address that query parameters describe, and one sentence for every value that cannot be used."""
    found, problems = {}, []
    readers = {"model": _model, "span": _spans, "prompt": _prompt, "card": _card, "present": _present}
    for key, reader in readers.items():
        if params.get(key):
            try:
                found["spans" if key == "span" else key] = reader(params[key])
            except (ValueError, SpanError) as error:
                problems.append(str(error))
    return Address(**found), problems  # type: ignore[arg-type]


def _model(value: str) -> str:
    if len(value) > LONGEST_MODEL or not value.isprintable() or value != value.strip() or set(value) & set("[]<>`"):
        raise ValueError(
            f"The address names no model: 'model' must be a name of at most {LONGEST_MODEL} printable characters, without []<>`."
        )
    return value


def _spans(value: str) -> tuple[Span, ...]:
    if len(value) > _LONGEST_SPANS or not _SPANS.fullmatch(value):
        raise ValueError(f"The address names no span: 'span' is '{_plain(value)}', and must look like 5:8, or 2:4,6:8 for two spans.")
    pairs = [tuple(map(int, pair.split(":"))) for pair in value.split(",")]
    for start, end in pairs:
        if not 1 <= start < end:
            raise ValueError(
                f"The address names no span: {start}:{end} must begin at block 1 or later, because block 0 stays, and end after it begins."
            )
    return Cut.of(Span(start, end) for start, end in pairs).spans


def _prompt(value: str) -> str:
    if len(value) > LONGEST_PROMPT:
        raise ValueError(f"The prompt of the address has {len(value):,} characters; at most {LONGEST_PROMPT:,} are taken from an address.")
    if any(category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in value):
        raise ValueError("The prompt of the address holds control characters and is not used.")
    return value


def _card(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", value) or not 1 <= int(value) <= CARDS:
        raise ValueError(f"The address names no card of the lesson: 'card' is '{_plain(value)}', and must be 1 to {CARDS}.")
    return int(value)


def _present(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"'present' is '{_plain(value)}' in the address, and must be 1 (presenter mode) or 0.")
    return value == "1"


def _plain(value: str, most: int = 60) -> str:
    """A value as it may stand in a sentence: short, on one line, without Markdown."""
    line = " ".join(value.split())
    return re.sub(r"([\\`*_\[\]<>$:#~|])", r"\\\1", line[:most] + ("…" if len(line) > most else ""))


def _blocks(span: Span) -> str:
    return f"block {span.start}" if len(span) == 1 else f"blocks {span.start}–{span.end - 1}"


def arrive(state: "Studio") -> None:
    """Take over what a new address asks for, as far as it can be had now; called at the start of every page."""
    raw = {key: st.query_params[key] for key in _KEYS if key in st.query_params}
    if raw and raw != state.address_seen and not state.turned:
        address, state.address_problems = read(raw)
        if address.present is not None:
            state.present = address.present
        if address.card is not None:
            state.lesson.card = address.card
        state.wanted = address if address.asks else None
    state.turned = False
    _fulfil(state)
    if state.present:
        show(present="1")
    elif "present" in st.query_params:
        del st.query_params["present"]
    state.address_seen = {key: st.query_params[key] for key in _KEYS if key in st.query_params}


def show(**values: str) -> None:
    """Write values into the address bar, only where they are new: each change is an entry of the browser's history."""
    for key, value in values.items():
        if st.query_params.get(key) != value:
            st.query_params[key] = value


def _fulfil(state: "Studio") -> None:
    """Choose the span and the prompt of the address once its model is loaded and measured."""
    wanted, resident = state.wanted, state.resident
    if wanted is None or resident is None or (wanted.model and resident.section.path != wanted.model):
        return
    if wanted.spans and state.measurement is None:
        return
    if wanted.spans:
        try:
            cut = Cut(wanted.spans).check(resident.handle.n_blocks)
        except SpanError as error:
            state.address_problems = [f"The address does not fit this model. {error}"]
        else:
            state.choose(cut.spans[0])
            state.more = list(cut.spans[1:])
    if wanted.prompt:
        state.prompt = wanted.prompt
        if state.generation is not None and state.generation.prompt != wanted.prompt:
            state.generation = None
    forget(state)


def forget(state: "Studio") -> None:
    """The address is done, or was put away."""
    state.wanted = None
    for key in _PASSING:
        if key in st.query_params:
            del st.query_params[key]


def notice(state: "Studio") -> None:
    """What of the address could not be used, and the one button that does what it asks for."""
    if state.address_problems:
        st.warning("  \n".join(state.address_problems), icon=":material/link_off:")
    wanted = state.wanted
    job = runner().latest(state.owner)
    if wanted is None or (job is not None and job.active):
        return
    with st.container(border=True, key="address_notice"):
        st.markdown(f":material/link: This address asks for {wanted.describe()}.")
        with st.container(horizontal=True, vertical_alignment="center"):
            _offer(state, wanted)
            if st.button("Not now", key="address_forget"):
                forget(state)
                state.address_seen = {}
                st.rerun()


def _offer(state: "Studio", wanted: Address) -> None:
    """The button that loads the model of the address, if this server offers it."""
    resident = state.resident
    if resident is not None and wanted.model in (None, resident.section.path):
        st.caption(words.ADDRESS_MEASURE)
        return
    path = wanted.model or "demo"
    try:
        access().require(path)
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/lock:")
        return
    if path == "demo":
        if st.button("Load and measure the demo model", type="primary", icon=":material/play_arrow:", key="address_load"):
            start_demo(state)
            st.rerun()
    elif st.button("Load this model", type="primary", icon=":material/download:", key="address_load", help=words.ADDRESS_LOAD_HELP):
        from replaceme_core.plans.plan import ModelSection

        load_model(state, ModelSection(path=path))
        st.rerun()


def carried(state: "Studio", name: str) -> dict[str, str]:
    """The query parameters that bring somebody else to where this session is."""
    values: dict[str, str] = {}
    if state.resident is not None:
        values["model"] = state.resident.section.path
        if state.cut is not None:
            values["span"] = ",".join(map(str, state.cut.spans))
    prompt = state.generation.prompt if state.generation else state.prompt
    if prompt and len(prompt) <= LONGEST_PROMPT:
        values["prompt"] = prompt
    if name == "lesson":
        values["card"] = str(state.lesson.card)
    return values | ({"present": "1"} if state.present else {})


def link(state: "Studio", name: str) -> str:
    """The whole address of this page with what it carries."""
    values = carried(state, name)
    return (st.context.url or "").split("?")[0] + ("?" + urlencode(values) if values else "")


def copy_link(state: "Studio", name: str) -> None:
    """The address of what is on the screen, ready to be copied."""
    with st.popover("Copy link", icon=":material/link:", width="stretch"):
        st.code(link(state, name), language=None, wrap_lines=True)
        st.caption(words.ADDRESS_HELP)
