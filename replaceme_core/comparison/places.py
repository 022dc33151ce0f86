"""Where the blocks can go, by what was measured: the places of one length side by side, the first of them, and whether the text can tell.

found = measured(tails, spans, fit)
choice(found).sentence
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.artifacts import Cut, DistanceMatrix, LinearTransform, Span
from replaceme_core.comparison import compare
from replaceme_core.comparison.intervals import bracketed, interval
from replaceme_core.comparison.tails import Tail, Tails
from replaceme_core.errors import NumericsError
from replaceme_core.progress import SILENT, Portion, Progress

TOKENS, LENGTH = 640, 64
"""of the held-out part, and of each sequence: ten of them, as many as an interval takes"""
AT_ONCE = 2
"""spans that are measured in one go"""
_SAID = ("places", "measured KL")


@dataclass(frozen=True)
class Choice:
    """The place that is suggested among those of one length, and the one to set beside it."""

    best: Tail
    second: Tail | None
    """the next by measured KL; or the least, where `best` stands although another measured less"""
    low: float | None
    high: float | None
    """95 % of what the second costs more, paired over the same text; None where the text is too short for an interval, or there is no second"""
    n_places: int
    stands: bool = False
    """whether `best` comes first by distance and another was measured to cost less, but not clearly so"""

    @property
    def is_clear(self) -> bool:
        """Whether the text can tell the first two apart."""
        return self.low is not None and self.low > 0

    @property
    def sentence(self) -> str:
        """For example 'blocks 12-19: KL 0.83 [0.75, 0.92] on 630 held-out tokens of ..., the least of 22 places; ...'."""
        quality = self.best.quality
        said = f"{_words(self.best.span)}: KL {bracketed(quality.kl, quality.kl_low, quality.kl_high, '.3f')} on {quality.measured_on}"
        if self.second is None:
            return f"{said}. There is no other place of this length."
        more = self.second.quality.kl - quality.kl
        if self.stands:
            less = bracketed(-more, None if self.high is None else -self.high, None if self.low is None else -self.low, ".3f")
            return (
                f"{said}, the first of {self.n_places} places by distance. {_words(self.second.span).capitalize()} measured {less} less, which may be "
                "chance among so many, so that the distance decides."
            )
        said = f"{said}, the least of {self.n_places} places. Next: {_words(self.second.span)}, {bracketed(more, self.low, self.high, '.3f')} more"
        return f"{said}." if self.is_clear else f"{said}, which this text cannot tell apart."


def measured(
    tails: Tails, spans: Sequence[Span], fit: Callable[[Span], LinearTransform] | None = None, progress: Progress = SILENT
) -> list[Tail | NumericsError]:
    """Every span with what `fit` makes of it in its place, or (None) with nothing, in the order of the spans.

    The error of a fit or of a model that is not finite stands in its place.
    """
    found: list[Tail | NumericsError] = []
    for begin in range(0, len(spans), AT_ONCE):
        group: list[LinearTransform | NumericsError] = []
        for span in spans[begin : begin + AT_ONCE]:
            progress.update(begin, len(spans), *_SAID)
            try:
                group.append(LinearTransform.removal(Cut((span,))) if fit is None else fit(span))
            except NumericsError as error:
                group.append(error)
        asked = [each for each in group if isinstance(each, LinearTransform)]
        own = iter(tails.measure(asked, Portion(progress, begin, len(group), len(spans), *_SAID)) if asked else ())
        found += [next(own) if isinstance(each, LinearTransform) else each for each in group]
    progress.update(len(spans), len(spans), *_SAID)
    return found


def matrix(found: Iterable[Tail], n_blocks: int) -> DistanceMatrix:
    """KL by span, NaN where there is none; `spread` is the standard deviation over sequences of the sequence's own mean."""
    values: Float64[Tensor, "boundaries boundaries"] = torch.full((n_blocks + 1,) * 2, torch.nan, dtype=torch.float64)
    spread, n_tokens, n_sequences = values.clone(), 0, 0
    for tail in found:
        at = (tail.span.start, tail.span.end)
        values[at], spread[at] = tail.quality.kl, (tail.sums / tail.counts.clamp_min(1)).std()
        n_tokens, n_sequences = tail.quality.n_tokens, tail.quality.n_sequences
    return DistanceMatrix(values, "all", n_tokens, n_sequences, spread, "measured_kl")


def undecided(found: Sequence[Tail]) -> set[Span]:
    """The places that the text cannot tell from the first one: their difference over the same text may be 0."""
    if not found:
        return set()
    best = min(found, key=lambda tail: tail.quality.kl)
    return {tail.span for tail in found if tail is not best and not (_more(best, tail)[0] or 0) > 0}


def _more(best: Tail, other: Tail, level: float = 0.95) -> tuple[float | None, float | None]:
    """What the other one costs more, paired."""
    groups, _ = compare.independent(best.text)
    return interval(groups @ (other.sums - best.sums), groups @ best.counts, level)


def choice(found: Sequence[Tail], standing: Span | None = None) -> Choice:
    """The first by KL. All are of one length and of one text; the interval is over its documents, as those of `compare` are.

    A `standing` place, the first by distance, is left only for one that clearly costs less: on a few hundred tokens the least of many is
    worse than the distance's first on one model, and the same on another (benchmarks/LOG.md). Clearly: the paired interval at 95 % for
    all comparisons together (Bonferroni) excludes 0.
    """
    best, *others = sorted(found, key=lambda tail: tail.quality.kl)
    first = next((tail for tail in others if tail.span == standing), None)
    if first is not None and not (_more(best, first, 1 - 0.05 / len(others))[0] or 0) > 0:
        return Choice(first, best, *_more(first, best), len(found), stands=True)
    if not others:
        return Choice(best, None, None, None, 1)
    second = others[0]
    return Choice(best, second, *_more(best, second), len(found))


def _words(span: Span) -> str:
    return f"blocks {span.start}\u2013{span.end - 1}" if len(span) > 1 else f"block {span.start}"
