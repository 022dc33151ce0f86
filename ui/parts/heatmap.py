"""Values of every span as a heatmap: cells with all their figures, marks over them, and the cell that was clicked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np
import pandas as pd

from ui.look.chart_style import styled
from ui.look.figures import blocks_text
from ui.look.page_style import CHART_LABEL, CHART_MARK
from ui.look.palette import Palette
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


def matrix_rows(values: np.ndarray, format: str, facts: dict[str, np.ndarray] | None = None, sparse: bool = False) -> pd.DataFrame:
    """One row per cell of the upper triangle with a finite value, or (`sparse`) per cell; `choosable` leaves row 0 out."""
    n_blocks = len(values) - 1
    rows = [
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
    ]
    return pd.DataFrame(rows).astype({"value": float}) if rows else pd.DataFrame(rows)


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


def matrix_chart(
    values: np.ndarray, look: Look, marks: Marks, colours: Palette, facts: dict[str, np.ndarray] | None = None
) -> alt.LayerChart:
    """The upper triangle. The chosen span is outlined, those of its length have thin frames, candidates carry their rank.

    Row 0 cannot be chosen: it is drawn as empty places, whatever its values are.
    """
    rows = matrix_rows(values, look.format, facts, look.sparse)
    n_blocks = len(values) - 1
    every = max(1, n_blocks // 24 + 1)
    axis = {"values": list(range(0, n_blocks, every)), "labelAngle": 0, "grid": False, "domain": False, "ticks": False}
    scale = alt.Scale(domain=list(range(n_blocks)), paddingInner=0.04 if n_blocks <= 40 else 0)
    x = alt.X("last:O", title="last removed block", scale=scale, axis=alt.Axis(orient="top", **axis))
    y = alt.Y("start:O", title="first removed block", scale=scale, axis=alt.Axis(**axis))
    legend = alt.Legend(format=look.format, gradientLength=260, gradientThickness=18)
    shade = {"field": "value", "type": "quantitative", "title": look.short, "scale": _scale(rows, look, colours), "legend": legend}
    cells = (
        alt.Chart(rows, name="cells")
        .mark_rect(cursor="pointer", cornerRadius=2 if n_blocks <= 40 else 0, strokeWidth=1)
        .encode(
            x=x,
            y=y,
            fill=alt.FillValue(colours.background, condition=_choosable(shade)),
            stroke=alt.StrokeValue(colours.line, condition=_choosable({"value": "transparent"})),
            description=alt.Description("said:N"),
            tooltip=[alt.Tooltip(f"{name}:N", title=name) for name in ("removes", *(facts or {}))],
        )
        .add_params(alt.selection_point(name="cell", fields=["start", "end"], empty=False))
    )
    layers = [cells, *_stays(n_blocks, x, y, colours), *_marks(marks, n_blocks, x, y, colours)]
    return styled(alt.layer(*layers), colours, height=470)


def _choosable(look: dict[str, Any]) -> dict[str, Any]:
    """What a cell that can be chosen and has a value looks like; `alt.condition` says the same, and looks through every class of the schema for it."""
    return {"test": "datum.choosable && isValid(datum.value)", **look}


def _stays(n_blocks: int, x: alt.X, y: alt.Y, colours: Palette) -> list[alt.Chart]:
    """What the empty row says."""
    if n_blocks < 4:
        return []
    said = pd.DataFrame([{"start": 0, "last": n_blocks // 2, "said": "block 0 always stays"}])
    quiet = {"tooltip": None, "aria": False}
    size = min(CHART_LABEL, max(8, 330 // n_blocks))
    halo = alt.Chart(said).mark_text(fontSize=size, color=colours.background, stroke=colours.background, strokeWidth=6, **quiet)
    return [
        mark.encode(x=x, y=y, text=alt.Text("said:N"))
        for mark in (halo, alt.Chart(said).mark_text(fontSize=size, color=colours.muted, **quiet))
    ]


def _scale(rows: pd.DataFrame, look: Look, colours: Palette) -> alt.Scale:
    choosable = rows.loc[rows["choosable"], "value"].dropna()
    if look.diverging:
        reach = max(1.05, float(choosable.max()), 1 / max(1e-6, float(choosable.min()))) if len(choosable) else 2.0
        return alt.Scale(type="log", domain=[1 / reach, 1, reach], range=list(colours.diverging), interpolate="rgb", clamp=True)
    if look.ratios and len(choosable):
        low, high = np.log(max(1e-4, float(choosable.min()))), np.log(max(2e-4, float(choosable.max())))
        steps = np.exp(np.linspace(low, max(high, low + 0.1), len(colours.ramp)))
        return alt.Scale(
            type="log", domain=[float(step) for step in steps], range=list(reversed(colours.ramp)), interpolate="rgb", clamp=True
        )
    top = max(float(choosable.max()) if len(choosable) else 1.0, 1e-9)
    n = len(colours.ramp) - 1
    return alt.Scale(domain=[top * i / n for i in range(n + 1)], range=list(reversed(colours.ramp)), interpolate="rgb", clamp=True)


def _marks(marks: Marks, n_blocks: int, x: alt.X, y: alt.Y, colours: Palette) -> list[alt.Chart]:
    """The outline is a line on a halo, so that it stands out on light and on dark cells."""
    small, length = n_blocks > 24, len(marks.span)
    diagonal = pd.DataFrame([{"start": s, "last": s + length - 1} for s in range(1, n_blocks - length + 1)])
    ranks = _cells(marks.candidates).assign(rank=[str(i) for i in range(1, len(marks.candidates) + 1)])
    quiet = {"tooltip": None, "aria": False}
    found = [
        alt.Chart(diagonal)
        .mark_rect(
            fill=None, fillOpacity=0, stroke=colours.cut, strokeWidth=0.6 if n_blocks > 40 else 1 if small else 2, cornerRadius=2, **quiet
        )
        .encode(x=x, y=y),
        alt.Chart(ranks)
        .mark_point(filled=True, size=90 if small else 340, color=colours.background, opacity=0.92, **quiet)
        .encode(x=x, y=y),
        alt.Chart(ranks)
        .mark_text(fontSize=9 if small else CHART_MARK, fontWeight="bold", color=colours.ink, **quiet)
        .encode(x=x, y=y, text=alt.Text("rank:N")),
    ]
    for spans, colour, dash in (
        (marks.pinned, colours.ink, [2, 3]),
        (marks.others, colours.cut, [6, 3]),
        ((marks.span,) if marks.outlined else (), colours.cut, [1, 0]),
    ):
        shown = alt.Chart(_cells(spans))
        bare = {"fill": None, "fillOpacity": 0, "cornerRadius": 2, **quiet}
        found += [
            shown.mark_rect(stroke=tone, strokeWidth=width, strokeDash=dashes, **bare).encode(x=x, y=y)
            for tone, width, dashes in ((colours.background, 9 if not small else 5, [1, 0]), (colour, 4.5 if not small else 3, dash))
            if spans
        ]
    return found


def _cells(spans: tuple["Span", ...]) -> pd.DataFrame:
    return pd.DataFrame({"start": [span.start for span in spans], "last": [span.end - 1 for span in spans]})


def clicked_cell(event: object) -> tuple[int, int] | None:
    """(start, end) of the selected cell, None when nothing is selected."""
    found = clicked(event, "cell", "start", "end")
    return None if found is None else (found[0], found[1])
