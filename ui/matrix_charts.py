"""Charts of the distance matrix: the heatmap that chooses the span, and the profile of one length."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from ui.chart_style import styled
from ui.palette import Palette

if TYPE_CHECKING:
    from replaceme_core.artifacts import Measurement, Span
    from replaceme_core.spans import ProfilePoint


@dataclass(frozen=True)
class Layer:
    """How one layer of the matrix is drawn."""

    short: str
    format: str
    diverging: bool = False


LAYERS = {
    "cosine_all": Layer("distance", ".3f"),
    "cosine_last": Layer("distance", ".3f"),
    "angular": Layer("angle", ".3f"),
    "error": Layer("held-out error", ".1%"),
    "norm_ratio": Layer("growth", ".2f", diverging=True),
}


def layer_values(measurement: "Measurement", name: str) -> np.ndarray:
    """[start, end] values of a layer that needs no fit."""
    if name == "norm_ratio":
        norms = measurement.norms.numpy()
        return norms[None, :] / norms[:, None]
    distances = measurement.distances["last" if name == "cosine_last" else "all"]
    return (distances.angular() if name == "angular" else distances.values).numpy()


def blocks_text(start: int, end: int) -> str:
    return f"block {start}" if end - start == 1 else f"blocks {start}–{end - 1}"


def matrix_rows(values: np.ndarray, format: str) -> pd.DataFrame:
    """One row per cell of the upper triangle with a finite value; `choosable` leaves row 0 out."""
    n_blocks = len(values) - 1
    rows = [
        {
            "start": start,
            "end": end,
            "last": end - 1,
            "value": float(values[start, end]),
            "removes": blocks_text(start, end),
            "length": end - start,
            "choosable": start >= 1,
            "said": f"start: {start}; end: {end}; {blocks_text(start, end)}; {values[start, end]:{format}}",
        }
        for start in range(n_blocks)
        for end in range(start + 1, n_blocks + 1)
        if np.isfinite(values[start, end])
    ]
    return pd.DataFrame(rows)


def matrix_chart(values: np.ndarray, layer: Layer, span: "Span", candidates: list["Span"], colours: Palette) -> alt.LayerChart:
    """The upper triangle. The chosen span is outlined, its length is a dashed diagonal, candidates carry their rank."""
    rows = matrix_rows(values, layer.format)
    n_blocks = len(values) - 1
    every = max(1, n_blocks // 24 + 1)
    axis = {"values": list(range(0, n_blocks, every)), "labelAngle": 0, "grid": False, "domain": False, "ticks": False}
    domain = list(range(n_blocks))
    x = alt.X(
        "last:O",
        title="last removed block",
        scale=alt.Scale(domain=domain, paddingInner=0.04 if n_blocks <= 40 else 0),
        axis=alt.Axis(orient="top", **axis),
    )
    y = alt.Y(
        "start:O",
        title="first removed block",
        scale=alt.Scale(domain=domain, paddingInner=0.04 if n_blocks <= 40 else 0),
        axis=alt.Axis(**axis),
    )
    cells = (
        alt.Chart(rows, name="cells")
        .mark_rect(cursor="pointer", cornerRadius=2 if n_blocks <= 40 else 0)
        .encode(
            x=x,
            y=y,
            color=alt.Color("value:Q", title=layer.short, scale=_scale(rows, layer, colours), legend=alt.Legend(format=layer.format)),
            opacity=alt.condition("datum.choosable", alt.value(1), alt.value(0.35)),
            description="said:N",
            tooltip=[
                alt.Tooltip("removes:N", title="removes"),
                alt.Tooltip("length:Q", title="blocks"),
                alt.Tooltip("value:Q", title=layer.short, format=layer.format),
            ],
        )
        .add_params(alt.selection_point(name="cell", fields=["start", "end"], empty=False))
    )
    return styled(alt.layer(cells, *_marks(span, candidates, n_blocks, x, y, colours)), colours, height=470)


def _scale(rows: pd.DataFrame, layer: Layer, colours: Palette) -> alt.Scale:
    choosable = rows.loc[rows["choosable"], "value"]
    if layer.diverging:
        reach = max(1.05, float(choosable.max()), 1 / max(1e-6, float(choosable.min()))) if len(choosable) else 2.0
        return alt.Scale(type="log", domain=[1 / reach, 1, reach], range=list(colours.diverging), interpolate="rgb", clamp=True)
    top = max(float(choosable.max()) if len(choosable) else 1.0, 1e-9)
    n = len(colours.ramp) - 1
    return alt.Scale(domain=[top * i / n for i in range(n + 1)], range=list(reversed(colours.ramp)), interpolate="rgb", clamp=True)


def _marks(span: "Span", candidates: list["Span"], n_blocks: int, x: alt.X, y: alt.Y, colours: Palette) -> list[alt.Chart]:
    length = len(span)
    diagonal = pd.DataFrame([{"start": s, "last": s + length - 1} for s in range(1, n_blocks - length + 1)])
    ranks = pd.DataFrame([{"start": c.start, "last": c.end - 1, "rank": str(i)} for i, c in enumerate(candidates, start=1)])
    chosen = pd.DataFrame([{"start": span.start, "last": span.end - 1}])
    quiet = {"tooltip": None, "aria": False}
    return [
        alt.Chart(diagonal).mark_line(strokeDash=[4, 4], strokeWidth=2, color=colours.cut, **quiet).encode(x=x, y=y, order="start:Q"),
        alt.Chart(ranks)
        .mark_point(filled=True, size=230 if n_blocks <= 24 else 120, color=colours.background, opacity=0.9, **quiet)
        .encode(x=x, y=y),
        alt.Chart(ranks)
        .mark_text(fontSize=11 if n_blocks <= 24 else 9, fontWeight="bold", color=colours.ink, **quiet)
        .encode(x=x, y=y, text="rank:N"),
        alt.Chart(chosen)
        .mark_rect(fill=None, fillOpacity=0, stroke=colours.cut, strokeWidth=3.5, cornerRadius=2, **quiet)
        .encode(x=x, y=y),
    ]


def profile_rows(points: list["ProfilePoint"]) -> pd.DataFrame:
    return pd.DataFrame(
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


def profile_chart(points: list["ProfilePoint"], span: "Span", colours: Palette, title: str = "distance") -> alt.LayerChart:
    """Every place for one length: band of two standard errors where they are known, the least and the chosen place marked."""
    rows = profile_rows(points)
    best = rows.loc[[rows["distance"].idxmin()]]
    chosen = rows[rows["start"] == span.start]
    x = alt.X("start:O", title="first removed block", axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("distance:Q", title=title, scale=alt.Scale(zero=False))
    tips = [
        alt.Tooltip("removes:N"),
        alt.Tooltip("distance:Q", title=title, format=".4f"),
        alt.Tooltip("error:Q", title="standard error", format=".4f"),
    ]
    base = alt.Chart(rows)
    layers = [
        base.mark_area(opacity=0.22, color=colours.pruned, tooltip=None).encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_line(color=colours.pruned, point=alt.OverlayMarkDef(color=colours.pruned, size=45)).encode(x=x, y=y, tooltip=tips),
        alt.Chart(best).mark_point(shape="diamond", size=190, filled=True, color=colours.carrier, opacity=1).encode(x=x, y=y, tooltip=tips),
        alt.Chart(chosen).mark_point(shape="square", size=260, color=colours.cut, strokeWidth=3, opacity=1).encode(x=x, y=y, tooltip=tips),
    ]
    return styled(alt.layer(*layers), colours, height=220)
