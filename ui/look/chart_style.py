"""The one chart style: quiet axes, text in the page's ink, vector marks so that every cell can be reached and read out."""

from math import isfinite
from typing import Any

import altair
import pandas as pd
from altair.utils import schemapi

from ui.look.palette import Palette
from ui.look.vega import VECTOR, style

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


def styled(chart: Any, colours: Palette, height: int) -> Any:
    """The chart with the app's axis, legend and view style. One call, since each of Altair's copies the whole chart."""
    return chart.properties(
        height=height,
        background="transparent",
        config=style(colours),
        usermeta=VECTOR,
    )
