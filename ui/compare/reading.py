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
from ui.look.systems import CUT, ORIGINAL, system_colours
from ui.look.token_text import visible
from ui.parts import watch
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
    elif has_active_job(state, "short"):
        show_job(state, large=True)
    else:
        again(made, [reading_key(found, author)], "Read this text")


def _reading(made: Generation, found: Systems, reading: "Reading", key: tuple[str, ...]) -> None:
    """A part of its own, so that moving along the text redraws this and nothing else."""
    names, colours = list(found.reference_first), palette()
    shades = system_colours(found.names, colours)
    strip = f"{id(made)}_{abs(hash(key))}"
    clicked = watch.token(strip, f"click_{strip}")
    if clicked is not None and 0 <= clicked < len(reading.tokens):
        made.positions[key] = clicked
    chosen = made.positions.setdefault(key, _widest(reading))
    if reading.skipped:
        st.caption(words.SKIPPED.format(n=reading.skipped, shown=len(reading.tokens)))
    n_read = sum(item is not None for item in reading.expected[0])
    for at, name in enumerate(names[1:], start=1):
        st.markdown(f"**{_escaped(name)}**: mean KL {reading.mean_kl(at):.3f} over {n_read} tokens")
        st.html(pictures.text_strip(reading, names, at, colours, chosen, strip))
    st.caption(words.STRIP_HELP.format(full=pictures.reach(reading), seen=pictures.SEEN))
    for said in _nearer(reading, names):
        st.markdown(said)
    _picker(made, key, reading, chosen)
    st.html(pictures.expected_table(reading, names, chosen, shades, colours))


def _nearer(reading: "Reading", names: list[str]) -> list[str]:
    """Where a transform helps on this text, and where it does not: every variant beside the cut, token by token."""
    if CUT not in names[1:]:
        return []
    bare, said = reading.expected[names.index(CUT)], []
    for at, name in enumerate(names):
        if at == 0 or name in (CUT, ORIGINAL):
            continue
        gains = [(cut.kl - own.kl, place) for place, (cut, own) in enumerate(zip(bare, reading.expected[at], strict=True)) if cut and own]
        better, worse = sum(gain > pictures.SEEN for gain, _ in gains), sum(gain < -pictures.SEEN for gain, _ in gains)
        worst, place = min(gains, default=(0.0, 0))
        where = f" Where it helps least, at token {place} (*{_escaped(visible(reading.tokens[place]))}*), it is {-worst:.2f} nats further."
        said.append(
            f"**{_escaped(name)}** is nearer to *{_escaped(names[0])}* than *{CUT}* at **{better}** of {len(gains)} tokens, and further "
            f"from it at **{worse}**.{where if worst < -pictures.SEEN else ''}"
        )
    return said


def _picker(made: Generation, key: tuple[str, ...], reading: "Reading", chosen: int) -> None:
    """The twin of the click, for the keyboard."""
    widget = f"position_{id(made)}_{hash(key)}"
    if len(reading.tokens) < 2:
        return
    st.session_state[widget] = chosen

    def moved() -> None:
        made.positions[key] = st.session_state[widget]

    st.select_slider(
        "Token",
        range(len(reading.tokens)),
        format_func=lambda at: f"{at}: {visible(reading.tokens[at]) if reading.tokens[at] else words.PART}",
        key=widget,
        on_change=moved,
    )


def _widest(reading: "Reading") -> int:
    """Where one of the others is furthest from the reference; the first predicted token where all agree."""
    kl = [max((row[at].kl for row in reading.expected[1:] if row[at] is not None), default=-1.0) for at in range(len(reading.tokens))]  # type: ignore[union-attr]
    return max(range(len(kl)), key=kl.__getitem__)


def _escaped(name: str) -> str:
    """A name as plain text in markdown."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()#+-.!|<>$~:" else sign for sign in name)
