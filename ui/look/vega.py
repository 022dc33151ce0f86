"""Charts as plain Vega-Lite, for the pages that draw theirs anew with every gesture: no classes to copy, and rows that are packed once.

What changes from gesture to gesture belongs into the data: the browser then changes the marks of the drawn chart; a changed specification
makes it build the whole chart anew.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ui.look.page_style import CHART_LABEL, CHART_TITLE
from ui.look.palette import Palette

Spec = dict[str, Any]
QUIET: Spec = {"tooltip": None, "aria": False}
"""a mark that only decorates: it takes no click, and no screen reader reads it out"""
NOMINAL, AMOUNT = {"type": "nominal"}, {"type": "quantitative"}
"""of what kind a field is"""


class Rows(list[Spec]):
    """The rows of one data set. They are not changed once they are drawn."""

    @cached_property
    def packed(self) -> bytes:
        """As an Arrow stream, which is how they travel."""
        import pyarrow

        table = pyarrow.Table.from_pylist(self) if self else pyarrow.table({"start": pyarrow.array([], pyarrow.int64())})
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return bytes(sink.getvalue().to_pybytes())


def style(colours: Palette) -> Spec:
    """The app's axis, legend and view style. Marks are read out however many there are."""
    sizes = {"labelFontSize": CHART_LABEL, "titleFontSize": CHART_TITLE, "titleFontWeight": "normal"}
    text = {"labelColor": colours.muted, "titleColor": colours.ink, **sizes}
    lines = {"gridColor": colours.line, "gridOpacity": 0.5, "domainColor": colours.line, "tickColor": colours.line}
    return {
        "view": {"stroke": None},
        "axis": {**text, **lines, "labelFlush": False},
        "legend": {**text, "gradientLabelOffset": 6},
        "aria": True,
    }


VECTOR: Spec = {"embedOptions": {"renderer": "svg", "actions": False}}
"""vector marks, so that every cell can be reached and read out"""


def stripes(colours: Palette, across: bool, n: int = 4) -> Any:
    """Light stripes to lay over a bar of what has no transform, which is hatched everywhere: for eyes and prints without colours.

    `across`: over an upright bar; else along a lying one. Their number is the same for every length of a bar.
    """
    bare, edges = "rgba(0,0,0,0)", [i / (2 * n + 1) for i in range(2 * n + 2)]
    tones = [bare if i % 2 == 0 else colours.background for i in range(2 * n + 1)]
    stops = [{"color": tone, "offset": at} for tone, *ends in zip(tones, edges, edges[1:], strict=False) for at in ends]
    return {"gradient": "linear", "stops": stops, "x1": 0, "y1": 0, "x2": 1 if across else 0, "y2": 0 if across else 1}


def mark(kind: str, data: str, encoding: Spec, **look: Any) -> Spec:
    """One layer: marks of a kind over the data set `data`."""
    return {"data": {"name": data}, "mark": {"type": kind, **look}, "encoding": encoding}


def layered(layers: Sequence[Spec], data: Mapping[str, Rows], colours: Palette, height: int) -> Spec:
    """The finished chart of layers made by `mark`."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "layer": list(layers),
        "datasets": dict(data),
        "height": height,
        "background": "transparent",
        "config": style(colours),
        "usermeta": VECTOR,
    }
