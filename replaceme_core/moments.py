"""Streaming fp64 sums over tokens. Nothing here grows with their number.

`DistanceSums` holds the cosine of every pair of boundaries, `MomentSums` the Gram and cross-Gram matrices of every span
asked for, once with uniform token weights and once with weights 1/|H_end|^2, each for the train and the held-out part.
Padding must be gone before: every row given here counts.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from replaceme_core.artifacts import DistanceMatrix, FitMoments, Positions, Span, SpanMoments, Weighting
from replaceme_core.distribution import Group

WEIGHTINGS: tuple[Weighting, ...] = ("uniform", "end_norm")
_TINY = torch.finfo(torch.float64).tiny
_PAIR_CHUNK = 2**24
"""values of one chunk of per-token boundary pairs (128 MiB)"""


@dataclass(eq=False)
class DistanceSums:
    """Sums of the cosine between boundaries: over tokens, and over sequences for the spread."""

    n_boundaries: int
    summary: Literal["last", "first"] = "last"
    """the row of a sequence that sums it up: its last token, or the CLS token that an image starts with"""
    n_tokens: int = 0
    n_sequences: int = 0
    _sums: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        square = (self.n_boundaries, self.n_boundaries)
        self._sums = {name: torch.zeros(square, dtype=torch.float64) for name in ("all", "all_mean", "all_square", "last", "last_square")}
        self._sums["norm"] = torch.zeros(self.n_boundaries, dtype=torch.float64)

    def update(self, boundaries: Float64[Tensor, "boundaries tokens width"], sequence: Int[Tensor, " tokens"]) -> None:
        """Adds one batch; `sequence` numbers the batch's sequences from 0, ascending along the rows."""
        norms = boundaries.norm(dim=-1)
        unit = (boundaries / norms.clamp_min(_TINY).unsqueeze(-1)).transpose(0, 1)
        counts = torch.bincount(sequence).to(torch.float64)
        last = counts.cumsum(0).long() - (1 if self.summary == "last" else counts.long())
        per_sequence = torch.zeros(len(counts), self.n_boundaries, self.n_boundaries, dtype=torch.float64, device=unit.device)
        step = max(1, _PAIR_CHUNK // self.n_boundaries**2)
        for rows, owner in zip(unit.split(step), sequence.split(step), strict=True):
            per_sequence.index_add_(0, owner, rows @ rows.transpose(1, 2))
        final = unit[last] @ unit[last].transpose(1, 2)
        means = per_sequence / counts.view(-1, 1, 1)
        for name, value in (
            ("all", per_sequence.sum(0)),
            ("all_mean", means.sum(0)),
            ("all_square", means.square().sum(0)),
            ("last", final.sum(0)),
            ("last_square", final.square().sum(0)),
            ("norm", norms.sum(1)),
        ):
            self._sums[name] += value.cpu()
        self.n_tokens += len(sequence)
        self.n_sequences += len(counts)

    def unite(self, group: Group) -> None:
        """Adds up what all processes have seen."""
        for tensor in self._sums.values():
            group.add(tensor)
        counts = torch.tensor([self.n_tokens, self.n_sequences])
        group.add(counts)
        self.n_tokens, self.n_sequences = counts.tolist()

    def matrix(self, positions: Positions) -> DistanceMatrix:
        """The distance matrix over all tokens, or over the one that sums up each sequence (`summary`)."""
        n = self.n_tokens if positions == "all" else self.n_sequences
        values = 1 - self._sums[positions] / n
        total, square = self._sums["all_mean" if positions == "all" else "last"], self._sums[f"{positions}_square"]
        variance = (square - total.square() / self.n_sequences) / max(1, self.n_sequences - 1)
        below = torch.ones_like(values).tril(-1).bool()
        values = values.clamp_min(0).fill_diagonal_(0).masked_fill(below, torch.nan)
        spread = variance.clamp_min(0).sqrt().fill_diagonal_(0).masked_fill(below, torch.nan)
        return DistanceMatrix(values, positions, n, self.n_sequences, spread)

    def norms(self) -> Float64[Tensor, " boundaries"]:
        """Mean over tokens of |H_b|."""
        return self._sums["norm"] / self.n_tokens


class MomentSums:
    """Moments of the chosen spans on the two parts of the calibration set."""

    def __init__(self, spans: list[Span], width: int, device: torch.device | str = "cpu") -> None:
        self._ends: dict[int, list[int]] = {}
        for span in sorted(spans):
            self._ends.setdefault(span.start, []).append(span.end)
        self._sums: dict[tuple[int, bool], dict[str, Tensor]] = {}
        self._tokens = {False: 0, True: 0}
        for start, ends in self._ends.items():
            for part in (False, True):
                self._sums[start, part] = _zeros(len(ends), width, device)

    def update(
        self,
        boundaries: Float64[Tensor, "boundaries tokens width"],
        writers: Float64[Tensor, "blocks tokens width"],
        heldout: Bool[Tensor, " tokens"],
    ) -> None:
        """Adds one batch of tokens; `heldout` says which of them stay out of the fit."""
        for part in (False, True):
            rows = (heldout == part).nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            self._tokens[part] += len(rows)
            stream, written = (boundaries, writers) if len(rows) == len(heldout) else (boundaries[:, rows], writers[:, rows])
            for start, ends in self._ends.items():
                _add(self._sums[start, part], written[start - 1], stream[start], stream[ends])

    def unite(self, group: Group) -> None:
        """Adds up what all processes have seen."""
        for sums in self._sums.values():
            for tensor in sums.values():
                group.add(tensor)
        counts = torch.tensor([self._tokens[False], self._tokens[True]])
        group.add(counts)
        self._tokens = {False: int(counts[0]), True: int(counts[1])}

    def result(self) -> dict[tuple[Span, Weighting], FitMoments]:
        """The moments of every span and weighting; the uniform Gram of a carrier is one shared tensor."""
        return {
            (Span(start, end), weighting): FitMoments(
                self._moments(start, index, weighting, False), self._moments(start, index, weighting, True)
            )
            for start, ends in self._ends.items()
            for index, end in enumerate(ends)
            for weighting in WEIGHTINGS
        }

    def _moments(self, start: int, index: int, weighting: Weighting, part: bool) -> SpanMoments:
        sums = self._sums[start, part]
        gram = sums["gram"] if weighting == "uniform" else sums["end_norm_gram"][index]
        cross, energy = sums[f"{weighting}_cross"][index], sums[f"{weighting}_energy"][index]
        return SpanMoments(gram.cpu(), cross.cpu(), float(energy), self._tokens[part])


def bytes_of(spans: list[Span], width: int) -> int:
    """Bytes that the moments of these spans take on two parts: three fp64 matrices each, and one more for every carrier."""
    return (3 * len(spans) + len({span.start for span in spans})) * 2 * 8 * width**2


def _zeros(n_ends: int, width: int, device: torch.device | str) -> dict[str, Tensor]:
    shapes = {"gram": (width, width), "uniform_energy": (n_ends,), "end_norm_energy": (n_ends,)}
    shapes |= dict.fromkeys(("uniform_cross", "end_norm_gram", "end_norm_cross"), (n_ends, width, width))
    return {name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in shapes.items()}


def _add(sums: dict[str, Tensor], written: Tensor, start: Tensor, ends: Tensor) -> None:
    """One carrier: M = written [n, d], H_start [n, d], H_end [ends, n, d]; Z = H_end - H_start + M.

    One end at a time: twice as fast as one batched product, whose operands leave the cache (benchmarks/LOG.md).
    """
    beside = start - written
    sums["gram"].addmm_(written.T, written)
    for index, end in enumerate(ends):
        target = end - beside
        weight = 1 / end.square().sum(-1).clamp_min(_TINY)
        square = target.square().sum(-1)
        weighted = (written * weight.unsqueeze(-1)).T
        sums["uniform_cross"][index].addmm_(written.T, target)
        sums["uniform_energy"][index] += square.sum()
        sums["end_norm_gram"][index].addmm_(weighted, written)
        sums["end_norm_cross"][index].addmm_(weighted, target)
        sums["end_norm_energy"][index] += weight @ square
