"""The points of a sweep: what each one is, what determines it, what was measured of it, and which of them no other beats."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict

from replaceme_core.artifacts import Cut, Measurement, Proof, Span
from replaceme_core.comparison.compare import Divergence
from replaceme_core.comparison.speed_gain import SpeedGain
from replaceme_core.errors import SpanError
from replaceme_core.evaluation.share_kept import ShareKept
from replaceme_core.plans.methods import in_words
from replaceme_core.plans.plan import MethodSection, Structure
from replaceme_core.plans.sweep_section import Sweep, plain_method
from replaceme_core.selection import criteria, spans
from replaceme_core.studies import pareto

Quality = Literal["kl", "kept"]
Against = Literal["depth", "ms"]


@dataclass(frozen=True)
class Planned:
    """One point of the queue."""

    key: str
    """fingerprint of all that determines it: weights, text, cut, method, what is measured"""
    cut: Cut
    method: dict[str, Any]
    """plain method section"""
    named: str
    """'by hand', or what named its place"""

    @property
    def section(self) -> MethodSection:
        return MethodSection.parse(self.method, "the method")

    def __str__(self) -> str:
        return f"{in_words(self.section.label)}, {self.cut}"


@dataclass(frozen=True)
class PointResult:
    """What was measured of one point; `error` is the sentence of one that could not be made, and then the rest is empty."""

    planned: Planned
    error: str = ""
    heldout_error: float | None = None
    """of the fit"""
    original: Divergence | None = None
    quality: Divergence | None = None
    """of the pruned model, on the text that it names"""
    kept: ShareKept | None = None
    speed: SpeedGain | None = None
    n_parameters: int = 0
    disk_bytes: int = 0
    weights: str = ""
    """fingerprint of the pruned model"""
    proofs: tuple[Proof, ...] = ()
    notes: tuple[str, ...] = ()
    seconds_to_fit: float = 0.0
    seconds: float = 0.0
    """in all, without the calibration pass that the points share"""
    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    @property
    def n_removed(self) -> int:
        return len(self.planned.cut)

    @property
    def ms_per_token(self) -> float | None:
        """Of writing one token; see `drift_free_ms` for a figure that compares across points."""
        return None if self.speed is None else 1000 / self.speed.decode.pruned.median


def drift_free_ms(results: Sequence[PointResult]) -> dict[str, tuple[float, float, float]]:
    """By key, milliseconds to write one token with the range over repeats: the ratio to the original, which was timed in turn with
    each point, times the original's median over all points. What the machine did meanwhile cancels."""
    timed = [(result.planned.key, result.speed.decode) for result in results if result.speed is not None]
    if not timed:
        return {}
    base = original_ms(results)
    return {key: (base / pair.ratio.median, base / pair.ratio.high, base / pair.ratio.low) for key, pair in timed}


def original_ms(results: Sequence[PointResult]) -> float:
    """Median over all points of the original's milliseconds per written token."""
    rates = sorted(1000 / result.speed.decode.original.median for result in results if result.speed is not None)
    return (rates[(len(rates) - 1) // 2] + rates[len(rates) // 2]) / 2


def quality_of(result: PointResult, quality: Quality) -> tuple[float, float | None, float | None] | None:
    """The figure with its 95 % interval, if there is one."""
    if quality == "kl":
        return None if result.quality is None else (result.quality.kl, result.quality.kl_low, result.quality.kl_high)
    return None if result.kept is None else (result.kept.share, result.kept.low, result.kept.high)


def front(results: Sequence[PointResult], quality: Quality = "kl", against: Against = "depth") -> set[str]:
    """Keys of the points that no other one beats: none removes as much (or is as fast) at a better quality."""
    times, kept = drift_free_ms(results), []
    for result in results:
        found, time = quality_of(result, quality), times.get(result.planned.key)
        if found is not None and (against == "depth" or time is not None):
            cost = -float(result.n_removed) if time is None or against == "depth" else time[0]
            kept.append((result.planned.key, (cost, found[0] if quality == "kl" else -found[0])))
    marked = pareto.on_front([figures for _, figures in kept])
    return {key for (key, _), best in zip(kept, marked, strict=True) if best}


def most_points(sweep: Sweep, n_blocks: int) -> int:
    """How many points it has at most, before a pass says which places are best (one named by hand may be one of them)."""
    lengths = wanted_lengths(sweep, n_blocks)
    places = sum(min(sweep.cuts.places, n_blocks - length) for length in lengths if length < n_blocks)
    return len(sweep.methods) * (len(set(sweep.cuts.named)) + places)


def wanted_lengths(sweep: Sweep, n_blocks: int) -> list[int]:
    """Lengths in blocks of its shares and lengths, each once."""
    return sorted({spans.length_of_share(n_blocks, share) for share in sweep.cuts.shares} | set(sweep.cuts.lengths))


def plan_points(
    measurement: Measurement | None, sweep: Sweep, n_blocks: int, base: dict[str, Any], structure: Structure = "full"
) -> tuple[list[Planned], list[str]]:
    """The queue, the fewest blocks first and the methods in their order, and notes on what could not be named.

    `measurement` may be None for cuts by hand; `base` is what all points share (see `key_of`).
    """
    named: dict[Cut, str] = dict.fromkeys(sweep.cuts.named, "by hand")
    notes: list[str] = []
    for length in wanted_lengths(sweep, n_blocks):
        assert measurement is not None, "a place is named by a measurement"
        try:
            matrix, note = criteria.rank(measurement, length, sweep.cuts.criterion, structure=structure)
        except SpanError as error:
            notes.append(str(error))
            continue
        notes += [note] if note else []
        for place, (span, _) in enumerate(spans.top(matrix, length, sweep.cuts.places), start=1):
            named.setdefault(Cut((span,)), f"{length} of {n_blocks} blocks, place {place} by {sweep.cuts.criterion}")
    ordered = sorted(named, key=lambda cut: (len(cut), [(span.start, span.end) for span in cut.spans]))
    methods = [plain_method(method) for method in sweep.methods]
    return [Planned(key_of(base, cut, method), cut, method, named[cut]) for cut in ordered for method in methods], notes


def key_of(base: dict[str, Any], cut: Cut, method: dict[str, Any]) -> str:
    return digest(base | {"cut": [[span.start, span.end] for span in cut.spans], "method": method})


def digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def candidate_spans(sweep: Sweep, n_blocks: int) -> list[Span]:
    """Every single span that a point could have: those by hand that fit, and all of the wanted lengths."""
    found = {cut.spans[0] for cut in sweep.cuts.named if len(cut.spans) == 1 and cut.spans[0].end <= n_blocks}
    for length in wanted_lengths(sweep, n_blocks):
        found |= {Span(start, start + length) for start in range(1, n_blocks - length + 1)}
    return sorted(found)
