"""Every chart is valid Vega-Lite, and shows what it is given: cells, outline, domains, pooled pictures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from replaceme_core.artifacts import Cut, DistanceMatrix, Span
from replaceme_core.comparison.compare import Divergence
from replaceme_core.selection.spans import profile, top
from replaceme_core.solvers.least_squares import RidgePoint
from replaceme_core.studies.planner import Candidate, Found, Point
from ui.blocks import profile as profile_chart
from ui.blocks import search as search_view
from ui.fit import charts as fit_charts
from ui.look import ruler
from ui.look.palette import DARK, LIGHT, Palette, rgb
from ui.parts import heatmap as matrix_charts
from ui.parts import intervals as score_charts


def matrix(n_blocks: int) -> DistanceMatrix:
    points = torch.arange(n_blocks + 1, dtype=torch.float64)
    values = (points[None, :] - points[:, None]) / (n_blocks + 1)
    values = torch.where(values >= 0, values, torch.nan)
    return DistanceMatrix(values, "all", 1000, 25, values / 10)


@pytest.fixture(params=[LIGHT, DARK], ids=["light", "dark"])
def colours(request: pytest.FixtureRequest) -> Palette:
    return request.param


@pytest.mark.parametrize("n_blocks", [2, 6, 48])
@pytest.mark.parametrize("layer", list(matrix_charts.LAYERS))
def test_the_matrix_is_valid_at_every_depth_and_layer(n_blocks: int, layer: str, colours: Palette) -> None:
    distances, span = matrix(n_blocks), Span(1, 2)
    values = distances.values.numpy() + 1 if layer == "norm_ratio" else distances.values.numpy()
    marks = matrix_charts.Marks(span, tuple(span for span, _ in top(distances, 1, 3)), (Span(1, 2),), (Span(1, 2),))
    chart = matrix_charts.matrix_chart(values, matrix_charts.LAYERS[layer], marks, colours).to_dict()
    cells = max(chart["datasets"].values(), key=len)
    assert len(cells) == n_blocks * (n_blocks + 1) // 2
    assert chart["usermeta"]["embedOptions"]["renderer"] == "svg"
    assert [parameter["name"] for parameter in chart["params"]] == ["cell"]


def test_cells_read_out_their_span_and_row_zero_cannot_be_chosen() -> None:
    rows = matrix_charts.matrix_rows(matrix(6).values.numpy(), ".3f")
    cell = rows[(rows["start"] == 1) & (rows["end"] == 3)].iloc[0]
    assert cell["said"].startswith("start: 1; end: 3; blocks 1–2;")
    assert cell["last"] == 2
    assert not rows[rows["start"] == 0]["choosable"].any()


def test_cells_without_a_value_are_left_out() -> None:
    values = matrix(6).values.numpy().copy()
    values[2, 4] = np.nan
    rows = matrix_charts.matrix_rows(values, ".3f")
    assert rows[(rows["start"] == 2) & (rows["end"] == 4)].empty


def test_the_profile_is_valid_and_its_band_is_two_standard_errors(colours: Palette) -> None:
    points = profile(matrix(6), 2)
    rows = profile_chart.profile_rows(points)
    assert rows["high"].iloc[0] == pytest.approx(points[0].distance + 2 * points[0].standard_error)
    profile_chart.profile_chart(points, Span(2, 4), colours).to_dict()


def test_the_charts_of_a_fit_are_valid(colours: Palette) -> None:
    path = [RidgePoint(10.0**k, 0.1, 0.2) for k in range(-8, 3)]
    fit_charts.ridge_chart(path, 0.0, colours).to_dict()
    rows = pd.DataFrame([{"what": name, "error": 0.3} for name in ("plain removal, held-out", "fitted, held-out", "fitted, train")])
    fit_charts.error_bars(rows, colours).to_dict()
    fit_charts.spectrum_chart(np.linspace(2, 0, 32), colours).to_dict()


def test_a_large_transform_is_pooled_and_keeps_its_largest_entry(colours: Palette) -> None:
    wide = np.eye(700)
    wide[3, 650] = 9.0
    picture, _ = fit_charts.matrix_picture(wide, colours)
    assert picture.width <= 512
    tile = picture.getpixel((650 * picture.width // 702, 3 * picture.height // 702))
    assert tile == rgb(colours.diverging[2])


def test_the_charts_of_scores_are_valid(colours: Palette) -> None:
    names = ["original", "cut, no transform", "a", "b", "c"]
    rows = [{"task": "t", "system": name, "value": 0.5, "stderr": 0.1, "low": 0.4, "high": 0.6, "n": 50, "chance": 0.25} for name in names]
    score_charts.score_chart(pd.DataFrame(rows), names, colours).to_dict()
    score_charts.interval_chart(pd.DataFrame(rows), names, "perplexity", colours).to_dict()


def test_a_system_has_its_colour_with_and_without_a_cut_beside_it(colours: Palette) -> None:
    both = score_charts.system_colours(["original", "cut, no transform", "a", "b"], colours)
    alone = score_charts.system_colours(["original", "a", "b"], colours)
    assert both == {"original": colours.original, "cut, no transform": colours.cut, "a": colours.pruned, "b": colours.carrier}
    assert alone == {name: both[name] for name in alone}


def test_the_ruler_marks_removed_and_carrier_and_reads_out_as_one_sentence(colours: Palette) -> None:
    shown = ruler.ruler_html(12, range(6, 9), "removes <six>", colours)
    assert shown.count(": removed") == 3
    assert shown.count("block 5: carrier") == 1
    assert shown.count(": kept") == 8
    assert 'aria-label="removes &lt;six&gt;"' in shown


def test_the_ruler_of_a_deep_model_numbers_every_eighth_block() -> None:
    shown = ruler.ruler_html(80, None, "80 blocks, all kept", LIGHT)
    assert ">72<" in shown
    assert ">76<" not in shown


def test_a_profile_without_a_known_spread_is_valid_and_has_no_band(colours: Palette) -> None:
    distances = matrix(6)
    unknown = replace(distances, spread=torch.full_like(distances.values, torch.nan))
    chart = profile_chart.profile_chart(profile(unknown, 2), Span(2, 4), colours, "missed").to_dict()
    assert all(row["low"] is None for row in max(chart["datasets"].values(), key=len))
    assert chart["layer"][1]["encoding"]["y"]["title"] == "missed"


def test_the_chart_of_a_search_joins_the_front_from_the_origin_and_outlines_the_chosen_cut(colours: Palette) -> None:
    def point(spans: list[Span], kl: float, front: bool) -> Point:
        quality = Divergence("x", 2.0, 1.9, 2.1, kl, kl - 0.01, kl + 0.01, 0.9, 100, 5)
        return Point(Candidate(Cut.of(spans), "distance", 0.1, 1), 1000, 0.2, quality, front)

    points = (point([Span(2, 4)], 0.1, True), point([Span(3, 5)], 0.2, False), point([Span(1, 2), Span(3, 5)], 0.3, True))
    found = Found(Divergence("o", 1.9, 1.8, 2.0, 0.0, 0.0, 0.0, 1.0, 100, 5), points, (), 1.0)
    rows = search_view.places_rows(found, [1, 3, 4])
    assert list(rows["chosen"]) == [False, False, True]
    assert list(rows["removes"]) == ["blocks 2–3", "blocks 3–4", "block 1 and blocks 3–4"]
    chart = search_view.places_chart(found, [1, 3, 4], colours).to_dict()
    joined = next(data for data in chart["datasets"].values() if data[0]["x"] == 0)
    assert [(row["x"], row["kl"]) for row in joined] == [(0, 0.0), (pytest.approx(1.92), 0.1), (3, 0.3)]
    assert rows["x"].is_unique, "points that cover each other cannot be clicked"
    assert [parameter["name"] for parameter in chart["params"]] == ["place"]
