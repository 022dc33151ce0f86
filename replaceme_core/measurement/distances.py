"""Streaming fp64 sums of the cosine between boundaries. Nothing here grows with the number of tokens.

Padding must be gone before: every row given here counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from replaceme_core.artifacts import DistanceMatrix, Positions, StreamLengths
from replaceme_core.distribution import Group

_TINY = torch.finfo(torch.float64).tiny
_CHUNK = 2**20
"""values of unit vectors at a time (8 MiB): more would leave the cache"""
_CHUNK_GPU = 2**25


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
        self._sums |= {name: torch.zeros(self.n_boundaries, dtype=torch.float64) for name in ("norm", "log_norm", "first")}
        self._largest = torch.zeros(self.n_boundaries, dtype=torch.float64)

    def update(self, boundaries: Sequence[Float[Tensor, "tokens width"]], lengths: list[int]) -> None:
        """Adds one batch; its rows are sequences of these lengths, one after the other."""
        device, stops = boundaries[0].device, list(accumulate(lengths))
        norms, logs, largest = torch.zeros(3, self.n_boundaries, dtype=torch.float64, device=device)
        per_sequence = torch.zeros(len(lengths), self.n_boundaries, self.n_boundaries, dtype=torch.float64, device=device)
        step = max(1, (_CHUNK if device.type == "cpu" else _CHUNK_GPU) // (self.n_boundaries * boundaries[0].shape[1]))
        begin = index = 0
        while begin < stops[-1]:
            end = min(begin + step, stops[-1])
            unit, size = _units(boundaries, slice(begin, end))
            norms += size.sum(1)
            logs += size.clamp_min(_TINY).log().sum(1)
            largest = torch.maximum(largest, size.amax(1))
            row = begin
            while row < end:  # one product for each piece of a sequence in these rows
                until = min(end, stops[index])
                piece = unit[:, row - begin : until - begin].flatten(1)
                per_sequence[index].addmm_(piece, piece.T)
                index, row = index + (until == stops[index]), until
            begin = end
        ends = torch.tensor([stop - (1 if self.summary == "last" else length) for stop, length in zip(stops, lengths, strict=True)])
        final = _units(boundaries, ends.to(device))[0].transpose(0, 1)
        firsts = torch.tensor([stop - length for stop, length in zip(stops, lengths, strict=True)]).to(device)
        first = torch.stack([torch.linalg.vector_norm(state[firsts].double(), dim=-1).sum() for state in boundaries])
        final = final @ final.transpose(1, 2)
        means = per_sequence / torch.tensor(lengths, device=device).view(-1, 1, 1)
        for name, value in (
            ("all", per_sequence.sum(0)),
            ("all_mean", means.sum(0)),
            ("all_square", means.square().sum(0)),
            ("last", final.sum(0)),
            ("last_square", final.square().sum(0)),
            ("norm", norms),
            ("log_norm", logs),
            ("first", first),
        ):
            self._sums[name] += value.cpu()
        self._largest = torch.maximum(self._largest, largest.cpu())
        self.n_tokens += stops[-1]
        self.n_sequences += len(lengths)

    def unite(self, group: Group) -> None:
        """Adds up what all processes have seen."""
        for tensor in self._sums.values():
            group.add(tensor)
        self._largest = torch.stack(group.gather(self._largest)).amax(0)
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
        """Mean over tokens of |H_b|; not finite where a state was not."""
        return self._sums["norm"] / self.n_tokens

    def lengths(self) -> StreamLengths:
        """How long the stream of single tokens is at every boundary."""
        return StreamLengths(
            typical=(self._sums["log_norm"] / self.n_tokens).exp(),
            largest=self._largest.clone(),
            first=self._sums["first"] / max(1, self.n_sequences),
        )


def _units(boundaries: Sequence[Tensor], rows: slice | Tensor) -> tuple[Tensor, Tensor]:
    """These rows of every boundary at length one, [boundaries, rows, width], and their norms; fp64. Zeros stay zero."""
    first = boundaries[0][rows]
    unit = torch.empty(len(boundaries), *first.shape, dtype=torch.float64, device=first.device)
    for index, state in enumerate(boundaries):
        unit[index] = state[rows]
    norms = torch.linalg.vector_norm(unit, dim=-1)
    return unit.mul_((1 / norms.clamp_min(_TINY)).unsqueeze(-1)), norms
