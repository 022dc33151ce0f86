"""The pictures of a fit are valid, and a large matrix keeps its largest entry."""

import numpy as np

from replaceme_core.solvers.least_squares import RidgePoint
from tests.support.vega import valid
from ui.fit import charts as fit_charts
from ui.look.palette import Palette, rgb


def test_the_charts_of_a_fit_are_valid(colours: Palette) -> None:
    path = [RidgePoint(10.0**k, 0.1, 0.2) for k in range(-8, 3)]
    valid(fit_charts.ridge_chart(path, 0.0, colours))
    valid(fit_charts.error_bars(dict.fromkeys(("plain removal, held-out", "fitted, held-out", "fitted, train"), 0.3), colours))
    valid(fit_charts.spectrum_chart(np.linspace(2, 0, 32), colours))


def test_a_large_transform_is_pooled_and_keeps_its_largest_entry(colours: Palette) -> None:
    wide = np.eye(700)
    wide[3, 650] = 9.0
    picture, _ = fit_charts.matrix_picture(wide, colours)
    assert picture.width <= 512
    tile = picture.getpixel((650 * picture.width // 702, 3 * picture.height // 702))
    assert tile == rgb(colours.diverging[2])
