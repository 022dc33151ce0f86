"""The one chart style: quiet axes, text in the page's ink, vector marks so that every cell can be reached and read out."""

from typing import Any

from ui.palette import Palette


def styled(chart: Any, colours: Palette) -> Any:
    """The chart with the app's axis, legend and view style."""
    return (
        chart.configure_view(stroke=None)
        .configure_axis(
            labelColor=colours.muted,
            titleColor=colours.ink,
            gridColor=colours.line,
            gridOpacity=0.5,
            domainColor=colours.line,
            tickColor=colours.line,
            labelFontSize=12,
            titleFontSize=12.5,
            titleFontWeight="normal",
        )
        .configure_legend(labelColor=colours.muted, titleColor=colours.ink, labelFontSize=12, titleFontSize=12.5, titleFontWeight="normal")
        .configure_header(labelColor=colours.ink, titleColor=colours.ink)
        .properties(usermeta={"embedOptions": {"renderer": "svg", "actions": False}}, background="transparent")
    )
