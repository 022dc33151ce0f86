"""Charts of a sweep: quality against depth or time with the front that no point beats, and what the cuts really gain."""

from itertools import cycle
from typing import TYPE_CHECKING, Any

import altair as alt
import pandas as pd

from replaceme_core.plans.methods import in_words
from ui.look.chart_style import styled
from ui.look.figures import amount, cut_text, gib, short_time
from ui.look.page_style import CHART_MARK
from ui.look.palette import Palette
from ui.look.systems import CUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replaceme_core.studies.sweep.points import Against, PointResult, Quality

_SHAPES = ("circle", "diamond", "triangle-up", "cross", "square", "triangle-down")
_STEP, _ROOM = 0.11, 0.7
"""blocks between points that remove as many blocks, and what all of them take at most"""
_QUIET: dict[str, Any] = {"tooltip": None, "aria": False}


def removed_text(result: "PointResult") -> str:
    return cut_text(result.planned.cut, " and ")


def method_text(result: "PointResult") -> str:
    label = in_words(result.planned.section.label)
    return CUT if label == "drop" else label


def point_rows(results: "Sequence[PointResult]", quality: "Quality", against: "Against", current: str = "") -> pd.DataFrame:
    """One row per point that has both figures; `x` sets those of as many blocks side by side."""
    from replaceme_core.studies.sweep.points import drift_free_ms, front, quality_of

    times, best = drift_free_ms(results), front(results, quality, against)
    rows = []
    for number, result in enumerate(results):
        found, time = quality_of(result, quality), times.get(result.planned.key)
        if found is None or (against == "ms" and time is None):
            continue
        x = float(result.n_removed) if against == "depth" or time is None else time[0]
        rows.append(
            {"point": number, "key": result.planned.key, "x": x, "x_low": x, "x_high": x, "y": found[0], "low": found[1], "high": found[2]}
            | ({"x_low": time[1], "x_high": time[2]} if time and against == "ms" else {})
            | {"front": result.planned.key in best, "current": result.planned.key == current}
            | _figures(result, time)
        )
    table = pd.DataFrame(rows)
    if against == "depth" and rows:
        same = table.groupby("blocks")["point"]
        table["x"] = table["blocks"] + (same.rank() - (same.transform("size") + 1) / 2) * min(_STEP, _ROOM / same.size().max())
    return table


def _figures(result: "PointResult", time: tuple[float, float, float] | None) -> dict[str, Any]:
    """Everything that a tooltip and the table show."""
    from replaceme_core.comparison.intervals import bracketed

    quality, kept, speed = result.quality, result.kept, result.speed
    assert quality is not None, "a point that was made has its quality"
    removes, method = removed_text(result), method_text(result)
    short = " + ".join(f"{s.start}–{s.end - 1}" if len(s) > 1 else f"{s.start}" for s in result.planned.cut.spans)
    return {
        "removes": removes,
        "short": short,
        "method": method,
        "blocks": result.n_removed,
        "kl": quality.kl,
        "kl_range": bracketed(quality.kl, quality.kl_low, quality.kl_high),
        "perplexity": quality.perplexity,
        "kept": kept.share if kept else None,
        "kept_range": f"{kept.share:.1%} ({kept.low:.1%}–{kept.high:.1%}), n = {kept.n_items}" if kept else "not measured",
        "ms": time[0] if time else None,
        "ms_range": f"{time[0]:.2f} ({time[1]:.2f}–{time[2]:.2f})" if time else "not measured",
        "prefill": f"{1000 * speed.timing.prompt_tokens / speed.prefill.pruned.median:.1f} for {speed.timing.prompt_tokens} tokens"
        if speed
        else "not measured",
        "peak": gib(speed.pruned_peak_bytes) if speed and speed.pruned_peak_bytes else "not measured",
        "parameters": amount(result.n_parameters),
        "disk": gib(result.disk_bytes),
        "fitted": short_time(result.seconds_to_fit),
        "said": f"point: {result.planned.key}; {method}; removes {removes}; KL {quality.kl:.3f}",
    }


_TIPS = {
    "method": "method",
    "removes": "removes",
    "kl_range": "KL (95 %)",
    "kept_range": "relative accuracy (95 %)",
    "perplexity": "perplexity",
    "ms_range": "ms per token (range)",
    "prefill": "prefill, ms",
    "peak": "peak memory",
    "parameters": "parameters left",
    "disk": "on disk",
    "fitted": "fitted in",
}


def pareto_chart(rows: pd.DataFrame, quality: "Quality", against: "Against", start: float, colours: Palette) -> alt.LayerChart:
    """Quality with its interval; the front is joined to the original (at `start` on the x axis) and named; the current point is outlined."""
    methods = list(dict.fromkeys(rows["method"]))
    best = 0.0 if quality == "kl" else 1.0
    y_title = (
        "KL to the original, nats per token (low is good)" if quality == "kl" else "relative accuracy on the benchmarks (high is good)"
    )
    x_title = "blocks removed" if against == "depth" else "ms per generated token"
    whole = {"tickMinStep": 1, "format": "d"} if against == "depth" else {}
    scale_x = (
        alt.Scale(nice=False, zero=False, padding=34) if against == "depth" else alt.Scale(domain=_reach([*rows["x"], start]), clamp=True)
    )
    x = alt.X("x:Q", title=x_title, axis=alt.Axis(grid=False, **whole), scale=scale_x)
    y = alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=quality == "kl"), axis=alt.Axis() if quality == "kl" else alt.Axis(format="%"))
    scale = alt.Scale(domain=methods, range=list(_method_colours(methods, colours).values()))
    colour = alt.Color("method:N", scale=scale, legend=alt.Legend(orient="top", title=None, symbolSize=140, labelLimit=320, columns=2))
    shape = alt.Shape("method:N", scale=alt.Scale(domain=methods, range=[s for s, _ in zip(cycle(_SHAPES), methods, strict=False)]))
    original = pd.DataFrame([{"x": start, "y": best, "short": "original"}])
    front = pd.concat([original, rows[rows["front"]]]).sort_values("x")
    bounded = alt.Chart(rows.dropna(subset=["low"]))
    base = alt.Chart(rows)
    y_low = alt.Y("low:Q", title=y_title)
    tips = [
        alt.Tooltip(f"{f}:{'Q' if f == 'perplexity' else 'N'}", title=t, format=".3f" if f == "perplexity" else "")
        for f, t in _TIPS.items()
    ]
    points = (
        alt.Chart(rows, name="points")
        .mark_point(filled=True, size=150, opacity=1, cursor="pointer")
        .encode(x=x, y=y, color=colour, shape=shape, description=alt.Description("said:N"), tooltip=tips)
        .add_params(alt.selection_point(name="point", fields=["key"], empty=False))
    )
    layers = [
        alt.Chart(front).mark_line(color=colours.ink, strokeWidth=1.5, opacity=0.7, **_QUIET).encode(x=x, y=y),
        bounded.mark_rule(strokeWidth=2, opacity=0.55, **_QUIET).encode(x=x, y=y_low, y2=alt.Y2("high:Q"), color=colour),
        alt.Chart(original).mark_point(filled=True, size=150, color=colours.original, opacity=1, **_QUIET).encode(x=x, y=y),
        alt.Chart(front)
        .mark_text(color=colours.ink, fontSize=CHART_MARK, align="left", dx=11, dy=13, **_QUIET)
        .encode(x=x, y=y, text=alt.Text("short:N")),
        alt.Chart(rows[rows["current"]])
        .mark_point(shape="square", size=420, color=colours.carrier, strokeWidth=3, **_QUIET)
        .encode(x=x, y=y),
        points,
    ]
    if against == "ms":
        layers.insert(
            1,
            base.mark_rule(strokeWidth=2, opacity=0.3, **_QUIET).encode(
                x=alt.X("x_low:Q", title=x_title), x2=alt.X2("x_high:Q"), y=y, color=colour
            ),
        )
    return styled(alt.layer(*layers), colours, height=430)


def _method_colours(methods: list[str], colours: Palette) -> dict[str, str]:
    """Orange for what has no transform, as everywhere; the others in turn. The shape says the same, for whoever cannot tell colours apart."""
    turn = cycle((colours.pruned, colours.carrier, colours.muted, colours.ink))
    return {method: colours.cut if method == CUT else next(turn) for method in methods}


_TIME = {"generation": "decode", "prefill": "prefill"}
_SIZES = {"peak memory": ("pruned_peak_bytes", "original_peak_bytes"), "size on disk": ("pruned_disk_bytes", "original_disk_bytes")}


def gain_rows(results: "Sequence[PointResult]", n_blocks: int, sizes: bool) -> pd.DataFrame:
    """One row per point and figure: times as fast as the original, or (`sizes`) share of the original's bytes; `depth` is the share removed."""
    rows = []
    for result in results:
        if result.speed is None:
            continue
        about = {"depth": result.n_removed / n_blocks, "what": f"{method_text(result)}, {removed_text(result)}"}
        if sizes:
            for name, (mine, whole) in _SIZES.items():
                if getattr(result.speed, mine) and getattr(result.speed, whole):
                    value = getattr(result.speed, mine) / getattr(result.speed, whole)
                    rows.append(about | {"figure": name, "value": value, "low": value, "high": value})
        else:
            for name, field in _TIME.items():
                ratio = getattr(result.speed, field).ratio
                rows.append(about | {"figure": name, "value": ratio.median, "low": ratio.low, "high": ratio.high})
    return pd.DataFrame(rows)


def gain_chart(rows: pd.DataFrame, sizes: bool, colours: Palette) -> alt.LayerChart:
    """Gain against the share of depth removed, beside the ideal line; lines join the medians of each depth."""
    names = list(_SIZES if sizes else _TIME)
    title = "share of the original's" if sizes else "times as fast as the original"
    most = float(rows["depth"].max())
    shares = [most * step / 40 for step in range(41)]
    ideal = pd.DataFrame([{"depth": share, "value": 1 - share if sizes else 1 / (1 - share)} for share in shares])
    x = alt.X(
        "depth:Q",
        title="share of depth removed",
        axis=alt.Axis(format="%", grid=False, tickCount=6),
        scale=alt.Scale(nice=False, padding=20),
    )
    y = alt.Y(
        "value:Q",
        title=title,
        scale=alt.Scale(zero=False, clamp=True, domain=_reach([*rows["value"], *ideal["value"]])),
        axis=alt.Axis(format="%" if sizes else ".2f"),
    )
    colour = alt.Color(
        "figure:N", scale=alt.Scale(domain=names, range=[colours.pruned, colours.carrier]), legend=alt.Legend(orient="top", title=None)
    )
    shape = alt.Shape("figure:N", scale=alt.Scale(domain=names, range=["circle", "diamond"]))
    shown = ".1%" if sizes else ".2f"
    tips = [alt.Tooltip("what:N", title="point"), alt.Tooltip("figure:N"), alt.Tooltip("depth:Q", title="depth removed", format=".1%")]
    tips += [alt.Tooltip(f"{name}:Q", title=said, format=shown) for name, said in (("value", "median"), ("low", "least"), ("high", "most"))]
    offset = alt.XOffset("figure:N", scale=alt.Scale(domain=names, range=[-4, 4]))
    base = alt.Chart(rows)
    start = pd.DataFrame([{"depth": 0.0, "value": 1.0, "figure": name} for name in names])
    middle = pd.concat([start, rows.groupby(["depth", "figure"], as_index=False)["value"].median()])
    layers = [
        alt.Chart(ideal).mark_line(strokeDash=[6, 4], color=colours.muted, strokeWidth=2, **_QUIET).encode(x=x, y=y),
        alt.Chart(ideal.iloc[34:35].assign(said="ideal"))
        .mark_text(color=colours.muted, fontSize=CHART_MARK, align="left", dx=4, dy=16, **_QUIET)
        .encode(x=x, y=y, text=alt.Text("said:N")),
        alt.Chart(middle).mark_line(strokeWidth=2, **_QUIET).encode(x=x, y=y, color=colour, xOffset=offset),
        base.mark_rule(strokeWidth=2, opacity=0.35, **_QUIET).encode(
            x=x, y=alt.Y("low:Q", title=title), y2=alt.Y2("high:Q"), color=colour, xOffset=offset
        ),
        base.mark_point(filled=True, size=110, opacity=0.9).encode(x=x, y=y, color=colour, shape=shape, xOffset=offset, tooltip=tips),
    ]
    return styled(alt.layer(*layers), colours, height=330)


def _reach(values: list[float]) -> list[float]:
    """What an axis shows: the medians in full, with room; a range that a busy machine tore open is cut at the edge."""
    least, most = min(values), max(values)
    room = 0.2 * (most - least) or 0.1 * most
    return [max(0.0, least - room), most + room]
