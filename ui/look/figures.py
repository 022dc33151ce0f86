"""Figures as people write them: amounts, sizes, times, and the blocks of a span."""

from typing import TYPE_CHECKING

from replaceme_core.figures import number as number

if TYPE_CHECKING:
    from replaceme_core.span import Cut, Span


def amount(number: float) -> str:
    """'1.2 M', '135 M', '7.2 B'."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def gib(n_bytes: float) -> str:
    """'3.2 KiB', '24.1 MiB', '108 MiB' or '13.5 GiB'."""
    if n_bytes < 2**20 / 10:
        return f"{n_bytes / 2**10:.1f} KiB"
    if n_bytes >= 100 * 2**20 and n_bytes < 2**30:
        return f"{n_bytes / 2**20:.0f} MiB"
    return f"{n_bytes / 2**20:.1f} MiB" if n_bytes < 2**30 else f"{n_bytes / 2**30:.2f} GiB"


def duration(seconds: float) -> str:
    """'40 s', '3 min', '1.5 h'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def short_time(seconds: float) -> str:
    """What a fit took: '12 ms' or '3.4 s'."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def took(seconds: float) -> str:
    """'12 ms', '3.4 s', '6 min': number and unit stay on one line."""
    return (short_time(seconds) if seconds < 90 else duration(seconds)).replace(" ", "\u00a0")


def minus(said: str) -> str:
    """With a minus sign in place of a hyphen."""
    return said.replace("-", "−")


def blocks_text(start: int, end: int) -> str:
    """'block 5', or 'blocks 5–7' for the span 5:8."""
    return f"block {start}" if end - start == 1 else f"blocks {start}–{end - 1}"


def span_text(span: "Span") -> str:
    return blocks_text(span.start, span.end)


def cut_text(cut: "Cut", joined: str = ", ") -> str:
    """The blocks of every span of a cut."""
    return joined.join(map(span_text, cut.spans))


def blocks_count(number: int) -> str:
    """'1 block', '3 blocks'."""
    return "1 block" if number == 1 else f"{number} blocks"
