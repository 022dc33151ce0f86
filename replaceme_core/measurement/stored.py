"""Moments of any span and samples of tokens, read from the activation store when they are asked for.

The first time costs a small part of the pass (three points are read), after that they are in a small cache. In a group of processes
each reads its own tokens and the sums are added: all processes ask for the same, in the same order.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from replaceme_core.artifacts import FitMoments, Moments, Span, TokenSample, Weighting
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.distribution import ALONE, Group
from replaceme_core.errors import InputError
from replaceme_core.measurement.activation_store import ActivationStore
from replaceme_core.measurement.moments import WEIGHTINGS, MomentSums

SAMPLE_TOKENS, TRAIN_TOKENS = 2048, 8192
"""held-out and train tokens that are looked at one by one"""
_ROWS = 4096
"""tokens that are read at a time"""
_CACHE_BYTES = 2**30
"""moments that stay in memory; the last one always does"""
_POINTS = 6
"""points of a sample that stay in memory"""


class StoredMoments(Moments):
    """Moments by span and weighting of every span whose points the store holds, fp64, summed on `device`."""

    def __init__(self, store: ActivationStore, device: torch.device, group: Group = ALONE) -> None:
        self._store, self._device, self._group = store, device, group
        self._spans = frozenset(store.layout.spans)
        self._cache: dict[tuple[Span, Weighting], FitMoments] = {}
        self._lock = threading.RLock()

    def __getitem__(self, key: tuple[Span, Weighting]) -> FitMoments:
        with self._lock:
            found = self._cache.pop(key, None)
            if found is None:
                span, weighting = key
                if span not in self._spans:
                    raise InputError(
                        f"The calibration pass did not store what a fit of the span {span} reads; measure again with this span."
                    )
                found = self._sums([span], weighting)[key]
            while self._cache and 8 * 4 * found.train.width**2 * (len(self._cache) + 1) > _CACHE_BYTES:
                self._cache.pop(next(iter(self._cache)))
            self._cache[key] = found
            return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and len(key) == 2 and key[0] in self._spans and key[1] in WEIGHTINGS

    def __iter__(self) -> Iterator[tuple[Span, Weighting]]:
        return ((span, weighting) for span in sorted(self._spans) for weighting in WEIGHTINGS)

    def __len__(self) -> int:
        return len(self._spans) * len(WEIGHTINGS)

    def of_many(self, spans: Sequence[Span], weighting: Weighting) -> Iterator[tuple[Span, FitMoments]]:
        """The moments of many spans, in the order of their starts: what spans of one carrier share is read and summed once. None are kept."""
        by_start: dict[int, list[Span]] = {}
        for span in sorted(spans):
            by_start.setdefault(span.start, []).append(span)
        at_once = max(1, _CACHE_BYTES // (8 * 4 * self._store.layout.width**2))
        for own in by_start.values():
            for first in range(0, len(own), at_once):
                sums = self._sums(own[first : first + at_once], weighting)
                yield from ((span, sums[span, weighting]) for span in own[first : first + at_once])

    def _sums(self, spans: list[Span], weighting: Weighting) -> Mapping[tuple[Span, Weighting], FitMoments]:
        store, rows = self._store, self._store.rows
        sums = MomentSums(spans, store.layout.width, self._device, [weighting])
        boundaries, carriers = sorted({at for span in spans for at in (span.start, span.end)}), sorted({span.carrier for span in spans})
        for start in range(0, len(rows), _ROWS):
            stop = min(start + _ROWS, len(rows))
            sums.update(
                {at: store.boundary(at, start, stop).to(self._device) for at in boundaries},
                {block: store.writer(block, start, stop).to(self._device) for block in carriers},
                rows.heldout[start:stop],
                rows.counted[start:stop],
            )
        if self._group.size > 1:
            sums.unite(self._group)
        return sums.result()


class StoredPoints(Mapping[int, Tensor]):
    """Some tokens at one kind of point, by its number: [tokens, width], float32 on the CPU, read when they are asked for."""

    def __init__(
        self, numbers: Sequence[int], rows: Int64[Tensor, " rows"], read: Callable[[int, Tensor], Tensor], group: Group = ALONE
    ) -> None:
        self._numbers, self._rows, self._read, self._group = tuple(numbers), rows, read, group
        self._cache: dict[int, Tensor] = {}
        self._lock = threading.RLock()

    def __getitem__(self, number: int) -> Tensor:
        with self._lock:
            found = self._cache.pop(number, None)
            if found is None:
                found = torch.cat(self._group.gather(self._read(number, self._rows).float()))
            while len(self._cache) >= _POINTS:
                self._cache.pop(next(iter(self._cache)))
            self._cache[number] = found
            return found

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def token_sample(store: ActivationStore, calibration: CalibrationSet, heldout: bool, group: Group = ALONE) -> TokenSample:
    """A fixed random choice among the tokens of one part, for what looks at tokens one by one."""
    rows = store.rows
    chosen = picked(calibration, heldout)
    starts = torch.tensor([0, *calibration.lengths[:-1]]).cumsum(0)
    own = chosen[starts[rows.sequence] + rows.position].nonzero().squeeze(1)
    origin = torch.stack([rows.sequence[own], rows.position[own]], 1)
    return TokenSample(
        StoredPoints(store.layout.boundaries, own, store.boundary_at, group),
        StoredPoints(store.layout.writers, own, store.writer_at, group),
        torch.cat(group.gather(origin)),
    )


def picked(calibration: CalibrationSet, heldout: bool) -> Tensor:
    """For every token of the set, in its order, whether it is in the sample of a part: drawn evenly, 2,048 held-out or 8,192 train tokens."""
    limit = SAMPLE_TOKENS if heldout else TRAIN_TOKENS
    lengths = torch.tensor(calibration.lengths)
    of_part = (torch.tensor(calibration.heldout) == heldout).repeat_interleave(lengths).nonzero().squeeze(1)
    chosen = torch.zeros(int(lengths.sum()), dtype=torch.bool)
    chosen[of_part[torch.randperm(len(of_part), generator=torch.Generator().manual_seed(0))[:limit]]] = True
    if calibration.skip_first:
        chosen[lengths.cumsum(0) - lengths] = False
    return chosen
