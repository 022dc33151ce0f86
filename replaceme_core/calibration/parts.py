"""Train, held-out and test: what is fitted on, what chooses, and what only a comparison reads.

A figure is worth something on text that nothing has read before. So the text is split by its rows (documents), copies together, and
no document stands on two sides. Where whole rows cannot make parts of about the size asked for (one book, three long texts), each row
that is longer than a sequence gives its tail instead, with a gap before it, so that no context reaches across.

Chats begin alike, with the header of their template: a text of short beginnings would be little else. So what many rows begin with is
read and not scored, and comes on top of the tokens that were asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

Part = Literal["train", "held-out", "test", "given"]
"""given: a text that somebody names for a comparison; whether a fit has read it is not known"""
SEQUENCES = 30
"""that a test part has at least, if the text is long enough: an interval from fewer says little"""
SHORTEST = 32
"""tokens of a sequence to which a comparison shortens its text in order to have as many"""
HEADER = 4
"""tokens that rows begin with alike, from which on they are what a template puts there"""
MANY = 0.1
"""share of the rows that begin alike, from which on it is no chance"""
TEST_SHARE = 0.2
"""of a text that is too short for everything, at most this goes to the test part"""
GAP_SHARE = 0.05
"""of a row, but never more than one sequence: what is left out before its tail"""


@dataclass(frozen=True, eq=False)
class TextPart:
    """Text to measure on, in sequences, with what must be said of every figure on it."""

    part: Part
    name: str
    """of the text"""
    sequences: list[Int64[Tensor, " tokens"]]
    documents: list[int]
    """of which row each sequence is a piece; sequences of one row are no independent samples"""
    openings: list[int] = field(default_factory=list)
    """tokens at the beginning of each sequence that are read and not scored; empty: the first, which nothing predicts"""

    @classmethod
    def of(cls, part: Part, name: str, rows: Sequence[Tensor], n_tokens: int, length: int | None = None) -> "TextPart":
        """About `n_tokens` of these rows, in sequences of `length`, or (None) short enough that there are 30 of them or more.

        The beginnings of all rows come first, then what follows them, so that few tokens still are of many rows. What rows begin with alike
        is counted neither among the tokens nor in the lengths.
        """
        alike = [own - 1 for own in openings_of(rows)]
        length = length or _length(min(n_tokens, sum(map(len, rows)) - sum(alike)))
        pieces = [
            [piece for at, piece in enumerate(row[own:].split(length)) if not at or len(piece) >= SHORTEST // 2]
            for row, own in zip(rows, alike, strict=True)
        ]
        chosen, documents, openings, left = [], [], [], n_tokens
        for turn in range(max(map(len, pieces), default=0)):
            for number, own in enumerate(pieces):
                taken = _fitting(len(own[turn]), left, length) if turn < len(own) else 0
                if taken:
                    chosen.append(own[turn][:taken] if turn else rows[number][: alike[number] + taken])
                    documents.append(number)
                    openings.append(1 if turn else 1 + alike[number])
                    left -= taken
        return cls(part, name, chosen, documents, openings)

    @classmethod
    def given(cls, sequences: Sequence[Tensor], name: str = "the text given") -> "TextPart":
        """Sequences of somebody's own, each a document."""
        return cls("given", name, list(sequences), list(range(len(sequences))))

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.sequences))

    @property
    def n_counted(self) -> int:
        """Tokens without the openings that come on top: about as many as were asked for."""
        return self.n_tokens - sum(first - 1 for first in self.first_scored)

    @property
    def first_scored(self) -> list[int]:
        """Of each sequence, the place of the first token whose probability counts."""
        return self.openings or [1] * len(self.sequences)

    @property
    def n_scored(self) -> Float64[Tensor, " sequences"]:
        """Tokens of each sequence whose probability counts."""
        pairs = zip(self.sequences, self.first_scored, strict=True)
        return torch.tensor([max(0, len(sequence) - first) for sequence, first in pairs], dtype=torch.float64)

    def __str__(self) -> str:
        return self.name if self.part == "given" else f"{self.part} part of {self.name}"


@dataclass(frozen=True, eq=False)
class Split:
    """One source in its parts."""

    sequences: list[Tensor]
    """train and held-out, in an order of which every beginning is a fair sample"""
    heldout: list[bool]
    test: list[Tensor]
    """rows, uncut but for their length"""


def split(rows: Iterator[Tensor], budget: int, test_tokens: int, longest: int, holdout: float, generator: torch.Generator) -> Split:
    """`budget` tokens of shuffled rows for train and held-out, and of the rows behind them about `test_tokens` that nothing else reads.

    Where the text ends too early for that, a fifth of it at most is the test part.
    """
    first, used = _up_to(rows, budget, longest)
    test, further, enough = beginnings(rows, test_tokens, used, max(openings_of(used), default=1) - 1)
    if not enough and len(test) < SEQUENCES:
        every = used + further
        sizes = list(map(len, every))
        kept, test = _set_aside(every, sizes, min(test_tokens, round(TEST_SHARE * sum(sizes))), longest, 2, generator)
        first, _ = _up_to(iter(kept), budget, longest)
    sizes = [len(_pieces(row, longest)) for row in first]
    kept, aside = _set_aside(first, sizes, max(1, round(holdout * sum(sizes))), longest, 1, generator)
    found = [
        (piece, out)
        for pair in zip(kept, aside, strict=True)
        for row, out in zip(pair, (False, True), strict=True)
        for piece in _pieces(row, longest)
    ]
    if max(sizes, default=0) > 1:  # the pieces of one row are no fair sample of the text
        found = [found[at] for at in torch.randperm(len(found), generator=generator).tolist()]
    return Split([piece for piece, _ in found], [out for _, out in found], [row for row in test if len(row) > 1])


def openings_of(rows: Sequence[Tensor]) -> list[int]:
    """Of each row, the tokens that it begins with like many others, such as the header of a chat template; else one, which nothing predicts.

    Many: a tenth of the rows, but three at least where there are as many; they have `HEADER` tokens in common. One of two sources may have a
    header.
    """
    groups = _groups([row[:HEADER].numpy().tobytes() for row in rows])
    found = [1] * len(rows)
    for group in groups:
        different = {rows[number].numpy().tobytes(): rows[number] for number in group}
        if len(different) > 1 and len(group) >= max(MANY * len(rows), min(3, len(rows))):
            first, *others = different.values()
            alike = min(_alike(first, other) for other in others)
            for number in group:
                found[number] = alike if alike >= HEADER else 1
    return found


def _alike(one: Tensor, other: Tensor) -> int:
    """Tokens that two rows share from their beginning on, one less than all of a row: something is to be scored."""
    n = min(len(one), len(other))
    differs = (one[:n] != other[:n]).nonzero()
    return int(differs[0]) if len(differs) else max(0, n - 1)


def beginnings(
    rows: Iterator[Tensor], n_tokens: int, seen: Sequence[Tensor] = (), header: int = 0
) -> tuple[list[Tensor], list[Tensor], bool]:
    """The beginnings of further rows, about `n_tokens` together, of as many rows as make 30 sequences; no copies of one `seen`.

    Also these rows in full, and whether there were enough of them. `header` tokens of each beginning come on top and are not counted.
    """
    known = {row.numpy().tobytes() for row in seen}
    length, left = _length(n_tokens), n_tokens
    found: list[Tensor] = []
    whole: list[Tensor] = []
    while left > 1:
        row = next(rows, None)
        if row is None:
            return found, whole, False
        whole.append(row)
        if len(row) > 1 and row.numpy().tobytes() not in known:
            known.add(row.numpy().tobytes())
            found.append(row[: header + length])
            left -= max(1, len(found[-1]) - header)
    return found, whole, True


def blended(sources: Sequence[Sequence[Tensor]]) -> list[tuple[int, int]]:
    """(source, place in it) of all sequences, mixed so that every beginning holds the sources in proportion to their tokens."""
    totals = [max(1, sum(map(len, source))) for source in sources]
    done, places, order = [0] * len(sources), [0] * len(sources), []
    for _ in range(sum(map(len, sources))):
        open_ = [number for number, source in enumerate(sources) if places[number] < len(source)]
        least = min(open_, key=lambda number: (done[number] + len(sources[number][places[number]]) / 2) / totals[number])
        order.append((least, places[least]))
        done[least] += len(sources[least][places[least]])
        places[least] += 1
    return order


def hold_out(keys: Sequence[bytes], share: float, generator: torch.Generator) -> list[bool]:
    """Which of these items are held out: at least `share` of them, at least one, never all; copies (equal keys) stay together.

    Where all are copies of one, they do not.
    """
    groups = _groups(keys)
    chosen = _whole(
        groups if len(groups) > 1 else [[number] for number in groups[0]],
        [1] * len(keys),
        max(1, round(share * len(keys))),
        1,
        generator,
        at_least=True,
    )
    return [number in chosen for number in range(len(keys))]


def _set_aside(
    rows: list[Tensor], sizes: list[int], target: int, longest: int, left: int, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """What is kept and what is set aside of every row, about `target` of the `sizes`; empty tensors stand for nothing.

    Whole rows where these come near the target; else the tails of long rows, if they are worth it; else one row. `left` different
    rows are kept. Nothing is set aside where there is no such way.
    """
    nothing = torch.empty(0, dtype=torch.long)
    if target < 1 or not rows:
        return rows, [nothing] * len(rows)
    groups = _groups([row.numpy().tobytes() for row in rows])
    groups = [[number] for number in groups[0]] if len(groups) == left == 1 else groups  # copies of one text: some, but no test
    chosen = _whole(groups, sizes, target, left, generator)
    share = min(0.5, target / max(1, sum(size for size, row in zip(sizes, rows, strict=True) if len(row) > longest)))
    most = max(map(len, rows))
    if not chosen and most > longest and (share * most >= SHORTEST or len(groups) <= left):
        pairs = [_tail(row, share, longest) if len(row) > longest else (row, nothing) for row in rows]
        return [head for head, _ in pairs], [tail for _, tail in pairs]
    if not chosen and len(groups) > left:
        chosen = set(min(groups, key=lambda group: abs(sum(sizes[number] for number in group) - target)))
    return (
        [nothing if number in chosen else row for number, row in enumerate(rows)],
        [row if number in chosen else nothing for number, row in enumerate(rows)],
    )


def _groups(keys: Sequence[bytes]) -> list[list[int]]:
    """Copies together."""
    copies: dict[bytes, list[int]] = {}
    for number, key in enumerate(keys):
        copies.setdefault(key, []).append(number)
    return list(copies.values())


def _whole(
    groups: list[list[int]], sizes: list[int], target: int, left: int, generator: torch.Generator, at_least: bool = False
) -> set[int]:
    """Rows of about `target` together, drawn in whole groups of which `left` stay out; none, if they come to less than half of it.

    A group is taken where it brings the sum nearer; or, to reach the target `at_least`, whatever its size.
    """
    chosen: set[int] = set()
    size = 0
    for pick in torch.randperm(len(groups), generator=generator)[: max(0, len(groups) - left)].tolist():
        more = sum(sizes[number] for number in groups[pick])
        if size < target and (at_least or abs(size + more - target) < target - size):
            chosen |= set(groups[pick])
            size += more
    return chosen if 2 * size >= target else set()


def _tail(row: Tensor, share: float, longest: int) -> tuple[Tensor, Tensor]:
    """A row without its end and the gap before it, and the end."""
    n = max(2, round(share * len(row)))
    return row[: len(row) - n - min(longest, int(GAP_SHARE * len(row)))], row[len(row) - n :]


def _up_to(rows: Iterator[Tensor], budget: int, longest: int) -> tuple[list[Tensor], list[Tensor]]:
    """The first rows of `budget` tokens together, the last one cut; and the same rows uncut."""
    found, whole, left = [], [], budget
    while left > 1 and (row := next(rows, None)) is not None:
        whole.append(row)
        taken = _fitting(len(row), left, longest)
        if taken:
            found.append(row[:taken])
            left -= taken
    return found, whole


def _fitting(n: int, left: int, longest: int) -> int:
    """As many of `n` tokens as fit, so that neither their last piece nor what is left is a single token, which could not be used."""
    return next((taken for taken in range(min(n, left), 1, -1) if taken % longest != 1 and left - taken != 1), 0)


def _pieces(row: Tensor, longest: int) -> list[Tensor]:
    return [piece for piece in row.split(longest) if len(piece) > 1]


def _length(n_tokens: int) -> int:
    """Tokens of a sequence so that `n_tokens` make 30 of them, and two to spare for rows that are shorter."""
    return max(SHORTEST, n_tokens // (SEQUENCES + 2))
