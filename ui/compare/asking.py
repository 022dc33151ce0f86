"""What Compare asks for: a prompt or a message, how it is put, and how much is generated; then the job that generates."""

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.compare import words
from ui.compare.generation import Chat, CompareState, Generation, present
from ui.compare.jobs import readable, write
from ui.compare.prompts import chats, default_prompt, suggested
from ui.compare.systems import Systems
from ui.look.layout import split
from ui.parts.job_panel import has_active_job
from ui.session.state import Studio

_ANY_DIRECTION = "<style>textarea{unicode-bidi:plaintext;text-align:start}</style>"
"""a right-to-left prompt is typed from the right"""
_LENGTHS = {True: ("gen_length", 200, 40, 8), False: ("gen_length_real", 1024, 256, 8)}
"""by whether it is the demo: key, most, usual and step of new tokens; the demo model's texts are short"""


def ask(state: Studio, found: Systems) -> None:
    """The prompt with its settings; Generate starts the job. A prompt that cannot be read is one sentence, and the page goes on."""
    chat = _ask_beginning(state)
    before = present(state)
    goes_on = chat and before is not None and before.goes_on_with(found.handles)
    with st.form("prompt_form", border=False):
        st.html(_ANY_DIRECTION)
        system = _ask_system(before, goes_on) if chat else ""
        prompt = _ask_prompt(state, before, chat, goes_on)
        settings = _settings(state)
        asked, anew = _buttons(state, chat, goes_on)
    if asked or anew:
        said = (*before.chat.said, before.prompt) if goes_on and asked and before is not None and before.chat is not None else ()
        _send(state, found, prompt, settings, Chat(system.strip(), said) if chat else None)


def _send(state: Studio, found: Systems, prompt: str, settings: dict[str, int | float], chat: Chat | None) -> None:
    try:
        readable(found.handles, prompt, chat, present(state))
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return
    write(state, found.handles, prompt, settings, chat)
    state.slot(CompareState).draft = None
    st.rerun()


def _ask_beginning(state: Studio) -> bool:
    """Whether it is a chat; and something to begin with, which goes into the field below."""
    offers, demo = chats(state), state.resident is not None and state.resident.is_demo
    choice, toggle = split("beginning", [4, 1], "bottom") if offers else (st.container(), None)
    chat = toggle is not None and toggle.toggle("Chat", value=not demo, key="gen_chat", persist_state="session", help=words.CHAT_HELP)
    found = suggested(state, chat)
    key = f"gen_begin_{'chat' if chat else 'plain'}"
    choice.selectbox(
        "Begin with",
        range(len(found)),
        index=None,
        format_func=lambda at: found[at].label if at < len(found) else "",
        placeholder=words.BEGIN,
        key=key,
        on_change=_begin,
        args=(state, key, [each.text for each in found]),
        help=words.BEGIN_HELP,
    )
    return chat


def _begin(state: Studio, key: str, texts: list[str]) -> None:
    at = st.session_state[key]
    state.slot(CompareState).draft = texts[at] if at is not None else None


def _ask_system(before: Generation | None, goes_on: bool) -> str:
    kept = before.chat.system if before is not None and before.chat is not None else ""
    return st.text_input(
        "System message",
        value=kept,
        placeholder=words.SYSTEM_EMPTY,
        disabled=goes_on,
        help=words.SYSTEM_ON if goes_on else words.SYSTEM_HELP,
    )


def _ask_prompt(state: Studio, before: Generation | None, chat: bool, goes_on: bool) -> str:
    draft, origin = state.slot(CompareState).draft, ""
    if draft is not None:
        shown = draft
    elif goes_on:
        shown = ""
    elif before is not None and (before.chat is not None) == chat:
        shown = before.prompt
    else:
        default = default_prompt(state, chat)
        shown, origin = default.text, default.label
    said = st.text_area(
        "Message" if chat else "Prompt",
        value=shown,
        height=80 if shown.count("\n") < 3 else 140,
        placeholder=words.NEXT_MESSAGE if goes_on else None,
        help=words.MESSAGE_HELP if chat else None,
    )
    if origin:
        st.caption(f"To begin with: {origin}.")
    return said


def _settings(state: Studio) -> dict[str, int | float]:
    length, temperature, seed = st.columns([2, 2, 1], vertical_alignment="bottom")
    key, most, usual, step = _LENGTHS[state.resident is not None and state.resident.is_demo]
    return {
        "max_new_tokens": length.slider("Max new tokens", 8, most, usual, step, key=key, persist_state="session"),
        "temperature": temperature.slider(
            "Temperature", 0.0, 1.5, 0.0, 0.1, key="gen_temperature", persist_state="session", help=words.DRAW_SETTINGS_HELP
        ),
        "seed": seed.number_input("Seed", 0, 9999, 0, key="gen_seed", persist_state="session", help="The same for every system."),
    }


def _buttons(state: Studio, chat: bool, goes_on: bool) -> tuple[bool, bool]:
    """(go on or generate, begin a new conversation)."""
    busy = has_active_job(state, "short")
    with st.container(horizontal=True):
        asked = st.form_submit_button(
            "Send" if goes_on else "Generate", type="primary", icon=":material/send:" if chat else ":material/edit:", disabled=busy
        )
        anew = goes_on and st.form_submit_button("Begin a new conversation with it", icon=":material/add_comment:", disabled=busy)
    return asked, anew
