"""The profile of one length: what a criterion says of every place, and which places the text cannot tell from the least."""

from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from ui.look.chart_style import styled
from ui.look.figures import blocks_text
from ui.look.page_style import CHART_MARK
from ui.look.palette import Palette

if TYPE_CHECKING:
    from replaceme_core.artifacts import Span
    from replaceme_core.selection.spans import ProfilePoint

_CROWDED = 24
"""places up to which each of them can be labelled"""


def profile_rows(points: list["ProfilePoint"]) -> pd.DataFrame:
    """One row per place. `close`: within two standard errors of the difference to the least, where these are known."""
    rows = pd.DataFrame(
        [
            {
                "start": point.span.start,
                "removes": blocks_text(point.span.start, point.span.end),
                "distance": point.distance,
                "error": point.standard_error,
                "low": max(point.distance - 2 * point.standard_error, 0.0),  # in this order NaN stays NaN
                "high": point.distance + 2 * point.standard_error,
            }
            for point in points
        ]
    )
    least = rows.loc[rows["distance"].idxmin()]
    apart = 2 * (rows["error"] ** 2 + least["error"] ** 2) ** 0.5
    rows["close"] = (rows["distance"] - least["distance"] <= apart) & (rows["start"] != least["start"])
    return rows


def profile_chart(points: list["ProfilePoint"], span: "Span", colours: Palette, title: str = "distance") -> alt.LayerChart:
    """Band of two standard errors where they are known; the least and the chosen place are named; '?' is not told from the least."""
    rows = profile_rows(points)
    rows["below"] = _labels(rows)
    rows["above"] = ["chosen" if start == span.start else "" for start in rows["start"]]
    x = alt.X("start:O", title="first removed block", axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("distance:Q", title=title, scale=alt.Scale(zero=False, padding=30))
    tips = [
        alt.Tooltip("removes:N"),
        alt.Tooltip("distance:Q", title=title, format=".4f"),
        alt.Tooltip("error:Q", title="standard error", format=".4f"),
    ]
    base = alt.Chart(rows)
    least, chosen = alt.Chart(rows.loc[[rows["distance"].idxmin()]]), alt.Chart(rows[rows["start"] == span.start])
    close, text = alt.Chart(rows[rows["close"]]), {"fontSize": CHART_MARK, "fontWeight": "bold", "color": colours.ink, "tooltip": None}
    point = {"opacity": 1, "tooltip": None}
    layers = [
        base.mark_area(opacity=0.25, color=colours.pruned, tooltip=None).encode(x=x, y=alt.Y("low:Q", title=title), y2=alt.Y2("high:Q")),
        base.mark_line(color=colours.pruned, strokeWidth=2.5, point=alt.OverlayMarkDef(color=colours.pruned, size=70)).encode(
            x=x, y=y, tooltip=tips
        ),
        close.mark_point(
            aria=bool(rows["close"].any()), size=130, fill=colours.background, stroke=colours.pruned, strokeWidth=2.5, **point
        ).encode(x=x, y=y),
        least.mark_point(shape="diamond", size=280, filled=True, color=colours.carrier, **point).encode(x=x, y=y),
        chosen.mark_point(shape="square", size=420, color=colours.cut, strokeWidth=4, **point).encode(x=x, y=y),
        base.mark_text(dy=24, **text).encode(x=x, y=y, text=alt.Text("below:N")),
        base.mark_text(dy=-24, **text).encode(x=x, y=y, text=alt.Text("above:N")),
    ]
    return styled(alt.layer(*layers), colours, height=300)


def _labels(rows: pd.DataFrame) -> list[str]:
    """'least', or 'least?' where another place may be as good, and '?' for those that may be."""
    least, undecided = rows.loc[rows["distance"].idxmin(), "start"], bool(rows["close"].any())
    return [
        ("least?" if undecided else "least") if start == least else "?" if close and len(rows) <= _CROWDED else ""
        for start, close in zip(rows["start"], rows["close"], strict=True)
    ]


def profile_words(points: list["ProfilePoint"], title: str) -> str:
    """The chart in one sentence, for those who do not see it."""
    rows = profile_rows(points)
    least, most = rows.loc[rows["distance"].idxmin()], rows.loc[rows["distance"].idxmax()]
    return (
        f"{title} of {len(rows)} places: least at {least['removes']} ({least['distance']:.4f}), most at {most['removes']} "
        f"({most['distance']:.4f}); {int(rows['close'].sum())} cannot be told from the least. The table holds all figures."
    )
