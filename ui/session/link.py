"""An address as data: `?model=demo&span=5:8&prompt=…&card=4&poll=K7QF9&present=1`, so that a class can follow.

An address may come from anybody. Every value is checked, and a wrong one becomes a sentence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from unicodedata import category

import streamlit as st

from replaceme_core.errors import SpanError
from replaceme_core.span import Cut, Span
from ui.look.figures import cut_text
from ui.session.state import Lifetime, Slot

LONGEST_MODEL = 200
LONGEST_PROMPT = 1500
"""characters of a prompt that an address carries"""
CARDS = 12
"""of the lesson, which lies above this floor; a test counts them"""
POLL_SIGNS = 5
KEYS = ("model", "span", "prompt", "card", "poll", "present")
_LONGEST_SPANS = 80
_SPANS = re.compile(r"[0-9]{1,4}:[0-9]{1,4}(,[0-9]{1,4}:[0-9]{1,4})*")


@dataclass(frozen=True)
class Address:
    """What an address asks for; None or empty: nothing was said."""

    model: str | None = None
    spans: tuple[Span, ...] = ()
    prompt: str | None = None
    card: int | None = None
    present: bool | None = None
    poll: str | None = None

    @property
    def asks(self) -> bool:
        """Whether a model has to be there before the address is done."""
        return bool(self.model or self.spans or self.prompt)

    def describe(self) -> str:
        """For example: the model 'demo', without the blocks 5-7, with the prompt "Once upon a time"."""
        model = "the demo model" if self.model == "demo" else f"the model `{self.model}`" if self.model else "the loaded model"
        parts = [model]
        if self.spans:
            parts.append(f"without {cut_text(Cut(self.spans))}")
        if self.prompt:
            parts.append(f"with the prompt “{_plain(self.prompt)}”")
        return ", ".join(parts)


@dataclass(eq=False)
class LinkState(Slot):
    """Where a session stands with the address bar."""

    wanted: Address | None = None
    """what an address asked for and could not be had yet"""
    seen: dict[str, str] = field(default_factory=dict)
    """what stood in the address bar at the end of the last run"""
    problems: list[str] = field(default_factory=list)
    prompt: str = ""
    """the prompt of the address"""
    card: int | None = None
    """the card of the address, until the lesson has turned to it"""
    poll: str | None = None
    """the code of the poll of the address"""


@dataclass(eq=False)
class PromptInUse(Slot):
    """The prompt that was last written with."""

    lifetime: ClassVar[Lifetime] = "model"
    text: str = ""


def read(params: Mapping[str, str]) -> tuple[Address, list[str]]:
    """The address that query parameters describe, and one sentence for every value that cannot be used."""
    found, problems = {}, []
    readers = {"model": _model, "span": _spans, "prompt": _prompt, "card": _card, "poll": _poll, "present": _present}
    for key, reader in readers.items():
        if params.get(key):
            try:
                found["spans" if key == "span" else key] = reader(params[key])
            except (ValueError, SpanError) as error:
                problems.append(str(error))
    return Address(**found), problems  # type: ignore[arg-type]


def bar() -> dict[str, str]:
    """What the address bar holds of an address."""
    return {key: st.query_params[key] for key in KEYS if key in st.query_params}


def show(**values: str) -> None:
    """Write values into the address bar, only where they are new: each change is an entry of the browser's history."""
    for key, value in values.items():
        if st.query_params.get(key) != value:
            st.query_params[key] = value


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


def _poll(value: str) -> str:
    if not re.fullmatch(f"[A-Z2-9]{{{POLL_SIGNS}}}", value.upper()):
        raise ValueError(f"The address names no poll: 'poll' is '{_plain(value)}', and must be {POLL_SIGNS} letters and digits.")
    return value.upper()


def _present(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"'present' is '{_plain(value)}' in the address, and must be 1 (presenter mode) or 0.")
    return value == "1"


def _plain(value: str, most: int = 60) -> str:
    """A value as it may stand in a sentence: short, on one line, without Markdown."""
    line = " ".join(value.split())
    return re.sub(r"([\\`*_\[\]<>$:#~|])", r"\\\1", line[:most] + ("…" if len(line) > most else ""))
