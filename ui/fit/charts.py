"""Pictures of a fit: the ridge path, T beside the identity, and its singular values."""

import json
import math
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd
from PIL import Image

from ui.look.chart_style import stripes, styled
from ui.look.figures import number
from ui.look.page_style import NOTE
from ui.look.palette import Palette, rgb
from ui.look.systems import CUT

if TYPE_CHECKING:
    from replaceme_core.solvers import RidgePoint

_PIXELS = 420


def part_marks(colours: Palette) -> tuple[alt.Color, alt.StrokeDash]:
    """How a line of the field `part` says held-out or train: by its colour, and by its dashes."""
    parts = ["held-out", "train"]
    colour = alt.Color(
        "part:N",
        title=None,
        scale=alt.Scale(domain=parts, range=[colours.pruned, colours.original]),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=3),
    )
    return colour, alt.StrokeDash("part:N", scale=alt.Scale(domain=parts, range=[[1, 0], [5, 4]]), legend=None)


def _decades(points: list["RidgePoint"]) -> alt.Axis:
    """Powers of ten as people write them: 10⁻⁸, 0.001, 100."""
    known = [round(math.log10(point.ridge)) for point in points if point.ridge > 0]
    first, last = min(known), max(known)
    names = [number(10.0**power) for power in range(first, last + 1)]
    expression = f"{json.dumps(names, ensure_ascii=False)}[round(log(datum.value)/LN10) - ({first})]"
    return alt.Axis(values=[10.0**power for power in range(first, last + 1, 2)], labelExpr=expression, grid=False)


def ridge_chart(points: list["RidgePoint"], ridge: float, colours: Palette) -> alt.LayerChart:
    """Train and held-out error along the ridge; the chosen ridge is a vertical rule."""
    rows = pd.DataFrame(
        [
            {"ridge": point.ridge, "said": number(point.ridge), "error": error, "part": part}
            for point in points
            for part, error in (("held-out", point.heldout_error), ("train", point.train_error))
        ]
    )
    x = alt.X("ridge:Q", title="ridge (relative)", scale=alt.Scale(type="log"), axis=_decades(points))
    y = alt.Y("error:Q", title="relative error", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    colour, dash = part_marks(colours)
    tips = [alt.Tooltip("part:N", title="part"), alt.Tooltip("said:N", title="ridge"), alt.Tooltip("error:Q", format=".2%")]
    lines = alt.Chart(rows).mark_line(point={"size": 28}).encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=tips)
    chosen = alt.Chart(pd.DataFrame({"ridge": [max(ridge, points[0].ridge)]})).mark_rule(color=colours.carrier, strokeWidth=2).encode(x=x)
    return styled(alt.layer(lines, chosen), colours, height=230)


def error_bars(report_rows: pd.DataFrame, colours: Palette) -> alt.LayerChart:
    """Relative error of removal without a transform and of the fit, on train and held-out text."""
    domain = list(report_rows["what"])
    y = alt.Y("what:N", title=None, sort=domain, axis=alt.Axis(labelLimit=260, domain=False, ticks=False))
    x = alt.X("error:Q", title="relative error of the target (0 % is perfect)", axis=alt.Axis(format="%"), scale=alt.Scale(domainMin=0))
    base = alt.Chart(report_rows).encode(y=y, x=x)
    scale = alt.Scale(domain=domain, range=[colours.cut, colours.pruned, colours.original][: len(domain)])
    bars = base.mark_bar(height=20, cornerRadiusEnd=3).encode(
        color=alt.Color("what:N", scale=scale, legend=None),
        tooltip=[alt.Tooltip("what:N", title="on"), alt.Tooltip("error:Q", title="relative error", format=".2%")],
    )
    striped = alt.Chart(report_rows[report_rows["what"].str.startswith(CUT)]).mark_bar(
        height=20, cornerRadiusEnd=3, color=stripes(colours, across=False), tooltip=None, aria=False
    )
    text = base.mark_text(align="left", dx=6, color=colours.ink, fontSize=13).encode(text=alt.Text("error:Q", format=".1%"))
    return styled(alt.layer(bars, striped.encode(y=y, x=x), text), colours, height=44 * len(domain) + 30)


def spectrum_chart(values: np.ndarray, colours: Palette) -> alt.LayerChart:
    """Singular values in descending order, with a dashed line at 1."""
    rows = pd.DataFrame({"rank": np.arange(1, len(values) + 1), "value": values})
    line = (
        alt.Chart(rows)
        .mark_line(color=colours.pruned, strokeWidth=2)
        .encode(
            x=alt.X("rank:Q", title="direction", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title="singular value of T", scale=alt.Scale(domainMin=0)),
            tooltip=[alt.Tooltip("rank:Q"), alt.Tooltip("value:Q", format=".3f")],
        )
    )
    one = alt.Chart(pd.DataFrame({"value": [1.0]})).mark_rule(strokeDash=[4, 4], color=colours.original).encode(y="value:Q")
    return styled(alt.layer(line, one), colours, height=280)


def matrix_picture(matrix: np.ndarray, colours: Palette) -> tuple[Image.Image, float]:
    """T - I as a picture, and the value at full colour. Large matrices are pooled by the entry furthest from zero."""
    values = _pool(matrix - np.eye(len(matrix)), 256)
    reach = float(np.quantile(np.abs(values), 0.995)) or 1.0
    share = np.clip(np.abs(values) / reach, 0, 1)[..., None]
    low, middle, high = (np.array(rgb(colour), dtype=float) for colour in colours.diverging)
    tint = np.where((values < 0)[..., None], low, high)
    pixels = (middle + (tint - middle) * share).round().astype(np.uint8)
    factor = max(1, round(_PIXELS / len(values)))
    return Image.fromarray(pixels).resize((len(values) * factor,) * 2, Image.Resampling.NEAREST), reach


def colour_bar(reach: float, colours: Palette) -> str:
    """The legend of `matrix_picture`, as HTML."""
    low, middle, high = colours.diverging
    strip = f'<span style="flex:1;height:14px;border-radius:3px;background:linear-gradient(90deg,{low},{middle},{high})"></span>'
    return (
        f'<div style="display:flex;align-items:center;gap:8px;font-size:{NOTE};color:{colours.muted}" role="img" '
        f'aria-label="colours from minus {reach:.2g} to plus {reach:.2g}">−{reach:.2g}{strip}+{reach:.2g}</div>'
    )


def _pool(values: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` rows and columns; every tile keeps its entry of largest size."""
    width = len(values)
    if width <= limit:
        return values
    size = -(-width // limit)
    padded = np.zeros((-(-width // size) * size,) * 2)
    padded[:width, :width] = values
    tiles = (
        padded.reshape(len(padded) // size, size, len(padded) // size, size)
        .transpose(0, 2, 1, 3)
        .reshape(len(padded) // size, len(padded) // size, -1)
    )
    return np.take_along_axis(tiles, np.abs(tiles).argmax(-1)[..., None], -1)[..., 0]
