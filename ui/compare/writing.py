"""The first part of Compare: what every system writes, live, with a stop that keeps what is written, and what differs marked."""

from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from ui.compare import words
from ui.compare.generation import Generation, Written, present
from ui.compare.systems import Systems
from ui.look.layout import split
from ui.look.page_style import BODY, NOTE
from ui.look.palette import palette
from ui.look.systems import system_colours
from ui.look.token_text import differences, marked_runs, text_html, tint
from ui.parts.job_panel import JobPanel, progress_line
from ui.session.jobs import runner
from ui.session.state import Studio

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_PERIOD = 0.3
Marks = dict[str, list[bool]]
"""by system: which of its pieces are marked"""


def columns(state: Studio, found: Systems) -> None:
    """What every system wrote or writes. While it writes this part draws itself again, and the rest of the page stays."""
    made = present(state)
    job = made.job if made else None
    panel = state.slot(JobPanel)
    if made is not None and job is not None and not job.active and not made.finished:
        made.end()
    latest = job is not None and runner().latest(state.owner, "short") is job
    if job is not None and latest and job.active:
        panel.drawn.add(id(job))
    live = job is not None and latest and id(job) not in panel.settled
    st.fragment(_columns, run_every=_PERIOD if live else None)(state, found, made, live)


def _columns(state: Studio, found: Systems, made: Generation | None, live: bool) -> None:
    job = made.job if made and live else None
    if made is not None and job is not None and job.active:
        bar, stop = split("progress", [5, 1], "center")
        bar.progress(job.fraction, text=progress_line(job))
        if stop.button("Stop", key=f"stop_{id(job)}", icon=":material/stop:", disabled=job.cancel.is_set(), width="stretch"):
            job.cancel.set()
    elif job is not None and id(job) not in state.slot(JobPanel).settled:
        st.rerun()
    written = {name: made.of(name, found.handles[name].fingerprint) if made else None for name in found.names}
    marks, said = _marks(found, written) if made is not None and made.finished else ({}, "")
    for place, name in zip(split("columns", [1] * len(found.names)), found.names, strict=True):
        _column(state, found, made, name, written[name], marks.get(name), place)
    if said:
        st.html(f'<div style="font-size:{NOTE};color:{palette().muted}">{escape(said)}</div>')


def _column(
    state: Studio,
    found: Systems,
    made: Generation | None,
    name: str,
    own: Written | None,
    marks: list[bool] | None,
    place: "DeltaGenerator",
) -> None:
    shade = system_colours(found.names, palette())[name]
    with place.container(border=True, height="stretch"):
        st.html(f'<div style="border-left:5px solid {shade};padding-left:8px;font-weight:600">{escape(name)}</div>')
        if made is None or own is None:
            st.caption(words.NOT_WRITTEN if made else words.PRESS_WRITE)
            return
        if made.chat is not None:
            st.html(_conversation([*made.chat.said, made.prompt], own.earlier))
        lines = "dashed" if name == found.reference else "solid"
        st.html(text_html(list(own.pieces), marks, shade, palette(), growing=not own.ended, line=lines))
        st.caption(_ending(state, own.ended, own.n_tokens) if own.ended else f"{own.n_tokens} tokens …")


def _conversation(messages: list[str], answers: tuple[str, ...]) -> str:
    """What was said before the present answer."""
    colours, parts = palette(), []
    for at, message in enumerate(messages):
        parts.append(
            f'<div dir="auto" style="background:{tint(colours.muted, 0.4)};border-radius:8px;padding:4px 10px;margin:4px 0 6px 18%;'
            f'white-space:pre-wrap;overflow-wrap:anywhere">{escape(message)}</div>'
        )
        if at < len(answers):
            parts.append(
                f'<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere;margin-bottom:6px">{escape(answers[at])}</div>'
            )
    return f'<div style="font-size:{BODY};line-height:1.5;color:{colours.ink}">{"".join(parts)}</div>'


def _marks(found: Systems, written: dict[str, Written | None]) -> tuple[Marks, str]:
    """What each of the others has and the reference has not; and in the reference what one of them left out. With the words for it."""
    base = written[found.reference]
    others = [name for name in found.others if written[name] is not None]
    if base is None or not others:
        return {}, ""
    left_by = others[-1]
    if len(others) > 1:
        chosen = st.segmented_control(
            f"Mark in '{found.reference}' what was left out by", others, default=left_by, key=f"left_{'|'.join(others)}", required=True
        )
        left_by = chosen or left_by
    marks: Marks = {}
    for name in others:
        own = written[name]
        assert own is not None
        left, added = differences(list(base.pieces), list(own.pieces))
        marks[name] = added
        if name == left_by:
            marks[found.reference] = left
    other = written[left_by]
    assert other is not None
    counts = {"left": sum(marks[found.reference]), "of": base.n_tokens, "added": sum(marks[left_by])}
    said = words.MARKED.format(reference=found.reference, other=left_by, **counts)
    parts = {"Left out": (base.pieces, marks[found.reference]), "Written instead": (other.pieces, marks[left_by])}
    told = [f"{title}: {marked_runs(pieces, marked)}." for title, (pieces, marked) in parts.items() if any(marked)]
    return marks, " ".join([said, *told])


def _ending(state: Studio, ended: str, n_tokens: int) -> str:
    if not n_tokens and ended == "end of text":
        return words.NOTHING
    context = ""
    if ended == "context full" and state.resident is not None:
        from replaceme_core.comparison import compare

        context = str(compare.context_length(state.resident.handle))
    return words.ENDED[ended].format(n=n_tokens, context=context)
