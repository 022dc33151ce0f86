"""The palette reads in both themes and for colour-blind eyes, by the published measures: contrast (WCAG 2), a simulation, CIE Lab."""

import tomllib
from itertools import combinations

import numpy as np
import pytest

from tests.support.browser_walk import ROOT
from ui.look.page_style import page_css
from ui.look.palette import DARK, LIGHT, Palette, rgb

SYSTEMS = ("original", "cut", "pruned", "carrier")
APART = 16.0
"""distance in CIE Lab that two colours keep for every eye; about 2 can be told apart when they lie side by side"""
EYES = {
    "all cones": np.eye(3),
    "no red cones": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "no green cones": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "no blue cones": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
"""what is left of linear RGB: Machado, Oliveira and Fernandes (2009), severity 1"""
_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


GREY = 1.25
"""contrast of two systems for an eye without colours, or on a printed page: more than two shades of one step of a paint card"""


def linear(colour: str) -> np.ndarray:
    values = np.array(rgb(colour)) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    high, low = sorted((float(_XYZ[1] @ linear(one)), float(_XYZ[1] @ linear(other))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(light: np.ndarray) -> np.ndarray:
    xyz = _XYZ @ light.clip(0, 1) / np.array([0.95047, 1.0, 1.08883])
    bent = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * bent[1] - 16, 500 * (bent[0] - bent[1]), 200 * (bent[1] - bent[2])])


def apart(one: str, other: str, eye: str) -> float:
    return float(np.linalg.norm(lab(EYES[eye] @ linear(one)) - lab(EYES[eye] @ linear(other))))


@pytest.mark.parametrize("ground", ["background", "panel"])
@pytest.mark.parametrize("name", ["ink", "muted", *SYSTEMS])
def test_every_colour_that_carries_text_has_a_contrast_of_four_and_a_half(name: str, ground: str, colours: Palette) -> None:
    assert contrast(getattr(colours, name), getattr(colours, ground)) >= 4.5


@pytest.mark.parametrize("eye", list(EYES))
def test_the_systems_stay_apart_for_every_eye(eye: str, colours: Palette) -> None:
    near = {
        (one, other): apart(getattr(colours, one), getattr(colours, other), eye)
        for one, other in combinations(SYSTEMS, 2)
        if apart(getattr(colours, one), getattr(colours, other), eye) < APART
    }
    assert near == {}


def test_the_systems_are_steps_of_lightness_for_an_eye_without_colours(colours: Palette) -> None:
    steps = [contrast(getattr(colours, name), colours.background) for name in SYSTEMS]
    assert steps == sorted(steps), "from the original, nearest to the page, to the carrier"
    near = {
        (one, other): contrast(getattr(colours, one), getattr(colours, other))
        for one, other in combinations(SYSTEMS, 2)
        if contrast(getattr(colours, one), getattr(colours, other)) < GREY
    }
    assert near == {}


@pytest.mark.parametrize("eye", list(EYES))
def test_good_and_bad_have_ramps_that_no_eye_takes_for_one_another(eye: str, colours: Palette) -> None:
    assert apart(colours.ramp[2], colours.harm[2], eye) >= APART


@pytest.mark.parametrize("eye", list(EYES))
def test_the_ends_of_the_diverging_ramp_stay_apart_for_every_eye(eye: str, colours: Palette) -> None:
    below, _, above = colours.diverging
    assert apart(below, above, eye) >= 2 * APART


def test_the_simulation_knows_what_it_takes_away() -> None:
    """Red and green of one lightness: far apart with all cones, hardly without the green ones; grey stays grey for everybody."""
    assert apart("#B05050", "#507D50", "all cones") > 50
    assert apart("#B05050", "#507D50", "no green cones") < 20
    for eye in EYES:
        assert np.ptp(EYES[eye] @ linear("#808080")) < 1e-3


def test_the_ramp_grows_stronger_against_the_page(colours: Palette) -> None:
    for ramp in (colours.ramp, colours.harm):
        steps = [contrast(colour, colours.background) for colour in ramp]
        assert steps == sorted(steps)


@pytest.mark.parametrize("step", range(5))
def test_an_outline_of_two_tones_is_seen_on_every_step_of_the_ramp(step: int, colours: Palette) -> None:
    """The chosen cell has a line in the colour of the cut, on a halo in that of the page: one of them stands out at any place."""
    assert max(contrast(tone, colours.ramp[step]) for tone in (colours.cut, colours.background)) >= 2.5


def test_the_theme_that_streamlit_reads_is_that_of_the_palette() -> None:
    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        assert (theme[name]["backgroundColor"], theme[name]["textColor"]) == (colours.background, colours.ink)
        assert theme[name]["secondaryBackgroundColor"] == colours.panel
        assert contrast(theme[name]["primaryColor"], "#FFFFFF") >= 4.5, "the text of a primary button is white"
    assert theme["light"]["primaryColor"] == LIGHT.pruned


def test_the_style_sheet_has_the_colours_of_its_theme(colours: Palette) -> None:
    assert colours.muted in page_css(colours)
