"""The profile of one length: what a criterion says of every place, and which places the text cannot tell from the least."""

from math import isnan
from typing import TYPE_CHECKING

from ui.look.figures import blocks_text
from ui.look.page_style import CHART_MARK
from ui.look.palette import Palette
from ui.look.vega import Rows, Spec, layered, mark

if TYPE_CHECKING:
    from replaceme_core.artifacts import Span
    from replaceme_core.selection.spans import ProfilePoint

_CROWDED = 24
"""places up to which each of them can be labelled"""


def profile_rows(points: list["ProfilePoint"], undecided: "set[Span] | None" = None) -> Rows:
    """One row per place. `close`: within two standard errors of the difference to the least, where these are known; or those `undecided`."""
    rows = Rows(
        {
            "start": point.span.start,
            "removes": blocks_text(point.span.start, point.span.end),
            "distance": _known(point.distance),
            "error": _known(point.standard_error),
            "low": _known(max(point.distance - 2 * point.standard_error, 0.0)),  # in this order NaN stays NaN
            "high": _known(point.distance + 2 * point.standard_error),
            "close": undecided is not None and point.span in undecided,
        }
        for point in points
    )
    if undecided is None:
        first = least(rows)
        for row in rows:
            row["close"] = row is not first and _cannot_be_told(row, first)
    return rows


def least(rows: Rows) -> Spec:
    """The first of the places with the least value."""
    return min(rows, key=lambda row: float("inf") if row["distance"] is None else row["distance"])


def _known(value: float) -> float | None:
    return None if isnan(value) else value


def _cannot_be_told(row: Spec, first: Spec) -> bool:
    if None in (row["distance"], row["error"], first["distance"], first["error"]):
        return False
    return bool(row["distance"] - first["distance"] <= 2 * (row["error"] ** 2 + first["error"] ** 2) ** 0.5)


def profile_chart(
    points: list["ProfilePoint"], span: "Span", colours: Palette, title: str = "distance", undecided: "set[Span] | None" = None
) -> Spec:
    """Band of two standard errors where they are known; the least and the chosen place are named; '?' is not told from the least."""
    rows = profile_rows(points, undecided)
    first = least(rows)
    for row, below in zip(rows, _labels(rows), strict=True):
        row["below"], row["above"] = below, "chosen" if row["start"] == span.start else ""
    sets = {
        "places": rows,
        "close": Rows(row for row in rows if row["close"]),
        "least": Rows([first]),
        "chosen": Rows(row for row in rows if row["start"] == span.start),
    }
    return layered(_layers(title, colours, bool(sets["close"])), sets, colours, height=300)


def _layers(title: str, colours: Palette, some_are_close: bool) -> list[Spec]:
    at: Spec = {
        "x": {"field": "start", "type": "ordinal", "title": "first removed block", "axis": {"labelAngle": 0, "grid": False}},
        "y": {"field": "distance", "type": "quantitative", "title": title, "scale": {"zero": False, "padding": 30}},
    }
    band = {"y": {"field": "low", "type": "quantitative", "title": title}, "y2": {"field": "high"}}
    tips = [
        {"field": "removes", "type": "nominal"},
        {"field": "distance", "type": "quantitative", "title": title, "format": ".4f"},
        {"field": "error", "type": "quantitative", "title": "standard error", "format": ".4f"},
    ]
    text = {"fontSize": CHART_MARK, "fontWeight": "bold", "color": colours.ink, "tooltip": None}
    point = {"opacity": 1, "tooltip": None}
    hollow = {"fill": colours.background, "stroke": colours.pruned, "strokeWidth": 2.5}
    dots = {"color": colours.pruned, "size": 70}
    return [
        mark("area", "places", at | band, opacity=0.25, color=colours.pruned, tooltip=None),
        mark("line", "places", at | {"tooltip": tips}, color=colours.pruned, strokeWidth=2.5, point=dots),
        mark("point", "close", at, aria=some_are_close, size=130, **hollow, **point),
        mark("point", "least", at, shape="diamond", size=280, filled=True, color=colours.carrier, **point),
        mark("point", "chosen", at, shape="square", size=420, color=colours.cut, strokeWidth=4, **point),
        *(
            mark("text", "places", at | {"text": {"field": field, "type": "nominal"}}, dy=dy, **text)
            for field, dy in (("below", 24), ("above", -24))
        ),
    ]


def _labels(rows: Rows) -> list[str]:
    """'least', or 'least?' where another place may be as good, and '?' for those that may be."""
    first, undecided = least(rows), any(row["close"] for row in rows)
    return [("least?" if undecided else "least") if row is first else "?" if row["close"] and len(rows) <= _CROWDED else "" for row in rows]


def profile_words(points: list["ProfilePoint"], title: str, undecided: "set[Span] | None" = None) -> str:
    """The chart in one sentence, for those who do not see it."""
    rows = profile_rows(points, undecided)
    known = [row for row in rows if row["distance"] is not None]
    first, most = least(rows), max(known, key=lambda row: row["distance"])
    return (
        f"{title} of {len(rows)} places: least at {first['removes']} ({first['distance']:.4f}), most at {most['removes']} "
        f"({most['distance']:.4f}); {sum(row['close'] for row in rows)} cannot be told from the least. The table holds all figures."
    )
