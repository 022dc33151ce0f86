"""Where do they part? One text under the eyes of every system: KL at every token, and what each expected at the chosen one."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.compare import reading_pictures as pictures
from ui.compare import words
from ui.compare.generation import Generation, present
from ui.compare.jobs import again, read, reading_key
from ui.compare.systems import Systems
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.systems import system_colours
from ui.look.token_text import visible
from ui.parts.chart import clicked, show
from ui.parts.job_panel import has_active_job, show_job
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.comparison.reading import Reading


def parting(state: Studio, found: Systems) -> None:
    """The section, as soon as a text is written; reading it is a job that starts by itself, once."""
    made = present(state)
    if made is None or not made.finished:
        return
    authors = [name for name in found.names if made.of(name, found.handles[name].fingerprint)]
    if not authors:
        return
    st.markdown("### Where do they part?")
    said, asked = split("parting", [3, 1], "bottom")
    said.caption(words.PARTING.format(reference=found.reference))
    usual = authors.index(found.reference) if found.reference in authors else 0
    author = asked.selectbox(
        "Whose text", authors, index=usual, key=f"author_{found.reference}_{'|'.join(authors)}", persist_state="session"
    )
    reading = read(state, made, found, author)
    if reading is not None:
        st.fragment(_reading)(made, found, reading, reading_key(found, author))
    elif has_active_job(state):
        show_job(state, large=True)
    else:
        again(made, [reading_key(found, author)], "Read this text")


def _reading(made: Generation, found: Systems, reading: "Reading", key: tuple[str, ...]) -> None:
    """A part of its own, so that moving along the text redraws this and nothing else."""
    names, colours = list(found.reference_first), palette()
    shades = system_colours(found.names, colours)
    place = (made, key, f"strip_{id(made)}_{hash(key)}_{made.nonce}")
    chosen = _clicked(place) if place[2] in st.session_state else None
    if chosen is not None and 0 <= chosen < len(reading.tokens):
        made.positions[key] = chosen
    chosen = made.positions.setdefault(key, _widest(reading))
    if reading.skipped:
        st.caption(words.SKIPPED.format(n=reading.skipped, shown=len(reading.tokens)))
    n_read = sum(item is not None for item in reading.expected[0])
    for at, name in enumerate(names[1:], start=1):
        st.markdown(f"**{_escaped(name)}**: mean KL {reading.mean_kl(at):.3f} over {n_read} tokens")
        st.html(pictures.text_strip(reading, names, at, shades[name], colours, chosen))
    rows = pictures.strip_rows(reading, names)
    if rows.empty:
        return
    chart = pictures.kl_strip(rows, names, chosen, colours)
    show(chart, key=place[2], on_select="rerun", selection_mode="token", alt=_alt(reading, names))
    st.caption(words.STRIP_HELP)
    _picker(made, key, reading, chosen)
    st.html(pictures.expected_table(reading, names, chosen, shades, colours))


def _picker(made: Generation, key: tuple[str, ...], reading: "Reading", chosen: int) -> None:
    """The twin of the click, for the keyboard."""
    widget = f"position_{id(made)}_{hash(key)}"
    if len(reading.tokens) < 2:
        return
    st.session_state[widget] = chosen

    def moved() -> None:
        made.positions[key] = st.session_state[widget]
        made.nonce += 1

    st.select_slider(
        "Token",
        range(len(reading.tokens)),
        format_func=lambda at: f"{at}: {visible(reading.tokens[at]) if reading.tokens[at] else words.PART}",
        key=widget,
        on_change=moved,
    )


def _clicked(place: tuple[Generation, tuple[str, ...], str]) -> int | None:
    """The position of a click on the strip that has not been taken yet."""
    made, key, widget = place
    found = clicked(st.session_state[widget], "token", "position")
    if found is None:
        return None
    position: int = found[0]
    fresh = made.clicked != (widget, position)
    made.clicked = (widget, position)
    return position if fresh else made.positions.get(key)


def _widest(reading: "Reading") -> int:
    """Where one of the others is furthest from the reference; the first predicted token where all agree."""
    kl = [max((row[at].kl for row in reading.expected[1:] if row[at] is not None), default=-1.0) for at in range(len(reading.tokens))]  # type: ignore[union-attr]
    return max(range(len(kl)), key=kl.__getitem__)


def _alt(reading: "Reading", names: list[str]) -> str:
    means = ", ".join(f"{name} {reading.mean_kl(at):.3f}" for at, name in enumerate(names[1:], start=1))
    at = _widest(reading)
    return (
        f"KL from {names[0]} at each of {len(reading.tokens)} tokens. Means in nats: {means}. "
        f"Largest at token {at}, '{visible(reading.tokens[at])}'. The slider below chooses a token and the table reads it out."
    )


def _escaped(name: str) -> str:
    """A name as plain text in markdown."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()#+-.!|<>$~:" else sign for sign in name)
