"""Every chart of the Blocks page is valid Vega-Lite, and shows what it is given: cells, outline, band, front."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch

from replaceme_core.artifacts import Cut, DistanceMatrix, Span
from replaceme_core.comparison.compare import Divergence
from replaceme_core.selection.spans import profile, top
from replaceme_core.studies.planner import Candidate, Places, Point
from tests.support.vega import valid
from ui.blocks import profile as profile_chart
from ui.blocks import search as search_view
from ui.blocks.layers import LAYERS
from ui.look.chart_style import plain_rows
from ui.look.palette import LIGHT, Palette
from ui.look.vega import Rows
from ui.parts import heatmap as matrix_charts


def matrix(n_blocks: int) -> DistanceMatrix:
    points = torch.arange(n_blocks + 1, dtype=torch.float64)
    values = (points[None, :] - points[:, None]) / (n_blocks + 1)
    values = torch.where(values >= 0, values, torch.nan)
    return DistanceMatrix(values, "all", 1000, 25, values / 10)


def test_another_choice_changes_nothing_but_the_data_of_the_marks() -> None:
    """The browser builds a chart anew for any other change, which takes ten times as long."""
    cells = matrix_charts.matrix_rows(matrix(12).values.numpy(), ".3f")
    chosen, other = (
        matrix_charts.matrix_chart(cells, 12, matrix_charts.DISTANCE, marks, LIGHT)
        for marks in (
            matrix_charts.Marks(Span(1, 4)),
            matrix_charts.Marks(Span(3, 5), (Span(3, 5), Span(7, 9)), (Span(9, 11),), (Span(1, 2),)),
        )
    )
    data, changed = chosen.pop("datasets"), other.pop("datasets")
    assert chosen == other
    assert list(data) == list(changed)
    assert data["cells"].packed is changed["cells"].packed, "packed once"
    assert data["chosen"] == [{"start": 1, "last": 3}]
    assert changed["ranks"] == [{"start": 3, "last": 4, "rank": "1"}, {"start": 7, "last": 8, "rank": "2"}]


def test_rows_travel_as_an_arrow_stream_also_when_there_are_none() -> None:
    rows = Rows([{"start": 1, "value": None, "said": "a"}, {"start": 2, "value": 0.5, "said": "b"}])
    with pyarrow.ipc.open_stream(rows.packed) as stream:
        assert stream.read_all().to_pylist() == rows
    with pyarrow.ipc.open_stream(Rows().packed) as stream:
        assert stream.read_all().num_rows == 0


@pytest.mark.parametrize("n_blocks", [2, 6, 48])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_the_matrix_is_valid_at_every_depth_and_layer(n_blocks: int, layer: str, colours: Palette) -> None:
    distances, span = matrix(n_blocks), Span(1, 2)
    values = distances.values.numpy() + 1 if layer == "norm_ratio" else distances.values.numpy()
    marks = matrix_charts.Marks(span, tuple(span for span, _ in top(distances, 1, 3)), (Span(1, 2),), (Span(1, 2),))
    cells = matrix_charts.matrix_rows(values, LAYERS[layer].look.format)
    chart = valid(matrix_charts.matrix_chart(cells, n_blocks, LAYERS[layer].look, marks, colours))
    cells = max(chart["datasets"].values(), key=len)
    assert len(cells) == n_blocks * (n_blocks + 1) // 2
    assert chart["usermeta"]["embedOptions"]["renderer"] == "svg"
    assert [parameter["name"] for parameter in chart["params"]] == ["cell"]


def test_cells_read_out_their_span_and_row_zero_cannot_be_chosen() -> None:
    rows = pd.DataFrame(matrix_charts.matrix_rows(matrix(6).values.numpy(), ".3f"))
    cell = rows[(rows["start"] == 1) & (rows["end"] == 3)].iloc[0]
    assert cell["said"].startswith("start: 1; end: 3; blocks 1–2;")
    assert cell["last"] == 2
    assert not rows[rows["start"] == 0]["choosable"].any()


def test_cells_without_a_value_are_left_out() -> None:
    values = matrix(6).values.numpy().copy()
    values[2, 4] = np.nan
    rows = pd.DataFrame(matrix_charts.matrix_rows(values, ".3f"))
    assert rows[(rows["start"] == 2) & (rows["end"] == 4)].empty


def test_the_profile_is_valid_and_its_band_is_two_standard_errors(colours: Palette) -> None:
    points = profile(matrix(6), 2)
    rows = profile_chart.profile_rows(points)
    assert rows[0]["high"] == pytest.approx(points[0].distance + 2 * points[0].standard_error)
    valid(profile_chart.profile_chart(points, Span(2, 4), colours))


def test_a_profile_without_a_known_spread_is_valid_and_has_no_band(colours: Palette) -> None:
    distances = matrix(6)
    unknown = replace(distances, spread=torch.full_like(distances.values, torch.nan))
    chart = valid(profile_chart.profile_chart(profile(unknown, 2), Span(2, 4), colours, "missed"))
    assert all(row["low"] is None for row in max(chart["datasets"].values(), key=len))
    assert chart["layer"][1]["encoding"]["y"]["title"] == "missed"


def test_the_chart_of_a_search_joins_the_front_from_the_origin_and_outlines_the_chosen_cut(colours: Palette) -> None:
    def point(spans: list[Span], kl: float, front: bool) -> Point:
        quality = Divergence("x", 2.0, 1.9, 2.1, kl, kl - 0.01, kl + 0.01, 0.9, 100, 5, 5, "held-out", "a text")
        return Point(Candidate(Cut.of(spans), "distance", 0.1, 1), 1000, 0.2, quality, front)

    points = (point([Span(2, 4)], 0.1, True), point([Span(3, 5)], 0.2, False), point([Span(1, 2), Span(3, 5)], 0.3, True))
    found = Places(Divergence("o", 1.9, 1.8, 2.0, 0.0, 0.0, 0.0, 1.0, 100, 5, 5, "held-out", "a text"), points, (), 1.0)
    rows = search_view.places_rows(found, [1, 3, 4])
    assert list(rows["chosen"]) == [False, False, True]
    assert list(rows["removes"]) == ["blocks 2–3", "blocks 3–4", "block 1 and blocks 3–4"]
    chart = search_view.places_chart(found, [1, 3, 4], colours).to_dict()
    joined = next(data for data in chart["datasets"].values() if data[0]["x"] == 0)
    assert [(row["x"], row["kl"]) for row in joined] == [(0, 0.0), (pytest.approx(1.92), 0.1), (3, 0.3)]
    assert rows["x"].is_unique, "points that cover each other cannot be clicked"
    assert [parameter["name"] for parameter in chart["params"]] == ["place"]


def test_the_rows_of_a_chart_are_plain_values_whatever_numpy_held() -> None:
    frame = pd.DataFrame({"n": [1, 2], "x": [np.nan, np.inf], "yes": [True, False], "what": ["a", None]})
    rows = plain_rows(frame)["values"]
    assert json.dumps(rows) == '[{"n": 1, "x": null, "yes": true, "what": "a"}, {"n": 2, "x": null, "yes": false, "what": null}]'
    assert plain_rows(frame.head(0)) == {"values": []}


def test_costs_that_differ_by_factors_differ_in_colour() -> None:
    """One place that costs twenty times the others must not make these look alike."""
    values = np.full((6, 6), np.nan)
    values[1:5, 5] = [0.2, 0.4, 2.0, 20.0]
    cells = matrix_charts.matrix_rows(values, ".2f", sparse=True)
    plain, ratios = (
        matrix_charts.matrix_chart(
            cells, 5, matrix_charts.Look("KL", ".2f", sparse=True, ratios=by_ratio), matrix_charts.Marks(Span(1, 5)), LIGHT
        )
        for by_ratio in (False, True)
    )
    scales = [next(scale for scale in _scales(spec) if len(scale.get("range", ())) == len(LIGHT.ramp)) for spec in (plain, ratios)]
    gaps = [np.diff(np.interp([0.2, 0.4, 2.0], scale["domain"], range(len(LIGHT.ramp)))) for scale in scales]
    assert gaps[0][0] < 0.1, "steps of the ramp: 0.2 and 0.4 look alike"
    assert gaps[1].min() > 0.4
    assert scales[1]["type"] == "log"
    assert scales[1]["domain"][0] == pytest.approx(0.2)
    assert scales[1]["domain"][-1] == pytest.approx(20.0)


def _scales(spec: object) -> Iterator[dict[str, object]]:
    if isinstance(spec, dict):
        if isinstance(spec.get("scale"), dict):
            yield spec["scale"]
        for each in spec.values():
            yield from _scales(each)
    elif isinstance(spec, list):
        for each in spec:
            yield from _scales(each)
