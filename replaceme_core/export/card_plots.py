"""The pictures of a model card as PNG: the distances with the span outlined, the errors of the fit, the scores. The only importer of matplotlib."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from replaceme_core.artifacts import DistanceMatrix, FitReport, Span, Variant

INK, MUTED, LINE = "#17212B", "#4F5B66", "#C9D3DC"
CUT, FITTED, TRAIN, ORIGINAL = "#BC4A06", "#0A5DB5", "#8FBCE6", "#68747F"
_RAMP = ("#083558", "#1B6CA8", "#5FA3D3", "#BFD9EC", "#F4F7FA")
"""from small, which is good to remove, to large"""
_DOTS = 110
_ACCURACY = ("acc", "acc_norm", "exact_match", "em")
"""what averages take for the accuracy of a task, the first that it has; of several filters the same one whatever their order"""


def card_plots(variant: Variant) -> dict[str, bytes]:
    """PNG files by name, for what the variant carries: always the errors, the distances and scores where they were measured."""
    fitted = variant.transform
    drawn = {"errors.png": errors(fitted.report)}
    if variant.distances is not None:
        drawn["distances.png"] = distances(variant.distances, fitted.cut.spans)
    rows = score_rows(variant.scores)
    if rows:
        drawn["scores.png"] = scores(rows)
    return {name: _png(figure) for name, figure in drawn.items()}


def distances(matrix: DistanceMatrix, spans: tuple[Span, ...]) -> Any:
    """The upper triangle: one cell per span, its row the first removed block, its column the last; the chosen ones outlined."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    figure, axes = _figure(5.4, 4.6)
    n_blocks = matrix.n_blocks
    cells = np.array(matrix.values.numpy()[:n_blocks, 1:], dtype=float)
    cells[~np.isfinite(cells) | (np.tri(n_blocks, k=-1) > 0)] = np.nan
    choosable = cells[1:][np.isfinite(cells[1:])]
    top = float(choosable.max()) if choosable.size else 1.0
    colours = LinearSegmentedColormap.from_list("ramp", _RAMP)
    image = axes.imshow(cells, cmap=colours, vmin=0, vmax=max(top, 1e-9), interpolation="nearest")
    for span in spans:
        axes.add_patch(Rectangle((span.end - 1.5, span.start - 0.5), 1, 1, fill=False, edgecolor=CUT, linewidth=3))
        axes.annotate(
            f"removed: {_blocks(span)}", (span.end - 1.5, span.start + 0.6), (0.03, 0.12), textcoords="axes fraction",
            color=CUT, fontsize=9, arrowprops={"arrowstyle": "-", "color": CUT},
        )  # fmt: skip
    every = max(1, n_blocks // 24 + 1)
    axes.set_xticks(range(0, n_blocks, every))
    axes.set_yticks(range(0, n_blocks, every))
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("last removed block")
    axes.set_ylabel("first removed block")
    figure.colorbar(image, ax=axes, shrink=0.8, label="1 − cosine; dark: the blocks change the stream little")
    return figure


def errors(report: FitReport) -> Any:
    """Relative error of the target: removed without a transform, and the fit on held-out and on train tokens. The figures stand at the bars."""
    names = ("removed, no transform, held-out", "fitted, held-out", "fitted, train")
    values = (report.removal_error, report.heldout_error, report.train_error)
    figure, axes = _figure(6.4, 1.9)
    bars = axes.barh(names, [value if np.isfinite(value) else 0.0 for value in values], color=(CUT, FITTED, TRAIN), height=0.62)
    axes.bar_label(bars, labels=[f"{value:.1%}" for value in values], padding=4, color=INK)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"relative error; n = {report.n_heldout_tokens:,} held-out, {report.n_tokens:,} train tokens")
    return figure


def score_rows(scores: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """(task, model, accuracy, standard error) of every task with an accuracy, the one that averages are of, from `Variant.scores`."""
    rows = []
    for key, found in scores.items():
        for task, metrics in found["results"].items():
            score = next((metrics[name] for kind in _ACCURACY for name in sorted(metrics) if name.partition(",")[0] == kind), None)
            if score is not None:
                short = task.removeprefix("demo_").removeprefix("plain_")
                rows.append((short, found.get("model", key), float(score["value"]), float(score["stderr"] or 0.0)))
    return rows


def scores(rows: list[tuple[str, str, float, float]]) -> Any:
    """Accuracy by task, one bar per model, lines of one standard error; models differ by hatching too."""
    tasks, models = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[1] for row in rows))
    figure, axes = _figure(6.4, 0.9 + 0.34 * len(tasks) * max(1, len(models)) ** 0.8)
    height = 0.8 / len(models)
    for index, model in enumerate(models):
        own = {task: (value, error) for task, name, value, error in rows if name == model}
        present = [task for task in tasks if task in own]
        axes.barh(
            [tasks.index(task) + (index - (len(models) - 1) / 2) * height for task in present],
            [own[task][0] for task in present],
            xerr=[own[task][1] for task in present],
            height=height * 0.9,
            label=model,
            color=(ORIGINAL, FITTED, CUT)[index % 3],
            hatch=("", "//", "..")[index % 3],
            edgecolor="white",
            error_kw={"ecolor": INK, "elinewidth": 1.2, "capsize": 2},
        )
    axes.set_yticks(range(len(tasks)), tasks)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("accuracy; lines: one standard error")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(2, len(models)), frameon=False, fontsize=8)
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of its own and its axes, without pyplot, whose list of open figures is not made for threads."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS)
    return buffer.getvalue()


def _blocks(span: Span) -> str:
    return f"block {span.start}" if len(span) == 1 else f"blocks {span.start}–{span.end - 1}"
