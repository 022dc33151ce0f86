"""What several cards of the lesson share: opening words, the choice of a span, a quoted text, and what a KL is."""

import re
from html import escape
from itertools import zip_longest

import streamlit as st

from replaceme_core.span import Span
from ui.lesson import words
from ui.lesson.data import CLOSEST, DROP, FIRST, LAST, Traces
from ui.look.palette import palette

SPANS = {"closest": CLOSEST, "first": FIRST, "last": LAST}


def lead(card: int, **figures: str) -> None:
    """The opening words of a card, in larger type."""
    with st.container(key=f"lesson_lead_{card}"):
        st.markdown(words.LEADS[card - 1].format(**figures))


def ask_span(place: str) -> Span:
    """One of the three spans that the lesson returns to."""
    names = {name: f"{title} ({SPANS[name].start}–{SPANS[name].end - 1})" for name, title in words.WHERE.items()}
    chosen = st.segmented_control(
        "Which three blocks?",
        list(names),
        format_func=names.get,
        default="closest",
        required=True,
        wrap=True,
        key=f"lesson_span_{place}",
        persist_state="session",
    )
    return SPANS[chosen or "closest"]


def quote(name: str, text: str, tone: str, original: str | None = None) -> None:
    """What a system wrote, under its name in its colour; words that are not those of `original` are marked."""
    colours = palette()
    colour = getattr(colours, tone)
    body = escape(text) if original is None else marked(text, original)
    st.html(
        f'<div style="border-left:6px solid {colour};padding:2px 0 2px 12px;margin:2px 0 8px"><div style="font-weight:700;color:{colour}">'
        f'{escape(name)}</div><div style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5;font-size:1.02rem">{body.strip()}</div></div>'
    )


def marked(text: str, original: str) -> str:
    """The text as HTML; a word that differs from the original's at its place is underlined and bold, not only coloured."""
    ours, theirs = re.findall(r"\s+|[^\s]+", text), re.findall(r"[^\s]+", original)
    words, parts = iter(theirs), []
    for piece in ours:
        if piece.isspace():
            parts.append(piece)
        elif piece == next(words, None):
            parts.append(escape(piece))
        else:
            parts.append(f'<mark class="differs">{escape(piece)}</mark>')
    return "".join(parts)


def agreement(text: str, original: str) -> tuple[int, int]:
    """How many words are the original's at their place, and of how many."""
    pairs = list(zip_longest(text.split(), original.split()))
    return sum(left == right for left, right in pairs), len(pairs)


def kl_words(traces: Traces) -> str:
    """What a KL is, by two measured examples."""
    small, large = traces.removals[CLOSEST, DROP], traces.removals[FIRST, DROP]
    return words.KL_HELP.format(small=small.kl, small_same=small.agreement, large=large.kl, large_same=large.agreement)
