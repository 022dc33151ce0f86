"""The activation store: what the model did with every token of a calibration set, on disk, so that any span can be fitted after one pass.

One file holds the residual stream at every boundary and M of every carrier, point after point, token after token, in the model's dtype.
It is written and read a few rows at a time and never mapped, so that memory does not grow with it.
"""

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from replaceme_core.artifacts import Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError

_AT_ONCE = 4096
"""rows that are read at a time where some of many are taken"""


@dataclass(frozen=True)
class Layout:
    """Which points a store holds, and of how many tokens."""

    boundaries: tuple[int, ...]
    writers: tuple[int, ...]
    """blocks of which M is kept: the carriers"""
    width: int
    dtype: str
    """the model's, as torch names it"""
    n_rows: int
    """room for so many tokens"""

    @classmethod
    def of(
        cls, n_blocks: int, width: int, dtype: str, n_rows: int, spans: Iterable[Span] | None = None, further: Iterable[int] = ()
    ) -> "Layout":
        """The points that `spans` read, None: every boundary and every carrier; and `further` boundaries."""
        chosen = None if spans is None else list(spans)
        read = {at for span in chosen or () for at in (span.start, span.end)}
        boundaries = range(n_blocks + 1) if chosen is None else sorted({*read, *further})
        writers = range(n_blocks - 1) if chosen is None else sorted({span.carrier for span in chosen})
        return cls(tuple(boundaries), tuple(writers), width, dtype, n_rows)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> "Layout":
        """From what `asdict` made of one. Raises `KeyError` or `TypeError`."""
        return cls(tuple(data["boundaries"]), tuple(data["writers"]), data["width"], data["dtype"], data["n_rows"])

    @property
    def row_bytes(self) -> int:
        """Bytes of one token at one point."""
        itemsize: int = getattr(torch, self.dtype).itemsize
        return self.width * itemsize

    @property
    def n_bytes(self) -> int:
        return (len(self.boundaries) + len(self.writers)) * self.n_rows * self.row_bytes

    @property
    def spans(self) -> list[Span]:
        """Those whose three points are held."""
        starts = [block + 1 for block in self.writers if block + 1 in self.boundaries]
        return [Span(start, end) for start in starts for end in self.boundaries if end > start]

    def holds(self, other: "Layout") -> bool:
        """Whether every point of the other one is here."""
        return set(other.boundaries) <= set(self.boundaries) and set(other.writers) <= set(self.writers)

    def place_of(self, point: int) -> int:
        """Where a point begins in the file, in bytes; boundaries come first."""
        return point * self.n_rows * self.row_bytes


@dataclass(frozen=True, eq=False)
class Rows:
    """Which token of the calibration set each row is, in the order in which the pass read them."""

    order: tuple[int, ...]
    """the sequences"""
    sequence: Int64[Tensor, " rows"]
    position: Int64[Tensor, " rows"]
    heldout: Bool[Tensor, " rows"]
    counted: Bool[Tensor, " rows"]
    """false for first tokens that the calibration set leaves out of fits"""
    place: Mapping[int, tuple[int, int]]
    """by sequence: its first row and its length"""

    @classmethod
    def of(cls, calibration: CalibrationSet, order: Sequence[int]) -> "Rows":
        lengths = torch.tensor([calibration.lengths[number] for number in order], dtype=torch.long)
        sequence = torch.tensor(order, dtype=torch.long).repeat_interleave(lengths)
        position = torch.arange(len(sequence)) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        heldout = torch.tensor(calibration.heldout)[sequence]
        counted = position > 0 if calibration.skip_first else torch.ones_like(heldout)
        starts = (lengths.cumsum(0) - lengths).tolist()
        place = {number: (start, length) for number, start, length in zip(order, starts, lengths.tolist(), strict=True)}
        return cls(tuple(order), sequence, position, heldout, counted, place)

    def __len__(self) -> int:
        return len(self.sequence)


class Writer:
    """Writes a store batch by batch. Raises `OSError` where the disk is full."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file, self._layout, self._n_rows = file, layout, 0

    def add(self, boundaries: Sequence[Float[Tensor, "tokens width"]], writers: Mapping[int, Float[Tensor, "tokens width"]]) -> None:
        """The states of one batch, padding dropped, in the model's dtype."""
        points = [*(boundaries[at] for at in self._layout.boundaries), *(writers[block] for block in self._layout.writers)]
        for point, state in enumerate(points):
            data = _bytes_of(state.to(getattr(torch, self._layout.dtype)).cpu().contiguous())
            _write(self._file.fileno(), data, self._layout.place_of(point) + self._n_rows * self._layout.row_bytes)
        self._n_rows += len(boundaries[0])


class ActivationStore:
    """A store that was written. Threads may read it at the same time; it stays readable when its file has been removed."""

    def __init__(self, file: BinaryIO, layout: Layout, rows: Rows, key: str) -> None:
        """`key`: of the model and the calibration set that it is of (see past_passes); empty for a pass that is nobody else's."""
        self._file, self.layout, self.rows, self.key = file, layout, rows, key
        weakref.finalize(self, file.close)

    def boundary(self, number: int, start: int, stop: int) -> Float[Tensor, "rows width"]:
        """Rows `start` to `stop` of the residual stream at a boundary, on the CPU. Raises `InputError` for one that is not held."""
        return self._read(_index(self.layout.boundaries, number, "boundary"), start, stop)

    def writer(self, block: int, start: int, stop: int) -> Float[Tensor, "rows width"]:
        """The same rows of M of a block."""
        return self._read(len(self.layout.boundaries) + _index(self.layout.writers, block, "the output projection of block"), start, stop)

    def sequences_at(self, number: int, sequences: Sequence[int], length: int) -> Float[Tensor, "batch length width"]:
        """The residual stream of whole sequences at a boundary, padded on the right with zeros."""
        point = _index(self.layout.boundaries, number, "boundary")
        found = torch.zeros(len(sequences), length, self.layout.width, dtype=getattr(torch, self.layout.dtype))
        for row, sequence in zip(found, sequences, strict=True):
            start, n_rows = self.rows.place[sequence]
            row[:n_rows] = self._read(point, start, start + n_rows)
        return found

    def boundary_at(self, number: int, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """Some rows of a boundary, by ascending number."""
        return self._taken(_index(self.layout.boundaries, number, "boundary"), rows)

    def writer_at(self, block: int, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """The same rows of M of a block."""
        return self._taken(len(self.layout.boundaries) + _index(self.layout.writers, block, "the output projection of block"), rows)

    def _taken(self, point: int, rows: Int64[Tensor, " rows"]) -> Tensor:
        found = torch.empty(len(rows), self.layout.width, dtype=getattr(torch, self.layout.dtype))
        for start in range(0, len(self.rows), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(self.rows))
            low, high = torch.searchsorted(rows, torch.tensor([start, stop])).tolist()
            if low < high:
                found[low:high] = self._read(point, start, stop)[rows[low:high] - start]
        return found

    def _read(self, point: int, start: int, stop: int) -> Tensor:
        found = torch.empty(stop - start, self.layout.width, dtype=getattr(torch, self.layout.dtype))
        _read(self._file.fileno(), _bytes_of(found), self.layout.place_of(point) + start * self.layout.row_bytes)
        return found


def _index(held: tuple[int, ...], number: int, what: str) -> int:
    if number not in held:
        raise InputError(
            f"The calibration pass stored its tokens at {', '.join(map(str, held)) or 'no place'} only, and not at {what} {number}. "
            "Measure again with the span that is asked for."
        )
    return held.index(number)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a tensor, whatever its dtype."""
    return tensor.view(torch.uint8).numpy().reshape(-1).data


def _write(file: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(file, data, place)
        data, place = data[written:], place + written


def _read(file: int, data: memoryview, place: int) -> None:
    while data:
        n_read = os.preadv(file, [data], place)
        if not n_read:
            raise InputError("The activation store ends before its last token; clear the cache folder (REPLACEME_CACHE) and measure again.")
        data, place = data[n_read:], place + n_read
