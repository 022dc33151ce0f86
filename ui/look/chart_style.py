"""The one chart style: quiet axes, text in the page's ink, vector marks so that every cell can be reached and read out."""

from typing import Any

from altair.utils import schemapi

from ui.look.page_style import CHART_LABEL, CHART_TITLE
from ui.look.palette import Palette

# Altair checks every part of a chart against its schema while it is put together, and the whole at the end; that is half
# of the time of a page. The tests of the charts (tests/ui) check every one instead.
schemapi.DEBUG_MODE = False


def stripes(colours: Palette, across: bool, n: int = 4) -> Any:
    """Light stripes to lay over a bar of what has no transform, which is hatched everywhere: for eyes and prints without colours.

    `across`: over an upright bar; else along a lying one. Their number is the same for every length of a bar.
    """
    import altair as alt

    bare, edges = "rgba(0,0,0,0)", [i / (2 * n + 1) for i in range(2 * n + 2)]
    tones = [bare if i % 2 == 0 else colours.background for i in range(2 * n + 1)]
    stops = [alt.GradientStop(tone, at) for tone, *ends in zip(tones, edges, edges[1:], strict=False) for at in ends]
    return alt.LinearGradient(gradient="linear", stops=stops, x1=0, y1=0, x2=1 if across else 0, y2=0 if across else 1)


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
