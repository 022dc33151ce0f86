"""Values of every span as a heatmap: cells with all their figures, marks over them, and the cell that was clicked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ui.look.figures import blocks_text
from ui.look.page_style import CHART_LABEL, CHART_MARK
from ui.look.palette import Palette
from ui.look.vega import QUIET, Rows, Spec, layered, mark
from ui.parts.chart import clicked

if TYPE_CHECKING:
    from replaceme_core.artifacts import Span


@dataclass(frozen=True)
class Look:
    """How values over spans are drawn: what the legend calls them, how they are written, whether 1 is the middle."""

    short: str
    format: str
    diverging: bool = False
    sparse: bool = False
    """whether spans without a value are drawn too, as empty places that can be chosen"""
    ratios: bool = False
    """whether values are told apart by their ratio: the colour goes by the logarithm"""


DISTANCE = Look("distance", ".3f")
_OWN = ("start", "end", "last", "value", "removes", "choosable", "said")
"""columns of a cell beside its facts"""


def matrix_rows(values: np.ndarray, format: str, facts: dict[str, np.ndarray] | None = None, sparse: bool = False) -> Rows:
    """One row per cell of the upper triangle with a finite value, or (`sparse`) per cell; `choosable` leaves row 0 out."""
    n_blocks = len(values) - 1
    return Rows(
        {
            "start": start,
            "end": end,
            "last": end - 1,
            "value": float(values[start, end]) if np.isfinite(values[start, end]) else None,
            "removes": blocks_text(start, end),
            "choosable": start >= 1,
            "said": f"start: {start}; end: {end}; {blocks_text(start, end)}; {_value_text(values[start, end], format)}",
            **{name: texts[start, end] for name, texts in (facts or {}).items()},
        }
        for start in range(n_blocks)
        for end in range(start + 1, n_blocks + 1)
        if sparse or np.isfinite(values[start, end])
    )


def _value_text(value: float, format: str) -> str:
    return f"{value:{format}}" if np.isfinite(value) else "no value"


@dataclass(frozen=True)
class Marks:
    """What is drawn over the cells."""

    span: "Span"
    """the chosen one"""
    candidates: tuple["Span", ...] = ()
    """the first spans of that length, which carry their rank"""
    others: tuple["Span", ...] = ()
    """further spans of the same cut"""
    pinned: tuple["Span", ...] = ()
    """those pinned for comparison"""
    outlined: bool = True
    """else only the cells of the span's length have their thin frames: nothing is chosen yet"""


def matrix_chart(cells: Rows, n_blocks: int, look: Look, marks: Marks, colours: Palette) -> Spec:
    """The upper triangle of `matrix_rows`. The chosen span is outlined, those of its length have thin frames, candidates carry their rank.

    Row 0 cannot be chosen: it is drawn as empty places, whatever its values are. Another choice changes the data of the marks alone.
    """
    place = _axes(n_blocks)
    legend = {"format": look.format, "gradientLength": 260, "gradientThickness": 18}
    shade = {"field": "value", "type": "quantitative", "title": look.short, "scale": _scale(cells, look, colours), "legend": legend}
    facts = [name for name in (cells[0] if cells else ()) if name not in _OWN]
    encoding = {
        **place,
        "fill": {"value": colours.background, "condition": _choosable(shade)},
        "stroke": {"value": colours.line, "condition": _choosable({"value": "transparent"})},
        "description": {"field": "said", "type": "nominal"},
        "tooltip": [{"field": name, "type": "nominal", "title": name} for name in ("removes", *facts)],
    }
    drawn = mark("rect", "cells", encoding, cursor="pointer", cornerRadius=2 if n_blocks <= 40 else 0, strokeWidth=1)
    layers = [drawn | {"name": "cells"}, *_stays(n_blocks, place, colours), *_marks(n_blocks, place, colours)]
    data = {
        "cells": cells,
        "row 0": Rows([{"start": 0, "last": n_blocks // 2, "said": "block 0 always stays"}]),
        **_marked(marks, n_blocks),
    }
    click = {"name": "cell", "select": {"type": "point", "fields": ["start", "end"]}, "views": ["cells"]}
    return layered(layers, data, colours, height=470) | {"params": [click]}


def _axes(n_blocks: int) -> Spec:
    every = max(1, n_blocks // 24 + 1)
    axis = {"values": list(range(0, n_blocks, every)), "labelAngle": 0, "grid": False, "domain": False, "ticks": False}
    scale = {"domain": list(range(n_blocks)), "paddingInner": 0.04 if n_blocks <= 40 else 0}
    return {
        "x": {"field": "last", "type": "ordinal", "title": "last removed block", "scale": scale, "axis": {"orient": "top", **axis}},
        "y": {"field": "start", "type": "ordinal", "title": "first removed block", "scale": scale, "axis": axis},
    }


def _choosable(look: Spec) -> Spec:
    """What a cell that can be chosen and has a value looks like."""
    return {"test": "datum.choosable && isValid(datum.value)", **look}


def _stays(n_blocks: int, place: Spec, colours: Palette) -> list[Spec]:
    """What the empty row says."""
    if n_blocks < 4:
        return []
    encoding = {**place, "text": {"field": "said", "type": "nominal"}}
    look = {"fontSize": min(CHART_LABEL, max(8, 330 // n_blocks)), **QUIET}
    return [
        mark("text", "row 0", encoding, color=colours.background, stroke=colours.background, strokeWidth=6, **look),
        mark("text", "row 0", encoding, color=colours.muted, **look),
    ]


def _scale(cells: Rows, look: Look, colours: Palette) -> Spec:
    choosable = [row["value"] for row in cells if row["choosable"] and row["value"] is not None]
    least, most = (min(choosable), max(choosable)) if choosable else (None, None)
    steps = {"range": list(reversed(colours.ramp)), "interpolate": "rgb", "clamp": True}
    if look.diverging:
        reach = 2.0 if least is None or most is None else max(1.05, most, 1 / max(1e-6, least))
        return {"type": "log", "domain": [1 / reach, 1, reach], **steps, "range": list(colours.diverging)}
    if look.ratios and least is not None and most is not None:
        low, high = np.log(max(1e-4, least)), np.log(max(2e-4, most))
        return {"type": "log", "domain": np.exp(np.linspace(low, max(high, low + 0.1), len(colours.ramp))).tolist(), **steps}
    top, n = max(1.0 if most is None else most, 1e-9), len(colours.ramp) - 1
    return {"domain": [top * i / n for i in range(n + 1)], **steps}


def _marked(marks: Marks, n_blocks: int) -> dict[str, Rows]:
    """Where the marks are, by the name of their data set."""
    length = len(marks.span)
    ranked = [{**cell, "rank": str(i)} for i, cell in enumerate(_cells(marks.candidates), start=1)]
    return {
        "its length": Rows({"start": start, "last": start + length - 1} for start in range(1, n_blocks - length + 1)),
        "ranks": Rows(ranked),
        "pinned": _cells(marks.pinned),
        "others": _cells(marks.others),
        "chosen": _cells((marks.span,) if marks.outlined else ()),
    }


def _marks(n_blocks: int, place: Spec, colours: Palette) -> list[Spec]:
    """The outline is a line on a halo, so that it stands out on light and on dark cells."""
    small = n_blocks > 24
    bare = {"fill": None, "fillOpacity": 0, "cornerRadius": 2, **QUIET}
    rank = {**place, "text": {"field": "rank", "type": "nominal"}}
    found = [
        mark("rect", "its length", place, stroke=colours.cut, strokeWidth=0.6 if n_blocks > 40 else 1 if small else 2, **bare),
        mark("point", "ranks", place, filled=True, size=90 if small else 340, color=colours.background, opacity=0.92, **QUIET),
        mark("text", "ranks", rank, fontSize=9 if small else CHART_MARK, fontWeight="bold", color=colours.ink, **QUIET),
    ]
    for data, colour, dash in (("pinned", colours.ink, [2, 3]), ("others", colours.cut, [6, 3]), ("chosen", colours.cut, [1, 0])):
        found += [
            mark("rect", data, place, stroke=tone, strokeWidth=width, strokeDash=dashes, **bare)
            for tone, width, dashes in ((colours.background, 9 if not small else 5, [1, 0]), (colour, 4.5 if not small else 3, dash))
        ]
    return found


def _cells(spans: tuple["Span", ...]) -> Rows:
    return Rows({"start": span.start, "last": span.end - 1} for span in spans)


def clicked_cell(event: object) -> tuple[int, int] | None:
    """(start, end) of the selected cell, None when nothing is selected."""
    found = clicked(event, "cell", "start", "end")
    return None if found is None else (found[0], found[1])
