"""What a described calibration set looks like, of one text or two, and what the last pass measured."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import altair as alt
import pandas as pd
import streamlit as st

from ui.look.chart_style import styled
from ui.look.figures import took
from ui.look.layout import split
from ui.look.page_style import NOTE
from ui.look.palette import palette
from ui.look.site import PAGES
from ui.parts.chart import show
from ui.parts.job_panel import follow
from ui.parts.links import link
from ui.session.calibration_choice import Chosen, is_same
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.calibration.calibration import CalibrationSet

_SHOWN = 8


def is_new(state: Studio, chosen: Chosen) -> bool:
    """True if the described pass is not the one that was made: other text."""
    before = state.calibration_section
    if state.measurement is None or before is None:
        return True
    if chosen.prepared is None:  # what a person gave has the same name in every section
        return before != chosen.section or not is_same(chosen.given, state.calibration_text)
    return chosen.prepared.fingerprint != state.measurement.calibration_fingerprint


def preview(state: Studio, chosen: Chosen) -> None:
    """First texts and a histogram of lengths, of both texts if two are mixed. What is read in the job is shown after it."""
    prepared = chosen.prepared or (state.calibration if not is_new(state, chosen) else None)
    if prepared is None:
        return
    lengths, out = prepared.lengths, sum(prepared.heldout)
    unit, kind = ("images", "Files") if prepared.positions else ("sequences", "How it reads")
    picture, text = split("preview", [2, 3])
    with picture:
        st.markdown(f"**{prepared.n_tokens:,} tokens** in {len(lengths):,} {unit}, {out} of them held out to choose by{_beside(prepared)}")
        if not prepared.positions:
            said = f"Tokens per sequence: from {min(lengths)} to {max(lengths)}, {sum(lengths) / len(lengths):.0f} on average."
            show(_histogram(lengths), alt=said)
    with text:
        parts = prepared.sources
        if len(parts) == 1:
            st.markdown(f"**{kind}**")
        for part, title in zip(parts, _titles(chosen), strict=True):
            if len(parts) > 1:
                st.markdown(f"**{title}** · {part.n_tokens:,} tokens in {part.n_sequences:,} sequences")
            st.html(_samples(part.previews[:_SHOWN], f"{kind}: {title}", 190 if len(parts) == 1 else 130))


def _beside(prepared: "CalibrationSet") -> str:
    """How much test text there is; nothing is said of images, which no comparison reads."""
    if prepared.positions:
        return ""
    n = prepared.n_test_tokens
    return f"; {n:,} test tokens beside, which only comparisons read" if n else "; too little text for a test part"


def _samples(texts: Sequence[str], label: str, height: int) -> str:
    """The first texts in a box that scrolls, by the keyboard too (a container of streamlit's cannot be reached by it)."""
    colours = palette()
    shown = "".join(f'<p style="margin:0 0 0.6em">{escape(text[:400])}{" …" if len(text) > 400 else ""}</p>' for text in texts)
    look = f"height:{height}px;overflow:auto;border:1px solid {colours.line};border-radius:0.4rem;padding:0.8rem;white-space:pre-wrap"
    return f'<div role="region" aria-label="{escape(label)}" tabindex="0" dir="auto" style="{look};font-size:{NOTE}">{shown}</div>'


def _titles(chosen: Chosen) -> list[str]:
    first = chosen.given.name if chosen.given else chosen.section.source
    return [first, chosen.section.second] if chosen.section.second else [first]


def _histogram(lengths: list[int]) -> alt.Chart:
    colours = palette()
    return styled(
        alt.Chart(pd.DataFrame({"length": lengths}))
        .mark_bar(color=colours.pruned, cornerRadiusEnd=2)
        .encode(
            x=alt.X("length:Q", bin=alt.Bin(maxbins=24), title="tokens per sequence", axis=alt.Axis(grid=False)),
            y=alt.Y("count():Q", title="sequences"),
        ),
        colours,
        height=190,
    )


def under_way(state: Studio) -> None:
    """The way to the matrix of a pass that is not over yet; this page redraws itself until there is one."""
    if state.partial is None:
        follow(state)
        return
    link(PAGES["blocks"].file, label="See the matrix sharpen on Blocks", icon=":material/grid_on:")


def measured(state: Studio) -> None:
    """One line about the last pass."""
    done = state.measurement
    if done is None:
        return
    st.success(
        f"Measured on {done.calibration_name}: {done.n_tokens:,} tokens in {took(done.seconds)} "
        f"({done.n_tokens / max(done.seconds, 1e-9):,.0f} tokens/s). {done.lacking}".rstrip(),
        icon=":material/check_circle:",
    )
