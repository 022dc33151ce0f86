"""The chart of the Methods page: every method's figure with its interval, ours and the field's in two colours."""

from typing import Any

import altair as alt
import pandas as pd

from ui.look.chart_style import styled
from ui.look.page_style import CHART_LABEL
from ui.look.palette import Palette

OURS, FIELD = "this project", "the field"
_ROW, _FRAME = 36, 130
"""height of a row; of axis, title and legend together"""


def chart_rows(rows: list[dict[str, Any]], figure: str) -> pd.DataFrame:
    """Of rows that have the figure ('kl' or 'kept'): method, group, value, low, high, share; best first within a share."""
    found = [row for row in rows if row["n_removed"] and row.get(figure) is not None]
    table = pd.DataFrame(
        [
            {
                "method": f"{row['title']}, {row['n_removed']} blocks",
                "group": OURS if row["group"] == "ours" else FIELD,
                "value": row[figure],
                "low": row.get(f"{figure}_low"),
                "high": row.get(f"{figure}_high"),
                "share": row["share"],
            }
            for row in found
        ]
    )
    return table if table.empty else table.sort_values(["share", "value"], ascending=[True, figure == "kl"])


def methods_chart(rows: pd.DataFrame, figure: str, colours: Palette) -> alt.LayerChart:
    """A dot and its 95 % interval per method and share."""
    title = "KL to the original, nats per token (less is better)" if figure == "kl" else "relative accuracy (more is better)"
    form = ".3f" if figure == "kl" else ".1%"
    y = alt.Y(
        "method:N", title=None, sort=list(rows["method"]), axis=alt.Axis(labelLimit=300, labelOverlap=False, domain=False, ticks=False)
    )
    scale = alt.Scale(domain=[OURS, FIELD], range=[colours.pruned, colours.original])
    shapes = alt.Scale(domain=[OURS, FIELD], range=["circle", "diamond"])
    colour = alt.Color("group:N", scale=scale, legend=alt.Legend(orient="top", title=None, labelLimit=300))
    axis = alt.Axis(format="%") if figure == "kept" else alt.Axis()
    x_scale = alt.Scale(zero=figure == "kl", nice=True)
    tips = [alt.Tooltip("method:N")] + [alt.Tooltip(f"{name}:Q", format=form) for name in ("value", "low", "high")]
    base = alt.Chart(rows)
    lines = base.mark_rule(strokeWidth=3).encode(
        y=y, x=alt.X("low:Q", title=title, scale=x_scale, axis=axis), x2=alt.X2("high:Q"), color=colour, tooltip=tips
    )
    shape = alt.Shape("group:N", scale=shapes, legend=alt.Legend(orient="top", title=None, labelLimit=300))
    dots = base.mark_point(filled=True, size=120, opacity=1).encode(
        y=y, x=alt.X("value:Q", title=title, scale=x_scale, axis=axis), color=colour, shape=shape, tooltip=tips
    )
    figures = base.mark_text(dy=-13, color=colours.ink, fontSize=CHART_LABEL).encode(
        y=y, x=alt.X("value:Q", title=title, scale=x_scale, axis=axis), text=alt.Text("value:Q", format=form)
    )
    return styled(alt.layer(lines, dots, figures), colours, height=_ROW * len(rows) + _FRAME)
