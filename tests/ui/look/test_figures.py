"""Figures as people write them."""

import pytest

from replaceme_core.span import Cut, Span
from ui.look.figures import amount, cut_text, duration, gib, number, short_time, span_text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"), (1.0, "1"), (0.001, "0.001"), (0.00031, "0.00031"), (2000.0, "2,000"), (1e6, "1,000,000"), (12.34, "12"), (2.5, "2.5"),
        (1e-8, "10⁻⁸"), (3.1e-7, "3.1 × 10⁻⁷"), (2e12, "2 × 10¹²"), (-0.25, "-0.25"), (float("inf"), "∞"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_a_number_has_two_digits_and_no_letter_for_ten(value: float, said: str) -> None:
    assert number(value) == said


def test_amounts_sizes_and_times() -> None:
    assert [amount(value) for value in (12, 1200, 135e6, 7.2e9)] == ["12", "1.2 k", "135 M", "7.2 B"]
    assert [gib(value) for value in (3277, 24.1 * 2**20, 13.5 * 2**30)] == ["3.2 KiB", "24.1 MiB", "13.50 GiB"]
    assert [duration(value) for value in (40, 180, 5400)] == ["40 s", "3 min", "1.5 h"]
    assert [short_time(value) for value in (0.0124, 3.44)] == ["12 ms", "3.4 s"]


def test_blocks_are_named_by_their_numbers() -> None:
    assert (span_text(Span(5, 6)), span_text(Span(5, 8))) == ("block 5", "blocks 5–7")
    assert cut_text(Cut.of([Span(2, 3), Span(6, 8)]), " and ") == "block 2 and blocks 6–7"
