"""The frame of the lesson: which card, the way to the next one by button, key or address, and the title."""

import streamlit as st

from ui.lesson import words
from ui.lesson.cards import CARDS
from ui.lesson.data import TITLES, models, traces
from ui.lesson.state import LessonState
from ui.look.palette import palette
from ui.session.link import LinkState, show
from ui.session.state import Studio

_CSS = """<style>
.st-key-lesson_name h2{font-size:.9rem;padding:0;font-weight:600;opacity:.75}
.st-key-lesson_name{margin-bottom:-.8rem}
.st-key-lesson_title h3{font-size:2.1rem;padding-top:.6rem}
[class*="st-key-lesson_lead_"] p,[class*="st-key-lesson_lead_"] li{font-size:1.14rem;line-height:1.6}
[class*="st-key-lesson_lead_12"] li{margin-bottom:.7rem}
mark.differs{background:none;color:inherit;font-weight:700;text-decoration:underline 3px solid %s;text-underline-offset:4px}
</style>"""


def lesson(state: Studio) -> None:
    """The present card with its frame."""
    known = models()
    if not known:
        st.error(words.NO_TRACES, icon=":material/error:")
        return
    st.html(_CSS % palette().cut)
    own, link = state.slot(LessonState), state.slot(LinkState)
    if link.card is not None:
        own.card, link.card = link.card, None
    card = min(max(1, own.card), len(CARDS))
    show(card=str(card))
    link.seen["card"] = str(card)
    _navigation(state, card)
    st.container(key="lesson_title").markdown(f"### {card} · {words.TITLES[card - 1]}")
    _switch(own, known)
    CARDS[card - 1](state, traces(own.model))


def _switch(own: LessonState, known: list[str]) -> None:
    """Whose figures the cards show: the real model's, unless the small one is asked for."""
    own.model = own.model if own.model in known else known[0]
    if len(known) < 2:
        return

    def switched() -> None:
        own.model = st.session_state["lesson_model"] or own.model

    st.session_state["lesson_model"] = own.model
    st.segmented_control(
        "Figures of",
        known,
        format_func=TITLES.get,
        key="lesson_model",
        on_change=switched,
        required=True,
        wrap=True,
        label_visibility="collapsed",
    )


def _navigation(state: Studio, card: int) -> None:
    """Above the card, so that it stays in its place whatever the card shows."""
    with st.container(horizontal=True, vertical_alignment="center", key="lesson_nav"):
        st.button(
            "Previous",
            icon=":material/arrow_back:",
            shortcut="Left",
            disabled=card == 1,
            on_click=_turn,
            args=(state, -1),
            key="card_before",
        )
        with st.container(width="stretch"):
            _where(state, card)
        st.button(
            "Next",
            icon=":material/arrow_forward:",
            icon_position="right",
            shortcut="Right",
            type="primary",
            disabled=card == len(CARDS),
            on_click=_turn,
            args=(state, 1),
            key="card_after",
        )


def _where(state: Studio, card: int) -> None:
    """How far one is; before a room without the buttons that jump."""
    st.container(key="lesson_name").markdown("## Lesson")
    if state.present:
        st.progress(card / len(CARDS), text=f"Card {card} of {len(CARDS)}")
        return
    st.session_state["card_jump"] = card
    st.pills(
        f"Card {card} of {len(CARDS)}",
        range(1, len(CARDS) + 1),
        key="card_jump",
        on_change=_jumped,
        args=(state,),
        required=True,
        wrap=True,
        label_visibility="collapsed",
    )


def _turn(state: Studio, step: int) -> None:
    """By steps, not to a number: two quick presses can come before the first one is drawn."""
    own = state.slot(LessonState)
    own.card, state.turned = min(max(1, own.card + step), len(CARDS)), True


def _jumped(state: Studio) -> None:
    state.turned = True
    own = state.slot(LessonState)
    own.card = st.session_state["card_jump"] or own.card
