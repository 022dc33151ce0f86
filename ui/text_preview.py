"""What a described calibration set looks like, and what the last pass measured."""

import altair as alt
import pandas as pd
import streamlit as st

from ui.chart_style import show, styled
from ui.layout import split
from ui.palette import palette
from ui.state import Studio
from ui.text_form import Chosen


def is_new(state: Studio, chosen: Chosen) -> bool:
    """True if the described set is not the one that was measured."""
    if state.measurement is None or chosen.prepared is None:
        return True
    return chosen.prepared.fingerprint != state.measurement.calibration_fingerprint


def preview(chosen: Chosen) -> None:
    """First texts and a histogram of lengths."""
    prepared = chosen.prepared
    if prepared is None:
        return
    lengths, out = prepared.lengths, sum(prepared.heldout)
    picture, text = split("preview", [2, 3])
    with picture:
        st.markdown(f"**{prepared.n_tokens:,} tokens** in {len(lengths):,} sequences, {out} of them held out")
        show(_histogram(lengths))
    with text:
        st.markdown("**How it reads**")
        with st.container(height=190, border=True):
            for sample in prepared.previews[:8]:
                st.text(sample[:400] + (" …" if len(sample) > 400 else ""))


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


def measured(state: Studio) -> None:
    """One line about the last pass."""
    done = state.measurement
    if done is None:
        return
    st.success(
        f"Measured on {done.calibration_name}: {done.n_tokens:,} tokens in {done.seconds:.1f} s "
        f"({done.n_tokens / max(done.seconds, 1e-9):,.0f} tokens/s); kept {done.kept}.",
        icon=":material/check_circle:",
    )
