"""The first part of Compare: a prompt, and what every system writes on it, live, with a stop that keeps what is written."""

from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.compare import words
from ui.compare.generation import Generation, present
from ui.compare.jobs import write
from ui.compare.systems import Systems
from ui.look.layout import split
from ui.look.page_style import NOTE
from ui.look.palette import palette
from ui.look.systems import system_colours
from ui.look.token_text import text_html
from ui.parts.job_panel import JobPanel, has_active_job, progress_line
from ui.session.jobs import runner
from ui.session.link import LinkState
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle

_PERIOD = 0.3
_PROMPT = "Once upon a time"
_ANY_DIRECTION = "<style>textarea{unicode-bidi:plaintext;text-align:start}</style>"
"""a right-to-left prompt is typed from the right"""


def ask(state: Studio, found: Systems) -> None:
    """The prompt with its settings; Write starts the job. A prompt that cannot be read is one sentence, and the page goes on."""
    busy, before = has_active_job(state), present(state)
    with st.form("prompt_form", border=False):
        st.html(_ANY_DIRECTION)
        prompt = st.text_area("Prompt", value=before.prompt if before else default_prompt(state), height=80)
        length, temperature, seed = st.columns([2, 2, 1], vertical_alignment="bottom")
        settings = {
            "max_new_tokens": length.slider("Max new tokens", 8, 200, 40, key="gen_length", persist_state="session"),
            "temperature": temperature.slider(
                "Temperature", 0.0, 1.5, 0.0, 0.1, key="gen_temperature", persist_state="session", help=words.DRAW_SETTINGS_HELP
            ),
            "seed": seed.number_input("Seed", 0, 9999, 0, key="gen_seed", persist_state="session", help="The same for every system."),
        }
        asked = st.form_submit_button("Generate", type="primary", icon=":material/edit:", disabled=busy)
    if not asked:
        return
    try:
        _require_readable(found.handles[found.reference], prompt)
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return
    write(state, found.handles, prompt, settings)
    st.rerun()


def default_prompt(state: Studio) -> str:
    """The prompt of the address; else the opening words of a held-out calibration text: something this model can continue."""
    given = state.slot(LinkState).prompt
    if given:
        return given
    if state.calibration is None:
        return _PROMPT
    text = state.calibration.previews[0]
    opening = text[: max(30, min(160, len(text) // 2))]
    return opening.rsplit(maxsplit=1)[0] if " " in opening.strip() else opening


def columns(state: Studio, found: Systems) -> None:
    """What every system wrote or writes. While it writes this part draws itself again, and the rest of the page stays."""
    made = present(state)
    job = made.job if made else None
    panel = state.slot(JobPanel)
    latest = job is not None and runner().latest(state.owner) is job
    if job is not None and latest and job.active:
        panel.drawn = True
    live = job is not None and latest and id(job) != panel.settled
    st.fragment(_columns, run_every=_PERIOD if live else None)(state, found, made, live)


def _columns(state: Studio, found: Systems, made: Generation | None, live: bool) -> None:
    job = made.job if made and live else None
    if made is not None and job is not None and job.active:
        bar, stop = split("progress", [5, 1], "center")
        bar.progress(job.fraction, text=progress_line(job))
        if stop.button("Stop", key=f"stop_{id(job)}", icon=":material/stop:", disabled=job.cancel.is_set(), width="stretch"):
            job.cancel.set()
    elif job is not None and state.slot(JobPanel).settled != id(job):
        st.rerun()
    shades = system_colours(found.names, palette())
    beside = made.of(found.reference, found.handles[found.reference].fingerprint) if made else None
    for place, name in zip(split("columns", [1] * len(found.names)), found.names, strict=True):
        with place.container(border=True, height="stretch"):
            st.html(f'<div style="border-left:5px solid {shades[name]};padding-left:8px;font-weight:600">{escape(name)}</div>')
            written = made.of(name, found.handles[name].fingerprint) if made else None
            if made is None or written is None:
                st.caption(words.NOT_WRITTEN if made else words.PRESS_WRITE)
                continue
            other = None if name == found.reference or beside is None or not made.finished else list(beside.pieces)
            st.html(text_html(list(written.pieces), other, shades[name], palette(), growing=not written.ended))
            st.caption(_ending(state, written.ended, written.n_tokens) if written.ended else f"{written.n_tokens} tokens …")
    if made is not None and made.finished and beside is not None:
        st.html(f'<div style="font-size:{NOTE};color:{palette().muted}">{escape(words.UNDERLINED.format(reference=found.reference))}</div>')


def _ending(state: Studio, ended: str, n_tokens: int) -> str:
    if not n_tokens and ended == "end of text":
        return words.NOTHING
    context = ""
    if ended == "context full" and state.resident is not None:
        from replaceme_core.comparison import compare

        context = str(compare.context_length(state.resident.handle))
    return words.ENDED[ended].format(n=n_tokens, context=context)


def _require_readable(handle: "ModelHandle", prompt: str) -> None:
    from replaceme_core.comparison import compare

    compare.encode(handle, prompt)
