"""Streaming fp64 sums over tokens. Nothing here grows with their number.

`DistanceSums` holds the cosine of every pair of boundaries, `MomentSums` the Gram and cross-Gram matrices of every span
asked for, with uniform token weights, with weights 1/|H_end|, or both, each for the train and the held-out part.
Padding must be gone before: every row given here counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from replaceme_core.artifacts import DistanceMatrix, FitMoments, Positions, Span, SpanMoments, StreamLengths, Weighting
from replaceme_core.distribution import Group
from replaceme_core.errors import InputError
from replaceme_core.measurement.gram import add_gram, mirror

WEIGHTINGS: tuple[Weighting, ...] = ("uniform", "end_norm")
_TINY = torch.finfo(torch.float64).tiny
_CHUNK = 2**20
"""values of unit vectors at a time (8 MiB): more would leave the cache"""
_CHUNK_GPU = 2**25
_ROWS = 1024
"""tokens of one product of moments; fewer wait for those of the next batch, so that small batches cost no more than large ones"""


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


class MomentSums:
    """Moments of the chosen spans on the two parts of the calibration set, under the token weights asked for."""

    def __init__(
        self, spans: list[Span], width: int, device: torch.device | str = "cpu", weightings: Sequence[Weighting] = WEIGHTINGS
    ) -> None:
        self._weightings = weightings
        self._ends: dict[int, list[int]] = {}
        for span in sorted(spans):
            self._ends.setdefault(span.start, []).append(span.end)
        self._sums: dict[tuple[int, bool], dict[str, Tensor]] = {}
        self._tokens = {False: 0, True: 0}
        self._waiting: dict[bool, list[_Rows]] = {False: [], True: []}
        self._device = torch.device(device)
        for start, ends in self._ends.items():
            for part in (False, True):
                self._sums[start, part] = _zeros(len(ends), width, device, weightings)

    def update(
        self,
        boundaries: Sequence[Float[Tensor, "tokens width"]],
        writers: Mapping[int, Float[Tensor, "tokens width"]] | Sequence[Float[Tensor, "tokens width"]],
        heldout: Bool[Tensor, " tokens"],
        skipped: Int[Tensor, " skipped"] | None = None,
    ) -> None:
        """Adds one batch of tokens; `heldout` says which of them stay out of the fit, `skipped` which are in neither part.

        Of `writers` only the carriers are read.
        """
        for part in (False, True):
            own = heldout == part
            if skipped is not None:
                own[skipped] = False
            rows = own.nonzero().squeeze(1)
            self._tokens[part] += len(rows)
            while len(rows):
                room = _ROWS - sum(each.n for each in self._waiting[part])
                chunk, rows = rows[:room], rows[room:]
                taken = self._taken(boundaries, writers, chunk)
                full = len(chunk) == room
                self._waiting[part].append(taken if full else taken.copied())
                if full:
                    self._sum_waiting(part)

    def _taken(
        self,
        boundaries: Sequence[Float[Tensor, "tokens width"]],
        writers: Mapping[int, Float[Tensor, "tokens width"]] | Sequence[Float[Tensor, "tokens width"]],
        rows: Int[Tensor, " chosen"],
    ) -> "_Rows":
        """These rows of every state that the sums read; views where they are neighbours."""
        chosen = slice(int(rows[0]), int(rows[-1]) + 1) if int(rows[-1] - rows[0]) == len(rows) - 1 else rows.to(self._device)
        read = sorted({boundary for start, ends in self._ends.items() for boundary in (start, *ends)})
        return _Rows(len(rows), {b: boundaries[b][chosen] for b in read}, {start - 1: writers[start - 1][chosen] for start in self._ends})

    def _sum_waiting(self, part: bool) -> None:
        """Adds the tokens that wait to the sums."""
        if not self._waiting[part]:
            return
        rows, self._waiting[part] = _Rows.together(self._waiting[part]), []
        for start, ends in self._ends.items():
            states = (state.double() for state in (rows.writers[start - 1], *(rows.boundaries[b] for b in (start, *ends))))
            _add(self._sums[start, part], next(states), next(states), states)

    def unite(self, group: Group) -> None:
        """Adds up what all processes have seen."""
        for part in (False, True):
            self._sum_waiting(part)
        for sums in self._sums.values():
            for name, tensor in sums.items():
                sums[name] = tensor.cpu()
                group.add(sums[name])
        counts = torch.tensor([self._tokens[False], self._tokens[True]])
        group.add(counts)
        self._tokens = {False: int(counts[0]), True: int(counts[1])}

    def result(self) -> dict[tuple[Span, Weighting], FitMoments]:
        """The moments of every span and weighting; the uniform Gram of a carrier is one shared tensor."""
        for part in (False, True):
            self._sum_waiting(part)
        for sums in self._sums.values():
            for gram in (gram for weighting in self._weightings for gram in sums[f"{weighting}_gram"]):
                mirror(gram)
        return KeptMoments(
            {
                (Span(start, end), weighting): FitMoments(
                    self._moments(start, index, weighting, False), self._moments(start, index, weighting, True)
                )
                for start, ends in self._ends.items()
                for index, end in enumerate(ends)
                for weighting in self._weightings
            }
        )

    def _moments(self, start: int, index: int, weighting: Weighting, part: bool) -> SpanMoments:
        sums = self._sums[start, part]
        gram = sums[f"{weighting}_gram"][0 if weighting == "uniform" else index]
        cross, energy = sums[f"{weighting}_cross"][index], sums[f"{weighting}_energy"][index]
        return SpanMoments(gram.cpu(), cross.cpu(), float(energy), self._tokens[part])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some tokens' states, where the sums read them."""

    n: int
    boundaries: dict[int, Tensor]
    writers: dict[int, Tensor]

    def copied(self) -> "_Rows":
        """The same without holding on to the batch that they may be a view of."""
        boundaries, writers = ({at: state.clone() for at, state in states.items()} for states in (self.boundaries, self.writers))
        return _Rows(self.n, boundaries, writers)

    @classmethod
    def together(cls, parts: "list[_Rows]") -> "_Rows":
        if len(parts) == 1:
            return parts[0]
        boundaries, writers = (
            {at: torch.cat([states[at] for states in every]) for at in every[0]}
            for every in ([each.boundaries for each in parts], [each.writers for each in parts])
        )
        return cls(sum(each.n for each in parts), boundaries, writers)


class KeptMoments(dict[tuple[Span, Weighting], FitMoments]):
    """Moments by span and weighting; asking for what was not kept is an `InputError` with the way to it."""

    def __missing__(self, key: tuple[Span, Weighting]) -> FitMoments:
        raise InputError(
            f"The calibration pass kept no moments of the span {key[0]} under the token weights '{key[1]}'. Measure again with this span "
            f"and weightings=('uniform', 'end_norm'), or choose a method that reads what was kept: plain least squares and 'drop' "
            "read 'uniform', all others 'end_norm'."
        )


def bytes_of(spans: list[Span], width: int, weightings: Sequence[Weighting] = WEIGHTINGS) -> int:
    """Bytes of the fp64 moments of these spans on two parts: a cross for every span and weighting, a Gram for every span under
    'end_norm' and for every carrier under 'uniform'."""
    grams = {"end_norm": len(spans), "uniform": len({span.start for span in spans})}
    return sum(len(spans) + grams[weighting] for weighting in weightings) * 2 * 8 * width**2


def _zeros(n_ends: int, width: int, device: torch.device | str, weightings: Sequence[Weighting]) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    for weighting in weightings:
        grams = 1 if weighting == "uniform" else n_ends
        shapes |= {f"{weighting}_gram": (grams, width, width), f"{weighting}_cross": (n_ends, width, width)}
        shapes[f"{weighting}_energy"] = (n_ends,)
    return {name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in shapes.items()}


def _units(boundaries: Sequence[Tensor], rows: slice | Tensor) -> tuple[Tensor, Tensor]:
    """These rows of every boundary at length one, [boundaries, rows, width], and their norms; fp64. Zeros stay zero."""
    first = boundaries[0][rows]
    unit = torch.empty(len(boundaries), *first.shape, dtype=torch.float64, device=first.device)
    for index, state in enumerate(boundaries):
        unit[index] = state[rows]
    norms = torch.linalg.vector_norm(unit, dim=-1)
    return unit.mul_((1 / norms.clamp_min(_TINY)).unsqueeze(-1)), norms


def _add(sums: dict[str, Tensor], written: Tensor, start: Tensor, ends: Iterator[Tensor]) -> None:
    """One carrier: M = written [n, d], H_start [n, d], then H_end [n, d] of each of its ends; Z = H_end - H_start + M.

    One end at a time: twice as fast as one batched product, whose operands leave the cache (benchmarks/LOG.md).
    """
    beside = start - written
    if "uniform_gram" in sums:
        add_gram(sums["uniform_gram"][0], written, written)
    for index, end in enumerate(ends):
        target = end - beside
        square = target.square().sum(-1)
        if "uniform_gram" in sums:
            sums["uniform_cross"][index].addmm_(written.T, target)
            sums["uniform_energy"][index] += square.sum()
        if "end_norm_gram" in sums:
            weight = 1 / torch.linalg.vector_norm(end, dim=-1).clamp_min(_TINY)
            weighted = written * weight.unsqueeze(-1)
            add_gram(sums["end_norm_gram"][index], weighted, written)
            sums["end_norm_cross"][index].addmm_(weighted.T, target)
            sums["end_norm_energy"][index] += weight @ square
