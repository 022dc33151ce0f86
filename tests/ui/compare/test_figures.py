"""The figures of Compare: one record each, which says its value, its interval, and that the reference has none of its own."""

from types import SimpleNamespace

from replaceme_core.comparison.compare import Divergence
from ui.compare.figures import FIGURES, Measured

HANDLE = SimpleNamespace(n_parameters=1_200_000, n_bytes=24 * 2**20)
QUALITY = Divergence("x", 2.5, 2.4, 2.6, 0.1234, 0.1, 0.15, 0.9, 100, 12, 12, "test", "a text", "", 1.1, 1.05, 1.15)


def said(name: str, system: Measured, is_reference: bool = False) -> str:
    return next(figure for figure in FIGURES if figure.name == name).said(system, is_reference)


def test_a_figure_is_written_with_its_interval() -> None:
    system = Measured(HANDLE, QUALITY, None)
    assert said("perplexity", system) == "2.50 (2.40–2.60)"
    assert said("against the reference", system) == "×1.100 (1.050–1.150)"
    assert said("KL", system) == "0.123 (0.100–0.150)"
    assert said("top-1 agreement", system) == "90.0%"
    assert (said("parameters", system), said("weights", system)) == ("1.2 M", "24.0 MiB")


def test_what_was_not_measured_and_what_the_reference_has_not_is_a_dash() -> None:
    system = Measured(HANDLE, QUALITY, None)
    assert {said(name, system) for name in ("tokens/s", "prefill, ms", "attention cache")} == {"–"}
    assert {said(name, system, True) for name in ("KL", "top-1 agreement", "against the reference")} == {"–"}
    assert said("perplexity", system, True) == "2.50 (2.40–2.60)"
