"""A span of blocks: what is removed, what it joins, and which block carries the transform; and a cut of several spans.

The convention is in `artifacts.py`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Cut:
    """One or several spans, ascending, with at least one block between any two: the carrier of the second."""

    spans: tuple[Span, ...]

    @classmethod
    def parse(cls, text: str) -> "Cut":
        """From '6:9', or from '2:4,6:8' for several spans. Raises `SpanError` for other text."""
        found = [re.fullmatch(r"\s*(\d+):(\d+)\s*", part) for part in text.split(",")]
        if not all(found):
            raise SpanError(f"'{text}' is not a span; write START:END, for example 6:9 for the blocks 6, 7 and 8; or several: 2:4,6:8.")
        return cls.of(Span(int(each[1]), int(each[2])) for each in found if each)

    @classmethod
    def of(cls, spans: Iterable[Span]) -> "Cut":
        """Sorted; spans that touch become one, because nothing is left between them. Raises `SpanError` where they overlap or hold no block."""
        united: list[Span] = []
        for span in sorted(spans):
            if span.start >= span.end:
                raise SpanError(
                    f"The span {span} holds no block; write START:END with START below END, for example 6:9 for the blocks 6, 7 and 8."
                )
            if united and span.start < united[-1].end:
                raise SpanError(f"The spans {united[-1]} and {span} overlap; choose spans that have no block in common.")
            if united and span.start == united[-1].end:
                united[-1] = Span(united[-1].start, span.end)
            else:
                united.append(span)
        if not united:
            raise SpanError("No span was given; a cut needs at least one, for example 6:9.")
        return cls(tuple(united))

    def check(self, n_blocks: int) -> "Cut":
        """This cut, or a `SpanError` for the span that does not fit a model of `n_blocks`."""
        for span in self.spans:
            span.check(n_blocks)
        return self

    def __len__(self) -> int:
        return sum(map(len, self.spans))

    @property
    def blocks(self) -> list[int]:
        """The removed blocks."""
        return [block for span in self.spans for block in span.blocks]

    def kept(self, n_blocks: int) -> list[int]:
        """The blocks that stay."""
        return [block for block in range(n_blocks) if block not in set(self.blocks)]

    def describe(self, n_blocks: int) -> str:
        """For example 'removes blocks 2-3, 6 of 0-11; carriers: blocks 1, 5'."""
        if len(self.spans) == 1:
            return self.spans[0].describe(n_blocks)
        removed = ", ".join(f"{s.start}" if len(s) == 1 else f"{s.start}\u2013{s.end - 1}" for s in self.spans)
        return f"removes blocks {removed} of 0\u2013{n_blocks - 1}; carriers: blocks {', '.join(str(s.carrier) for s in self.spans)}"

    def plain(self) -> dict[str, Any]:
        """The plan's span section that names this cut."""
        first, *others = self.spans
        return {"start": first.start, "end": first.end} | ({"more": [[s.start, s.end] for s in others]} if others else {})

    def __str__(self) -> str:
        return ", ".join(map(str, self.spans))
