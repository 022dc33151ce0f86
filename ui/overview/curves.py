"""The curves that runs left, over one another: healing over its steps, a refit over its blocks."""

from typing import TYPE_CHECKING

import altair as alt
import pandas as pd
import streamlit as st

from ui.look.chart_style import styled
from ui.look.palette import palette
from ui.parts import chart

if TYPE_CHECKING:
    from replaceme_core.export.runs import Curve

_WORDS = {
    "healing": ("Healing (training): held-out KL over the steps", "step", "KL to the original (nats per token)"),
    "refit": ("Refit: held-out error each block leaves", "block of the original", "relative error"),
}
"""kind of curve -> heading, what is across, what is up"""


def draw(found: "list[Curve]") -> None:
    """The curves of each kind over one another; the points stand in the tooltip, the runs also differ by their dashes."""
    for what, (heading, across, up) in _WORDS.items():
        lines = [curve for curve in found if curve.what == what]
        if lines:
            st.markdown(f"**{heading}**")
            said = ", ".join(f"{curve.run}: {curve.points[0][1]:.4f} to {curve.points[-1][1]:.4f}" for curve in lines)
            chart.show(overlay(lines, across, up), alt=f"{heading}. {said}")


def overlay(lines: "list[Curve]", across: str, up: str) -> alt.Chart:
    """One chart of several curves of a kind."""
    rows = pd.DataFrame([{"run": curve.run, "x": x, "y": y} for curve in lines for x, y in curve.points])
    picture = (
        alt.Chart(rows)
        .mark_line(point={"size": 28})
        .encode(
            x=alt.X("x:Q", title=across, axis=alt.Axis(grid=False, tickMinStep=1, format=",d")),
            y=alt.Y("y:Q", title=up, scale=alt.Scale(domainMin=0)),
            color=alt.Color("run:N", title=None, legend=alt.Legend(orient="top")),
            strokeDash=alt.StrokeDash("run:N", title=None),
            tooltip=[alt.Tooltip("run:N"), alt.Tooltip("x:Q", title=across, format=",d"), alt.Tooltip("y:Q", title=up, format=".4f")],
        )
    )
    return styled(picture, palette(), height=240)
