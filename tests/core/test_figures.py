"""Figures are written as people write them."""

import pytest

from replaceme_core.figures import number


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"), (1, "1"), (0.001, "0.001"), (1e-4, "0.0001"), (0.05, "0.05"), (2034.0, "2,000"), (1543.0, "1,500"), (0.0995, "0.1"),
        (9.96, "10"), (99.6, "100"), (1234567.0, "1,200,000"), (1e7, "10⁷"), (1.5e8, "1.5 × 10⁸"), (3.14e-7, "3.1 × 10⁻⁷"),
        (-0.25, "-0.25"), (float("inf"), "∞"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_a_number_has_two_digits_and_no_power_of_ten_where_people_use_none(value, said):
    assert number(value) == said


def test_more_digits_can_be_asked_for():
    assert number(1234.5678, 3) == "1,230"
    assert number(0.123456, 4) == "0.1235"
    assert number(12.5, 6) == "12.5"
