"""The layers of the matrix, one record each: to add one is to add a record here. And the one that takes a fit of every span."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ui.blocks import costs as measured_cost
from ui.look.vega import Rows
from ui.parts.heatmap import Look, matrix_rows
from ui.session import costs, live
from ui.session.jobs import runner
from ui.session.methods import closed_form
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import DistanceMatrix, Measurement
    from replaceme_core.progress import Progress


@dataclass(frozen=True)
class Layer:
    """One layer: how it is called, explained and drawn, and its values."""

    title: str
    help: str
    colour_help: str
    look: Look
    values: "Callable[[Studio], np.ndarray | None]"
    """[start, end]; None before they are made"""
    spread: "Callable[[Studio], np.ndarray] | None" = None
    """[start, end] standard error, where it is known"""
    fact_format: str = ""
    """how the tooltip writes it; empty: as the legend does"""
    facts: "Callable[[Studio, tuple[int, ...]], np.ndarray] | None" = None
    """[start, end] what the tooltip says, where it is more than the value"""
    caption: "Callable[[Studio], str] | None" = None
    """what is to be said of the present picture"""


def _distance(positions: str) -> "Callable[[Studio], np.ndarray]":
    return lambda state: _distances(state, positions).values.numpy()


def _distance_error(positions: str) -> "Callable[[Studio], np.ndarray]":
    def error(state: Studio) -> np.ndarray:
        found = _distances(state, positions)
        return found.spread.numpy() / max(1, found.n_sequences) ** 0.5

    return error


def _distances(state: Studio, positions: str) -> "DistanceMatrix":
    return live.shown(state).distances[positions]  # type: ignore[index]


def _growth(state: Studio) -> np.ndarray:
    norms = live.shown(state).norms.numpy()
    return norms[None, :] / norms[:, None]


def _longest(state: Studio) -> np.ndarray:
    from replaceme_core.selection import sinks

    found = sinks.reach(live.shown(state).lengths).numpy()
    return found[None, :] / found[:, None]


def _ranks(state: Studio) -> np.ndarray:
    """Share of the places of one length that come before each; NaN where there is no span, and for row 0, which competes with nobody."""
    from replaceme_core.selection import sinks

    values = sinks.kept(live.shown(state)).values.numpy()
    found = np.full(values.shape, np.nan)
    for length in range(1, len(values) - 1):
        starts = np.arange(1, len(values) - length)
        order = values[starts, starts + length].argsort(kind="stable").argsort()
        found[starts, starts + length] = order / max(1, len(starts) - 1)
    return found


def _errors(state: Studio) -> np.ndarray | None:
    """None before `compute_errors` has made them."""
    key = _errors_key(state)
    if state.partial is not None:
        return None
    return live.remembered(state, key, lambda: None) if live.is_remembered(state, key) else None


_LITTLE = "**Strong colour: the residual stream leaves the span almost as it entered, so the blocks do little.**"
_CHEAP = "**Strong colour: the model without these blocks says nearly the same as the original.**"
LAYERS = {
    "cosine_all": Layer(
        "Distance, all tokens", "1 − cosine between the hidden states before and after the span, averaged over every token.", _LITTLE,
        Look("distance", ".3f"), _distance("all"), _distance_error("all"), ".4f",
    ),
    "rank": Layer(
        "Rank within its length",
        "Only spans of one length compete, and a longer one is always further: here each is set against those of its own length, by the "
        "distance with sinks kept. 0 %: no place comes before it; 100 %: all do.",
        "**Strong colour: among the first places for a span this long. It does not say that such a span can go.**",
        Look("places before it", ".0%"), _ranks,
    ),
    "cosine_last": Layer(
        "Distance, last token", "The same at the last token of each sequence only, where the next word is decided.", _LITTLE,
        Look("distance", ".3f"), _distance("last"), _distance_error("last"), ".4f",
    ),
    "angular": Layer(
        "Angle", "The mean cosine as an angle; 0 is the same direction, 1 the opposite one.", _LITTLE,
        Look("angle", ".3f"), lambda state: _distances(state, "all").angular().numpy(),
    ),
    "error": Layer(
        "Error after the fit",
        "Held-out relative error of the fitted transform. The target leaves out what the residual stream holds beside "
        "the carrier's output, so compare ends of one start; between starts, and for what it costs, see 'Find the best places'.",
        "**Strong colour: the transform rebuilds nearly all that the blocks did.**",
        Look("held-out error", ".1%"), _errors,
    ),
    "cost_fitted": Layer(
        "Measured cost, with transform",
        "The model is run without the span, the fitted transform in its stead: KL of its next-token probabilities to the original's, nats per token.",
        _CHEAP,
        Look("KL", ".2f", sparse=True, ratios=True), measured_cost.values,
        facts=lambda state, shape: measured_cost.texts(state, None, shape), caption=measured_cost.caption,
    ),
    "cost_removed": Layer(
        "Measured cost, removed",
        "The same with nothing in the blocks' place. The single blocks are measured first: what the model loses with each of them.",
        _CHEAP,
        Look("KL", ".2f", sparse=True, ratios=True), lambda state: measured_cost.values(state, costs.REMOVED),
        facts=lambda state, shape: measured_cost.texts(state, costs.REMOVED, shape), caption=measured_cost.caption,
    ),
    "norm_ratio": Layer(
        "Growth", "Length of the residual stream after the span divided by its length before it; 1 means unchanged.",
        "**Orange: the stream grows across the span; blue: it shrinks; plain: it keeps its length.**",
        Look("growth", ".2f", diverging=True), _growth,
    ),
    "sink": Layer(
        "Attention sink",
        "Some models make one token a sequence a hundred times as long as the others (an attention sink), which a mean does not show. "
        "Here: the longest token beside the typical one, after the span divided by before it; 1 means unchanged.",
        "**Orange: a block of the span makes a sink; blue: one ends it; plain: the sink stays as it is. Leave the blocks that make it.**",
        Look("longest token", ".2f", diverging=True), _longest,
    ),
}  # fmt: skip


def facts_of(state: Studio) -> dict[str, np.ndarray]:
    """[start, end] texts of all layers with their spread and n, for the tooltip."""
    measurement = live.shown(state)
    every = measurement.distances["all"]
    n = f"{every.n_tokens:,} tokens, {every.n_sequences:,} sequences"
    shape = every.values.shape
    return {layer.title.lower(): _texts(state, layer, shape) for layer in LAYERS.values()} | {
        "measured on": np.full(shape, n, dtype=object),
        "errors on": np.full(shape, f"{measurement.n_heldout_tokens:,} held-out tokens", dtype=object),
    }


def cells_of(state: Studio, name: str, values: np.ndarray) -> Rows:
    """The matrix's cells in one layer, made once for all choices on them."""
    known = _n_told(state, name) if costs.can_measure(state) else 0
    so_far = state.partial.n_tokens if state.partial is not None else None
    key = ("cells", name, known, so_far, _errors_key(state) if _errors(state) is not None else None)
    look = LAYERS[name].look
    return live.remembered(state, key, lambda: matrix_rows(values, look.format, facts_of(state), look.sparse))


def _n_told(state: Studio, name: str) -> int:
    """Measured costs that the tooltips say. While they come in, on a layer of something else, these are some seconds old.

    With every new one all cells would be drawn anew at every click.
    """
    told, job = state.slot(costs.CostState), runner().behind(state.owner)
    is_late = time.monotonic() - told.in_tooltips[1] > measured_cost.REDRAWN
    if name in measured_cost.COST_LAYERS or job is None or not job.active or is_late:
        told.in_tooltips = (costs.n_known(state), time.monotonic())
    return told.in_tooltips[0]


def _texts(state: Studio, layer: Layer, shape: tuple[int, ...]) -> np.ndarray:
    if layer.facts is not None:
        return layer.facts(state, shape)
    values, format = layer.values(state), layer.fact_format or layer.look.format
    said = _formatted(np.full(shape, np.nan) if values is None else values, format)
    return said if layer.spread is None else said + " ± " + _formatted(layer.spread(state), format)


def _formatted(values: np.ndarray, format: str) -> np.ndarray:
    return np.vectorize(lambda value: f"{value:{format}}" if np.isfinite(value) else "not known", otypes=[object])(values)


def _errors_key(state: Studio) -> tuple[str, object]:
    return "error", closed_form(state)


def compute_errors(state: Studio, progress: "Progress") -> None:
    """The held-out error after the fit of every span that the pass kept: a fit for each of them."""
    from replaceme_core import solvers

    measurement: Measurement = live.measured(state)
    key = _errors_key(state)
    values = solvers.error_map(measurement, closed_form(state), progress).numpy()
    if state.measurement is measurement:
        live.remembered(state, key, lambda: values)
