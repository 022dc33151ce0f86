"""What is measured of a system on test text and in time, one record per figure: chart, table and words read it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ui.look.figures import amount, gib

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.comparison.compare import Divergence, Speed

Interval = tuple[float, float]
NOTHING = "–"


@dataclass(frozen=True, eq=False)
class Measured:
    """One system, as far as it was measured."""

    handle: "ModelHandle"
    quality: "Divergence"
    speed: "Speed | None"


@dataclass(frozen=True)
class Figure:
    """One figure of a system."""

    name: str
    """the column of the table"""
    value: Callable[[Measured], float | None]
    """None: not measured"""
    form: str | Callable[[float], str]
    """how it is written: a format, or a function"""
    interval: Callable[[Measured], Interval | None] = lambda _: None
    sign: str = ""
    """before the figure"""
    chart: str = ""
    """the title of its chart; empty: it has none. '{reference}' is filled in"""
    of_reference: bool = True
    """whether the reference has one, too"""

    def written(self, value: float) -> str:
        return self.form(value) if callable(self.form) else f"{value:{self.form}}"

    def of(self, system: Measured, is_reference: bool) -> tuple[float, Interval | None] | None:
        """Value and interval; None where there is none."""
        value = None if is_reference and not self.of_reference else self.value(system)
        return None if value is None else (value, self.interval(system))

    def said(self, system: Measured, is_reference: bool) -> str:
        """'2.47 (2.31–2.63)'."""
        found = self.of(system, is_reference)
        if found is None:
            return NOTHING
        value, interval = found
        return self.sign + self.written(value) + (f" ({self.written(interval[0])}–{self.written(interval[1])})" if interval else "")


def _between(name: str) -> Callable[[Measured], Interval | None]:
    """The interval of a figure of the quality; None where the text is of too few documents for one."""

    def of(system: Measured) -> Interval | None:
        low, high = (getattr(system.quality, f"{name}_{end}") for end in ("low", "high"))
        return None if low is None or high is None else (low, high)

    return of


FIGURES = (
    Figure(
        "perplexity", lambda s: s.quality.perplexity, ".2f", _between("perplexity"),
        chart="perplexity (lower is better)",
    ),
    Figure("against the reference", lambda s: s.quality.ratio, ".3f", _between("ratio"), sign="×", of_reference=False),
    Figure("KL", lambda s: s.quality.kl, ".3f", _between("kl"), of_reference=False),
    Figure("top-1 agreement", lambda s: s.quality.agreement, ".1%", of_reference=False),
    Figure(
        "tokens/s", lambda s: s.speed and s.speed.decode_tokens_per_s, ".0f", lambda s: s.speed and s.speed.decode_range,
        chart="generated tokens/s (more is better)",
    ),
    Figure(
        "prefill, ms", lambda s: s.speed and s.speed.prefill_ms, ".1f", lambda s: s.speed and s.speed.prefill_range,
        chart="prefill of the prompt, ms (less is better)",
    ),
    Figure("parameters", lambda s: s.handle.n_parameters, amount),
    Figure("weights", lambda s: s.handle.n_bytes, gib),
    Figure("attention cache", lambda s: s.speed and s.speed.cache_bytes, gib),
)  # fmt: skip
