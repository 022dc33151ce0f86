"""A span of blocks: what is removed, what it joins, and which block carries the transform. The convention is in `artifacts.py`."""

from dataclasses import dataclass

from replaceme_core.errors import SpanError


@dataclass(frozen=True, order=True)
class Span:
    """Blocks start ... end-1 are removed; boundary `start` is joined to boundary `end`."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def carrier(self) -> int:
        """The block that receives the transform."""
        return self.start - 1

    @property
    def blocks(self) -> range:
        """The removed blocks."""
        return range(self.start, self.end)

    def check(self, n_blocks: int) -> "Span":
        """This span, or a `SpanError` that says which bound it breaks in a model of `n_blocks`."""
        if 1 <= self.start < self.end <= n_blocks:
            return self
        raise SpanError(
            f"Span {self.start}:{self.end} does not fit a model of {n_blocks} blocks: it needs "
            f"1 <= start < end <= {n_blocks}. Block 0 always stays, because the transform is merged into the block before the span."
        )

    def describe(self, n_blocks: int) -> str:
        """What people read, for example 'removes blocks 21-28 of 0-31; carrier: block 20'."""
        removed = f"block {self.start}" if len(self) == 1 else f"blocks {self.start}\u2013{self.end - 1}"
        return f"removes {removed} of 0\u2013{n_blocks - 1}; carrier: block {self.carrier}"

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"
