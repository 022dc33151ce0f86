"""Charts of the lesson: few marks, each with its figure written beside it, so that the last row can read them."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from replaceme_core.span import Span
from ui.lesson.data import Removal, Starved, Stream
from ui.look.chart_style import styled
from ui.look.figures import span_text
from ui.look.page_style import CHART_LABEL, CHART_MARK
from ui.look.palette import Palette
from ui.look.vega import Spec
from ui.parts.heatmap import DISTANCE, Marks, matrix_chart, matrix_rows

DAMAGE = "Damage: KL to the original (nats per token)"


def change(before: float, after: float) -> str:
    """'−69%': how much less, or more."""
    return f"{after / before - 1:+.0%}".replace("-", "−")


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart; `tone` is a colour of the palette by name, `note` stands behind the figure."""

    label: str
    value: float
    low: float
    high: float
    tone: str
    note: str = ""

    @property
    def said(self) -> str:
        """What is written behind the bar."""
        return f"{self.value:.3f}" + (f" {'' if self.note.startswith('(') else '· '}{self.note}" if self.note else "")

    @classmethod
    def of(cls, row: Removal, tone: str, label: str = "", note: str = "") -> "Bar":
        return cls(label or span_text(row.span), row.kl, row.low, row.high, tone, note)


def bars(
    rows: Sequence[Bar], colours: Palette, title: str = DAMAGE, row_height: int | None = None, letter: float = 0.019
) -> alt.LayerChart:
    """Lying bars in the given order, with 95 % intervals, the figure and a note behind each; `letter`: its width as a share of the chart."""
    frame = pd.DataFrame([{**row.__dict__, "said": row.said, "reach": max(row.high, row.value)} for row in rows])
    top = max(max(row.high, row.value) / max(0.2, 0.97 - letter * len(row.said)) for row in rows)  # room for what is written
    y = alt.Y(
        "label:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, labelOverlap=False, domain=False, ticks=False, labelPadding=8)
    )
    x = alt.X("value:Q", title=title, scale=alt.Scale(domain=[0, top]), axis=alt.Axis(grid=False, tickCount=5))
    tones = sorted(set(frame["tone"]))
    colour = alt.Color("tone:N", legend=None, scale=alt.Scale(domain=tones, range=[getattr(colours, tone) for tone in tones]))
    tips = [
        alt.Tooltip("label:N", title="removed"),
        alt.Tooltip("value:Q", title="KL", format=".3f"),
        alt.Tooltip("low:Q", title="95 % from", format=".3f"),
        alt.Tooltip("high:Q", title="to", format=".3f"),
    ]
    base = alt.Chart(frame)
    layers = [
        base.mark_bar(cornerRadiusEnd=4, height={"band": 0.66}).encode(x=x, y=y, color=colour, tooltip=tips),
        base.mark_rule(color=colours.ink, strokeWidth=1.5, opacity=0.7, tooltip=None).encode(
            x=alt.X("low:Q", title=title), x2=alt.X2("high:Q"), y=y
        ),
        base.mark_text(align="left", dx=8, fontSize=CHART_MARK, fontWeight="bold", color=colours.ink, tooltip=None).encode(
            x=alt.X("reach:Q", title=title), y=y, text=alt.Text("said:N")
        ),
    ]
    return styled(alt.layer(*layers), colours, height=(row_height or _row_height(len(frame))) * len(frame) + 40)


def _row_height(rows: int) -> int:
    """Pixels: less where there are many places, so that a chart stays on the screen."""
    return 34 if rows <= 14 else 23


def bars_words(rows: Sequence[Bar]) -> str:
    """What a screen reader says of the bars."""
    return "KL: " + "; ".join(f"{row.label} {row.said}" for row in rows)


def block_bars(stream: Stream, colours: Palette) -> alt.LayerChart:
    """How far each block alone turns the stream."""
    frame = pd.DataFrame([{"block": b, "value": float(v), "said": f"{v:.2f}"} for b, v in enumerate(stream.single)])
    limit = float(np.median(stream.single))
    frame["tone"] = ["least" if value <= limit else "more" for value in frame["value"]]
    x = alt.X("block:O", title="block", axis=alt.Axis(labelAngle=0, grid=False, ticks=False))
    y = alt.Y("value:Q", title="how far the block turns the stream", scale=alt.Scale(domain=[0, float(frame["value"].max()) * 1.1]))
    colour = alt.Color("tone:N", legend=None, scale=alt.Scale(domain=["least", "more"], range=[colours.pruned, colours.original]))
    tips = [alt.Tooltip("block:O"), alt.Tooltip("value:Q", title="1 − cosine", format=".4f")]
    base = alt.Chart(frame)
    marks = [base.mark_bar(cornerRadiusEnd=4).encode(x=x, y=y, color=colour, tooltip=tips)]
    if stream.n_blocks <= 24:
        marks.append(
            base.mark_text(dy=-9, fontSize=CHART_LABEL, fontWeight="bold", color=colours.ink, tooltip=None).encode(
                x=x, y=y, text=alt.Text("said:N")
            )
        )
    return styled(alt.layer(*marks), colours, height=330)


def river(stream: Stream, colours: Palette) -> alt.LayerChart:
    """The stream as a river: as wide at each boundary as its mean length there, with a block between any two."""
    frame = pd.DataFrame([{"boundary": b, "low": -n / 2, "high": n / 2, "length": n} for b, n in enumerate(stream.norms.tolist())])
    reach = float(stream.norms.max()) / 2
    every = max(1, len(frame) // 16)
    x = alt.X(
        "boundary:Q",
        title="boundary (block i lies between i and i + 1)",
        axis=alt.Axis(grid=False, tickMinStep=1, tickCount=min(len(frame), 16)),
    )
    y = alt.Y("low:Q", axis=None, title=None, scale=alt.Scale(domain=[-reach * 1.25, reach * 1.15]))
    tips = [alt.Tooltip("boundary:Q"), alt.Tooltip("length:Q", title="mean length", format=",.0f")]
    named = frame[frame["boundary"] % every == 0].assign(said=lambda rows: [f"{n:,.0f}" if n >= 10 else f"{n:.1f}" for n in rows["length"]])
    base = alt.Chart(frame)
    layers = [
        base.mark_area(color=colours.pruned, opacity=0.35, interpolate="monotone", tooltip=None).encode(x=x, y=y, y2=alt.Y2("high:Q")),
        base.mark_rule(color=colours.pruned, strokeWidth=2.5).encode(x=x, y=y, y2=alt.Y2("high:Q"), tooltip=tips),
        alt.Chart(named)
        .mark_text(dy=16, fontSize=CHART_LABEL, fontWeight="bold", color=colours.ink, tooltip=None)
        .encode(x=x, y=alt.Y("low:Q", axis=None), text=alt.Text("said:N")),
    ]
    return styled(alt.layer(*layers), colours, height=320)


def matrix(stream: Stream, span: Span, colours: Palette, outlined: bool = True) -> Spec:
    """The distance matrix with one span outlined and those of its length framed."""
    facts = {"distance": np.array([[f"{value:.3f}" for value in row] for row in stream.values], dtype=object)}
    cells = matrix_rows(stream.values, DISTANCE.format, facts)
    return matrix_chart(cells, stream.n_blocks, DISTANCE, Marks(span, outlined=outlined), colours)


def mended(cut: list[Removal], fitted: list[Removal], colours: Palette) -> alt.LayerChart:
    """Every place of one length: from the bare removal (ring) to the fitted matrix (dot)."""
    frame = pd.DataFrame(
        [{"label": span_text(a.span), "cut": a.kl, "fitted": b.kl, "saved": change(a.kl, b.kl)} for a, b in zip(cut, fitted, strict=True)]
    )
    top = float(frame[["cut", "fitted"]].max().max())
    y = alt.Y(
        "label:N",
        title=None,
        sort=None,
        axis=alt.Axis(labelLimit=200, labelOverlap=False, domain=False, ticks=False, labelPadding=8, grid=True),
    )
    title = DAMAGE
    scale = alt.Scale(domain=[0, top * 1.15])
    tips = [
        alt.Tooltip("label:N", title="removed"),
        alt.Tooltip("cut:Q", title="KL, removed, no transform", format=".3f"),
        alt.Tooltip("fitted:Q", title="KL, with the matrix", format=".3f"),
    ]
    base, size = alt.Chart(frame), 190 if len(frame) <= 14 else 110
    at = {name: alt.X(f"{name}:Q", title=title, scale=scale, axis=alt.Axis(grid=False)) for name in ("cut", "fitted")}
    layers = [
        base.mark_rule(color=colours.muted, strokeWidth=3, opacity=0.6, tooltip=None).encode(y=y, x=at["fitted"], x2=alt.X2("cut:Q")),
        base.mark_point(size=size, strokeWidth=3, color=colours.cut, opacity=1).encode(y=y, x=at["cut"], tooltip=tips),
        base.mark_point(size=size, filled=True, color=colours.pruned, opacity=1).encode(y=y, x=at["fitted"], tooltip=tips),
        base.mark_text(align="left", dx=14, fontSize=CHART_LABEL, fontWeight="bold", color=colours.ink, tooltip=None).encode(
            y=y, x=alt.X("right:Q", title=title), text=alt.Text("saved:N")
        ),
    ]
    frame["right"] = frame[["cut", "fitted"]].max(axis=1)
    return styled(alt.layer(*layers), colours, height=_row_height(len(frame)) * len(frame) + 40)


def starved(rows: Sequence[Starved], colours: Palette) -> alt.LayerChart:
    """Error on the tokens of the fit and on unseen text, against the number of tokens."""
    frame = pd.DataFrame(
        [
            {"tokens": row.tokens, "error": value, "what": what}
            for row in rows
            for what, value in (("on its own tokens", row.train), ("on unseen text", row.unseen))
        ]
    )
    sizes = sorted(set(frame["tokens"].tolist()))
    x = alt.X(
        "tokens:Q", title="calibration tokens", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=sizes, grid=False, format=",")
    )
    y = alt.Y("error:Q", title="relative error", axis=alt.Axis(format=",.0%", values=[0.01, 0.1, 1, 10]), scale=alt.Scale(type="log"))
    names = ["on unseen text", "on its own tokens"]
    colour = alt.Color("what:N", scale=alt.Scale(domain=names, range=[colours.cut, colours.original]), legend=None)
    dash = alt.StrokeDash("what:N", scale=alt.Scale(domain=names, range=[[1, 0], [5, 4]]), legend=None)
    tips = [alt.Tooltip("what:N"), alt.Tooltip("tokens:Q", format=","), alt.Tooltip("error:Q", format=".1%")]
    ends = frame[frame["tokens"] == sizes[0]].assign(said=lambda ends: ends["what"])
    return styled(
        alt.layer(
            alt.Chart(frame)
            .mark_line(strokeWidth=3, point=alt.OverlayMarkDef(size=70))
            .encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=tips),
            alt.Chart(ends)
            .mark_text(align="left", dx=12, dy=2, fontSize=CHART_LABEL, fontWeight="bold", tooltip=None)
            .encode(x=x, y=y, text=alt.Text("what:N"), color=colour),
        ),
        colours,
        height=190,
    )
