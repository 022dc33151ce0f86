"""How does the answer form? The logit lens on the prompt, the reference beside one other system, aligned by the original's blocks."""

import streamlit as st

from ui.compare import words
from ui.compare.generation import Generation, present
from ui.compare.jobs import again, look
from ui.compare.lens_picture import Figure, Side, lens_table
from ui.compare.systems import Systems
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.systems import system_colours
from ui.look.token_text import visible
from ui.parts.job_panel import has_active_job, show_job
from ui.session.state import Studio

_WIDTHS = (3, 5, 8, 12, 16, 24)


def lens(state: Studio, found: Systems) -> None:
    """The section, as soon as a prompt was given; a job looks once, by itself."""
    made, resident = present(state), state.resident
    if made is None or not made.finished or resident is None:
        return
    st.markdown("### How does the answer form?")
    st.caption(words.LENS)
    who, width, what = split("lens", [2, 2, 3], "bottom")
    other = who.selectbox(
        f"Beside '{found.reference}'",
        found.others,
        index=len(found.others) - 1,
        key=f"lens_{'|'.join(found.others)}",
        persist_state="session",
    )
    n_tokens = width.select_slider(
        "Last tokens of the prompt", _WIDTHS, value=3, key="lens_tokens", persist_state="session", help="The guess after each of them."
    )
    figure = what.segmented_control(
        "Show",
        list(words.LENS_TITLES),
        format_func=words.LENS_TITLES.get,
        default="probability",
        required=True,
        key="lens_figure",
        persist_state="session",
    )
    handles = {name: found.handles[name] for name in (found.reference, other)}
    if look(state, made, handles, n_tokens):
        sides = [
            Side(name, made.lenses[handle.fingerprint, n_tokens], found.cuts[name], resident.handle.n_blocks)
            for name, handle in handles.items()
        ]
        _tables(sides, found, figure or "probability")
        _twin(made, sides)
    elif has_active_job(state, "short"):
        show_job(state, large=True)
    else:
        again(made, [(handle.fingerprint, n_tokens) for handle in handles.values()], "Look again")


def _tables(sides: list[Side], found: Systems, figure: Figure) -> None:
    shades = system_colours(found.names, palette())
    for place, side, beside in zip(split("lenses", [1, 1]), sides, (None, sides[0]), strict=True):
        place.html(lens_table(side, beside, figure, shades[side.name], palette()))
    st.caption(f"{words.LENS_COLOUR[figure]} {words.LENS_CUT.format(reference=found.reference)}")


def _twin(made: Generation, sides: list[Side]) -> None:
    """All five guesses after one token, as a table."""
    with st.expander("All five guesses after one token, as a table"):
        tokens = sides[0].lens.tokens
        at = (
            st.select_slider(
                "After the token",
                range(len(tokens)),
                value=len(tokens) - 1,
                format_func=lambda index: f"{index + sides[0].lens.skipped}: {visible(tokens[index])}",
                key=f"lens_at_{id(made)}_{len(tokens)}",
            )
            if len(tokens) > 1
            else 0
        )
        columns = [side.rows for side in sides]
        rows = []
        for boundary in range(sides[0].n_blocks + 1):
            told = {"boundary": "answer" if boundary == sides[0].n_blocks else f"into block {boundary}"}
            for side, column in zip(sides, columns, strict=True):
                row = column[boundary]
                told[side.name] = ", ".join(f"{visible(name)} {p:.0%}" for name, p in row[at].top) if row else "removed"
                told[f"{side.name}: KL to its answer"] = f"{row[at].kl:.3f}" if row else "–"
            rows.append(told)
        st.dataframe(rows, hide_index=True)
