"""What several cards of the lesson share: opening words, the choice of a span, a quoted text, and what a KL is."""

import re
from html import escape

import streamlit as st

from replaceme_core.span import Span
from ui.lesson import words
from ui.lesson.data import DROP, Traces
from ui.look.palette import palette
from ui.look.token_text import differences


def lead(card: int, **figures: str) -> None:
    """The opening words of a card, in larger type."""
    with st.container(key=f"lesson_lead_{card}"):
        st.markdown(words.LEADS[card - 1].format(**figures))


def ask_span(place: str, traces: Traces) -> Span:
    """One of the three spans that the lesson returns to."""
    spans = traces.spans
    names = {name: f"{title} ({spans[name].start}–{spans[name].end - 1})" for name, title in words.WHERE.items()}
    chosen = st.segmented_control(
        f"Which {words.number(traces.length)} blocks?",
        list(names),
        format_func=names.get,
        default="closest",
        required=True,
        wrap=True,
        key=f"lesson_span_{place}",
        persist_state="session",
    )
    return spans[chosen or "closest"]


def quote(name: str, text: str, tone: str, original: str | None = None) -> None:
    """What a system wrote, under its name in its colour; words that are not those of `original` are marked."""
    colours = palette()
    colour = getattr(colours, tone)
    body = escape(text) if original is None else marked(text, original)
    st.html(
        f'<div style="border-left:6px solid {colour};padding:2px 0 2px 12px;margin:2px 0 8px"><div style="font-weight:700;color:{colour}">'
        f'{escape(name)}</div><div style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5;font-size:1.02rem">{body.strip()}</div></div>'
    )


def last_line(prompt: str) -> str:
    """Where a prompt of several lines comes to the point."""
    return prompt.splitlines()[-1]


def marked(text: str, original: str) -> str:
    """The text as HTML; words that the original has not at that place are underlined and bold, not only coloured."""
    _, added = differences(original.split(), text.split())
    marks, parts = iter(added), []
    for piece in re.findall(r"\s+|\S+", text):
        other = not piece.isspace() and next(marks)
        parts.append(f'<mark class="differs">{escape(piece)}</mark>' if other else escape(piece))
    return "".join(parts)


def agreement(text: str, original: str) -> tuple[int, int]:
    """How many of the original's words the text has too, in their order, and of how many."""
    left, _ = differences(original.split(), text.split())
    return len(left) - sum(left), len(left)


def kl_words(traces: Traces) -> str:
    """What a KL is, by two measured examples."""
    small, large = traces.removals[traces.closest, DROP], traces.removals[traces.first, DROP]
    return words.KL_HELP.format(small=small.kl, small_same=small.agreement, large=large.kl, large_same=large.agreement)
