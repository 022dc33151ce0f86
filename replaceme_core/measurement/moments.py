"""fp64 sums over tokens: the Gram and cross-Gram matrices that a fit reads. Nothing here grows with the number of tokens.

`MomentSums` holds those of every span asked for, with uniform token weights, with weights 1/|H_end|, or both, each for the train and
the held-out part. Padding must be gone before: every row given here counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from replaceme_core.artifacts import FitMoments, Moments, Span, SpanMoments, Weighting
from replaceme_core.distribution import Group
from replaceme_core.errors import InputError
from replaceme_core.measurement.gram import add_gram, mirror

WEIGHTINGS: tuple[Weighting, ...] = ("uniform", "end_norm")
_TINY = torch.finfo(torch.float64).tiny
_ROWS = 1024
"""tokens of one product: more would leave the cache"""


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
        self._device = torch.device(device)
        for start, ends in self._ends.items():
            for part in (False, True):
                self._sums[start, part] = _zeros(len(ends), width, device, weightings)

    def update(
        self,
        boundaries: Mapping[int, Float[Tensor, "tokens width"]] | Sequence[Float[Tensor, "tokens width"]],
        writers: Mapping[int, Float[Tensor, "tokens width"]] | Sequence[Float[Tensor, "tokens width"]],
        heldout: Bool[Tensor, " tokens"],
        counted: Bool[Tensor, " tokens"] | None = None,
    ) -> None:
        """Adds some tokens; `heldout` says which of them stay out of the fit, `counted` which are in either part (None: all of them).

        Of `boundaries` only the ends of the spans are read, of `writers` only their carriers.
        """
        for part in (False, True):
            own = heldout == part
            if counted is not None:
                own = own & counted
            rows = own.nonzero().squeeze(1)
            self._tokens[part] += len(rows)
            for chunk in rows.split(_ROWS) if len(rows) else ():
                self._sum(boundaries, writers, chunk, part)

    def _sum(self, boundaries: Any, writers: Any, rows: Int[Tensor, " chosen"], part: bool) -> None:
        """Adds these rows of every state that the sums read; views where they are neighbours."""
        chosen = slice(int(rows[0]), int(rows[-1]) + 1) if int(rows[-1] - rows[0]) == len(rows) - 1 else rows
        for start, ends in self._ends.items():
            points = (writers[start - 1], *(boundaries[at] for at in (start, *ends)))
            states = (point[chosen if isinstance(chosen, slice) else chosen.to(point.device)].to(self._device).double() for point in points)
            _add(self._sums[start, part], next(states), next(states), states)

    def unite(self, group: Group) -> None:
        """Adds up what all processes have seen."""
        for sums in self._sums.values():
            for name, tensor in sums.items():
                sums[name] = tensor.cpu()
                group.add(sums[name])
        counts = torch.tensor([self._tokens[False], self._tokens[True]])
        group.add(counts)
        self._tokens = {False: int(counts[0]), True: int(counts[1])}

    def result(self) -> "HeldMoments":
        """The moments of every span and weighting; the uniform Gram of a carrier is one shared tensor."""
        for sums in self._sums.values():
            for gram in (gram for weighting in self._weightings for gram in sums[f"{weighting}_gram"]):
                mirror(gram)
        return HeldMoments(
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


class HeldMoments(dict[tuple[Span, Weighting], FitMoments], Moments):
    """Moments by span and weighting that are in memory; asking for others is an `InputError` that says why there are none."""

    def __init__(self, found: Mapping[tuple[Span, Weighting], FitMoments] | None = None, why: str = "") -> None:
        super().__init__(found or {})
        self._why = why

    def __missing__(self, key: tuple[Span, Weighting]) -> FitMoments:
        raise InputError(
            self._why
            or f"There are no moments of the span {key[0]} under the token weights '{key[1]}': the calibration pass was made for its "
            "distances, or for other spans. Measure again with this span."
        )


def _zeros(n_ends: int, width: int, device: torch.device | str, weightings: Sequence[Weighting]) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    for weighting in weightings:
        grams = 1 if weighting == "uniform" else n_ends
        shapes |= {f"{weighting}_gram": (grams, width, width), f"{weighting}_cross": (n_ends, width, width)}
        shapes[f"{weighting}_energy"] = (n_ends,)
    return {name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in shapes.items()}


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
