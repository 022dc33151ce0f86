"""Figures as people write them."""

from replaceme_core.span import Cut, Span
from ui.look.figures import amount, cut_text, duration, gib, short_time, span_text


def test_amounts_sizes_and_times() -> None:
    assert [amount(value) for value in (12, 1200, 135e6, 7.2e9)] == ["12", "1.2 k", "135 M", "7.2 B"]
    assert [gib(value) for value in (3277, 24.1 * 2**20, 13.5 * 2**30)] == ["3.2 KiB", "24.1 MiB", "13.50 GiB"]
    assert [duration(value) for value in (40, 180, 5400)] == ["40 s", "3 min", "1.5 h"]
    assert [short_time(value) for value in (0.0124, 3.44)] == ["12 ms", "3.4 s"]


def test_blocks_are_named_by_their_numbers() -> None:
    assert (span_text(Span(5, 6)), span_text(Span(5, 8))) == ("block 5", "blocks 5–7")
    assert cut_text(Cut.of([Span(2, 3), Span(6, 8)]), " and ") == "block 2 and blocks 6–7"
