"""Charts of what pruning costs: benchmark scores, perplexity, divergence and speed with their intervals."""

import altair as alt
import pandas as pd

from ui.look.chart_style import styled
from ui.look.page_style import CHART_LABEL
from ui.look.palette import Palette
from ui.look.systems import CUT, system_colours
from ui.look.vega import stripes


def system_scale(names: list[str], colours: Palette) -> alt.Scale:
    return alt.Scale(domain=names, range=list(system_colours(names, colours).values()))


_THICK = 17
"""pixels of a bar with the gap beside it"""
_LINE = 0.004
"""thickness of the line at what guessing gives, as a share"""


def score_chart(rows: pd.DataFrame, names: list[str], colours: Palette, title: str = "right answers") -> alt.LayerChart:
    """A row of bars for every task, with one standard error, their figures in per cent, and a line at what guessing gives.

    The bars lie, so that names and figures are read at any width and for any number of tasks.
    `rows`: task, system, value, stderr, low, high, n, chance (None: unknown).
    """
    y = alt.Y("task:N", title=None, axis=alt.Axis(labelLimit=190, labelOverlap=False, ticks=False, domain=False), sort=None)
    offset = alt.YOffset("system:N", scale=alt.Scale(domain=names, paddingInner=0.12))
    scale = alt.Scale(domain=[0, 1.1], nice=False)
    x = alt.X("value:Q", title=title, axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]), scale=scale)
    tips = [
        alt.Tooltip("system:N", title="system"),
        alt.Tooltip("task:N", title="task"),
        alt.Tooltip("value:Q", title=title, format=".1%"),
        alt.Tooltip("stderr:Q", title="standard error", format=".1%"),
        alt.Tooltip("n:Q", title="questions"),
    ]
    quiet = {"tooltip": None, "aria": False}
    legend = alt.Legend(orient="top", title=None, labelLimit=240, columns=min(len(names), 3))
    base = alt.Chart(rows)
    bars = base.mark_bar(cornerRadiusEnd=3).encode(
        x=x, yOffset=offset, y=y, color=alt.Color("system:N", scale=system_scale(names, colours), legend=legend), tooltip=tips
    )
    striped = alt.Chart(rows[rows["system"] == CUT]).mark_bar(cornerRadiusEnd=3, color=stripes(colours, across=False, n=3), **quiet)
    errors = base.mark_rule(strokeWidth=1.5, color=colours.ink, **quiet).encode(
        y=y, yOffset=offset, x=alt.X("low:Q", title=title), x2=alt.X2("high:Q")
    )
    layers = [bars, striped.encode(x=x, yOffset=offset, y=y), errors]
    if rows["chance"].notna().any():
        known = rows.dropna(subset="chance").drop_duplicates("task").assign(above=lambda frame: frame["chance"] + _LINE)
        guessing = alt.Chart(known).mark_bar(color=colours.ink, opacity=1, **quiet)
        layers.append(guessing.encode(y=y, x=alt.X("chance:Q", title=title), x2=alt.X2("above:Q")))
    figures = base.transform_calculate(said="format(100 * datum.value, '.0f')").mark_text(
        color=colours.ink, fontSize=CHART_LABEL, align="left", dx=5, **quiet
    )
    layers.append(figures.encode(y=y, yOffset=offset, x=alt.X("high:Q", title=title), text=alt.Text("said:N")))
    height = rows["task"].nunique() * (_THICK * len(names) + 10) + 70
    return styled(alt.layer(*layers), colours, height=height)


def interval_chart(rows: pd.DataFrame, names: list[str], title: str, colours: Palette, form: str = ".3g") -> alt.LayerChart:
    """One dot with a 95 % interval per system. `rows`: system, value, low, high; `form`: how a value is written beside its dot."""
    y = alt.Y("system:N", title=None, sort=names, axis=alt.Axis(labelLimit=220, domain=False, ticks=False))
    scale = alt.Scale(zero=False, nice=True)
    colour = alt.Color("system:N", scale=system_scale(names, colours), legend=None)
    tips = [
        alt.Tooltip("system:N"),
        alt.Tooltip("value:Q", title=title, format=".4g"),
        alt.Tooltip("low:Q", format=".4g"),
        alt.Tooltip("high:Q", format=".4g"),
    ]
    base = alt.Chart(rows)
    lines = base.mark_rule(strokeWidth=3).encode(
        y=y, x=alt.X("low:Q", title=title, scale=scale), x2=alt.X2("high:Q"), color=colour, tooltip=tips
    )
    dots = base.mark_point(filled=True, size=120, opacity=1).encode(
        y=y, x=alt.X("value:Q", title=title, scale=scale), color=colour, tooltip=tips
    )
    text = base.mark_text(dy=-14, color=colours.ink, fontSize=12).encode(
        y=y, x=alt.X("value:Q", title=title, scale=scale), text=alt.Text("value:Q", format=form)
    )
    return styled(alt.layer(lines, dots, text), colours, height=52 * len(rows) + 40)
