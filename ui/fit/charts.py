"""Pictures of a fit: the ridge path, T beside the identity, and its singular values."""

import json
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ui.look.figures import number
from ui.look.page_style import NOTE
from ui.look.palette import Palette, rgb
from ui.look.systems import CUT
from ui.look.vega import AMOUNT, NOMINAL, QUIET, Rows, Spec, layered, mark, stripes

if TYPE_CHECKING:
    from replaceme_core.solvers import RidgePoint

_PIXELS = 420


def part_marks(colours: Palette) -> Spec:
    """How a line of the field `part` says held-out or train: by its colour, and by its dashes."""
    parts = ["held-out", "train"]
    tones = {"domain": parts, "range": [colours.pruned, colours.original]}
    dashes = {"domain": parts, "range": [[1, 0], [5, 4]]}
    return {
        "color": {
            **NOMINAL,
            "field": "part",
            "title": None,
            "scale": tones,
            "legend": {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3},
        },
        "strokeDash": {**NOMINAL, "field": "part", "scale": dashes, "legend": None},
    }


def _decades(points: list["RidgePoint"]) -> Spec:
    """Powers of ten as people write them: 10⁻⁸, 0.001, 100."""
    known = [round(math.log10(point.ridge)) for point in points if point.ridge > 0]
    first, last = min(known), max(known)
    names = [number(10.0**power) for power in range(first, last + 1)]
    expression = f"{json.dumps(names, ensure_ascii=False)}[round(log(datum.value)/LN10) - ({first})]"
    return {"values": [10.0**power for power in range(first, last + 1, 2)], "labelExpr": expression, "grid": False}


def ridge_chart(points: list["RidgePoint"], ridge: float, colours: Palette) -> Spec:
    """Train and held-out error along the ridge; the chosen ridge is a vertical rule."""
    rows = Rows(
        {"ridge": point.ridge, "said": number(point.ridge), "error": error, "part": part}
        for point in points
        for part, error in (("held-out", point.heldout_error), ("train", point.train_error))
    )
    x = {**AMOUNT, "field": "ridge", "title": "ridge (relative)", "scale": {"type": "log"}, "axis": _decades(points)}
    y = {**AMOUNT, "field": "error", "title": "relative error", "axis": {"format": "%"}, "scale": {"zero": False}}
    tips = [
        {**NOMINAL, "field": "part", "title": "part"},
        {**NOMINAL, "field": "said", "title": "ridge"},
        {**AMOUNT, "field": "error", "format": ".2%"},
    ]
    lines = mark("line", "path", {"x": x, "y": y, **part_marks(colours), "tooltip": tips}, point={"size": 28})
    chosen = mark("rule", "chosen", {"x": x}, color=colours.carrier, strokeWidth=2)
    data = {"path": rows, "chosen": Rows([{"ridge": max(ridge, points[0].ridge)}])}
    return layered([lines, chosen], data, colours, height=230)


def error_bars(errors: dict[str, float], colours: Palette) -> Spec:
    """Relative error of removal without a transform and of the fit, on train and held-out text, by what it is called."""
    domain = list(errors)
    rows = Rows({"what": name, "error": error} for name, error in errors.items())
    at: Spec = {
        "y": {**NOMINAL, "field": "what", "title": None, "sort": domain, "axis": {"labelLimit": 260, "domain": False, "ticks": False}},
        "x": {
            **AMOUNT,
            "field": "error",
            "title": "relative error of the target (0 % is perfect)",
            "axis": {"format": "%"},
            "scale": {"domainMin": 0},
        },
    }
    tones = {"domain": domain, "range": [colours.cut, colours.pruned, colours.original][: len(domain)]}
    tips = [{**NOMINAL, "field": "what", "title": "on"}, {**AMOUNT, "field": "error", "title": "relative error", "format": ".2%"}]
    bar = {"height": 20, "cornerRadiusEnd": 3}
    layers = [
        mark("bar", "errors", at | {"color": {**NOMINAL, "field": "what", "scale": tones, "legend": None}, "tooltip": tips}, **bar),
        mark("bar", "removed", at, color=stripes(colours, across=False), **bar, **QUIET),
        mark(
            "text",
            "errors",
            at | {"text": {**AMOUNT, "field": "error", "format": ".1%"}},
            align="left",
            dx=6,
            color=colours.ink,
            fontSize=13,
        ),
    ]
    data = {"errors": rows, "removed": Rows(row for row in rows if row["what"].startswith(CUT))}
    return layered(layers, data, colours, height=44 * len(domain) + 30)


def spectrum_chart(values: np.ndarray, colours: Palette) -> Spec:
    """Singular values in descending order, with a dashed line at 1."""
    rows = Rows({"rank": rank, "value": value} for rank, value in enumerate(values.tolist(), start=1))
    x = {**AMOUNT, "field": "rank", "title": "direction", "scale": {"nice": False}, "axis": {"grid": False}}
    y = {**AMOUNT, "field": "value", "title": "singular value of T", "scale": {"domainMin": 0}}
    tips = [{**AMOUNT, "field": "rank"}, {**AMOUNT, "field": "value", "format": ".3f"}]
    line = mark("line", "values", {"x": x, "y": y, "tooltip": tips}, color=colours.pruned, strokeWidth=2)
    one = mark("rule", "one", {"y": {**AMOUNT, "field": "value"}}, strokeDash=[4, 4], color=colours.original)
    return layered([line, one], {"values": rows, "one": Rows([{"value": 1.0}])}, colours, height=280)


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
