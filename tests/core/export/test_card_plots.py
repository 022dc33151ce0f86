"""The pictures of a model card show the figures of the variant, and the card names each by a relative path."""

import dataclasses
import io
import re
import sys

import numpy as np
import pytest
from PIL import Image

from replaceme_core.artifacts import Span
from replaceme_core.evaluation.scores import Score, Scores
from replaceme_core.export import card_plots
from replaceme_core.export import export as exporting
from replaceme_core.export.export import export
from replaceme_core.export.model_card import model_card

SCORES = {
    name: {
        "model": name,
        "results": {
            "demo_facts": {"acc": {"value": value, "stderr": 0.05, "n": 40}},
            "demo_text": {"word_perplexity": {"value": 9.0, "stderr": None, "n": 4}},
        },
    }
    for name, value in (("original", 0.8), ("pruned", 0.7))
}


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Every picture is drawn here; elsewhere the first serves for all."""
    monkeypatch.setattr(exporting, "card_plots", card_plots.card_plots)


@pytest.fixture(scope="module")
def whole(variant, measurement):
    return dataclasses.replace(variant, distances=measurement.distances["all"], scores=SCORES)


def test_an_export_holds_every_picture_that_its_card_shows(whole, tmp_path):
    made = export(whole, tmp_path / "model")
    shown = re.findall(r"!\[(.+?)\]\(([^)]+)\)", (made.folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(path for _, path in shown) == ["distances.png", "errors.png", "scores.png"]
    assert all(len(said) > 30 for said, _ in shown), "each has a text for those who do not see it"
    for _, path in shown:
        picture = Image.open(made.folder / path)
        assert min(picture.size) > 150
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_what_was_not_measured_is_neither_drawn_nor_named(variant):
    plots = card_plots.card_plots(variant)
    assert list(plots) == ["errors.png"]
    card = model_card(variant, variant.proofs, tuple(plots))
    assert "distances.png" not in card
    assert "scores.png" not in card


def test_the_outline_stands_on_the_cell_of_the_span_and_the_cells_hold_the_distances(measurement):
    matrix = measurement.distances["all"]
    axes = card_plots.distances(matrix, (Span(2, 4), Span(5, 6))).axes[0]
    assert [patch.get_xy() for patch in axes.patches] == [(2.5, 1.5), (4.5, 4.5)], "x: last removed block, y: first, half a cell before"
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    for start in range(6):
        for last in range(6):
            expected = matrix.values[start, last + 1].item() if last >= start else np.nan
            np.testing.assert_equal(shown[start, last], expected)


def test_the_bars_are_as_long_as_the_errors(variant):
    report = variant.transform.report
    axes = card_plots.errors(report).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([report.removal_error, report.heldout_error, report.train_error])


def test_scores_are_drawn_with_their_standard_errors_and_perplexities_are_left_out():
    rows = card_plots.score_rows(SCORES)
    assert rows == [("facts", "original", 0.8, 0.05), ("facts", "pruned", 0.7, 0.05)]
    axes = card_plots.scores(rows).axes[0]
    assert [bar.get_width() for bar in axes.patches[:2]] == [0.8, 0.7]
    lines = axes.collections[0].get_segments()[0]
    assert lines[:, 0] == pytest.approx([0.75, 0.85])
    assert len({bar.get_hatch() for bar in axes.patches[:2]}) == 2, "not told apart by colour alone"


def test_a_bar_is_of_the_figure_that_averages_and_tables_are_of():
    figures = {"arc": {"acc_norm": 0.4, "acc": 0.3}, "gsm8k": {"exact_match,strict-match": 0.2}, "piqa": {"acc_norm": 0.6}}
    results = {task: {name: Score(value, 0.1, 50) for name, value in metrics.items()} for task, metrics in figures.items()}
    scores = Scores("m", results, None, {})
    assert [row[2] for row in card_plots.score_rows({"m": scores.to_data()})] == [scores.primary(task).value for task in results]


def test_pictures_do_not_touch_the_state_that_all_threads_share(whole):
    before = "matplotlib.pyplot" in sys.modules
    assert Image.open(io.BytesIO(card_plots.card_plots(whole)["distances.png"])).format == "PNG"
    assert ("matplotlib.pyplot" in sys.modules) == before
