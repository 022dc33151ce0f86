"""The one chart style: quiet axes, text in the page's ink, vector marks so that every cell can be reached and read out."""

from math import isfinite
from typing import Any

import altair
import pandas as pd
from altair.utils import schemapi

from ui.look.page_style import CHART_LABEL, CHART_TITLE
from ui.look.palette import Palette

# Altair checks every part of a chart against its schema while it is put together, and the whole at the end; that is half
# of the time of a page. The tests of the charts (tests/ui) check every one instead.
schemapi.DEBUG_MODE = False


def plain_rows(frame: pd.DataFrame | dict[str, Any]) -> dict[str, Any]:
    """The rows of a frame of numbers and texts as a chart's data; a figure that is not finite is null.

    Altair's own way looks at the types of every column of every layer, which is a quarter of the time of a chart.
    """
    if isinstance(frame, dict):
        return frame
    columns = [
        [None if isinstance(value, float) and not isfinite(value) else value for value in frame[name].tolist()] for name in frame.columns
    ]
    return {"values": [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]}


altair.data_transformers.register("plain_rows", plain_rows)
altair.data_transformers.enable("plain_rows")


def stripes(colours: Palette, across: bool, n: int = 4) -> Any:
    """Light stripes to lay over a bar of what has no transform, which is hatched everywhere: for eyes and prints without colours.

    `across`: over an upright bar; else along a lying one. Their number is the same for every length of a bar.
    """
    bare, edges = "rgba(0,0,0,0)", [i / (2 * n + 1) for i in range(2 * n + 2)]
    tones = [bare if i % 2 == 0 else colours.background for i in range(2 * n + 1)]
    stops = [altair.GradientStop(tone, at) for tone, *ends in zip(tones, edges, edges[1:], strict=False) for at in ends]
    return altair.LinearGradient(gradient="linear", stops=stops, x1=0, y1=0, x2=1 if across else 0, y2=0 if across else 1)


def styled(chart: Any, colours: Palette, height: int) -> Any:
    """The chart with the app's axis, legend and view style. One call, since each of Altair's copies the whole chart."""
    sizes = {"labelFontSize": CHART_LABEL, "titleFontSize": CHART_TITLE, "titleFontWeight": "normal"}
    text = {"labelColor": colours.muted, "titleColor": colours.ink, **sizes}
    lines = {"gridColor": colours.line, "gridOpacity": 0.5, "domainColor": colours.line, "tickColor": colours.line}
    return chart.properties(
        height=height,
        background="transparent",
        config={"view": {"stroke": None}, "axis": {**text, **lines, "labelFlush": False}, "legend": {**text, "gradientLabelOffset": 6}},
        usermeta={"embedOptions": {"renderer": "svg", "actions": False}},
    )
