"""Requests for log-likelihoods laid out so that no token is run twice: a plan of rows and stages. No model and no tensors here.

Answers to one question begin with the same tokens. Sorted, requests that begin alike stand side by side and form a tree of tokens. A `Row`
is a piece of that tree written down as one sequence: each token stands once, at the position it has in its own text, and attends to
nothing but its own beginning. A beginning that is too long to be repeated in every row (a prompt with solved examples) is a `Stage` of its
own: it is run once, and its keys and values are kept for all rows and stages behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SHARED = "shared beginnings 1"
"""the name of this way of asking, in the keys of results: those of lm-eval's own batches never stand for them"""
WORTH = 32
"""tokens that several rows must share before they are run once for all: a pass costs more than its tokens"""


@dataclass(frozen=True)
class Request:
    """Tokens that a model reads, and how many of them, the last ones, are what it is asked the likelihood of."""

    tokens: tuple[int, ...]
    scored: int


@dataclass
class Row:
    """A piece of the tree in one sequence. `base` tokens stand before it, which are in the cache."""

    base: int
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[tuple[int, int, list[int]]] = field(default_factory=list)
    """[first, last) of tokens that follow one another, and the tokens of this row that stand before the first of them"""
    asked: list[tuple[int, int, int]] = field(default_factory=list)
    """(token of this row, token that follows it in a request, number of the request)"""
    requests: list[int] = field(default_factory=list)
    """whose last token read is in this row: they are answered once it is run"""
    longest: int = 0
    """tokens up to its farthest one"""

    @property
    def is_chain(self) -> bool:
        return len(self.branches) <= 1


@dataclass
class Stage:
    """`row` is run once and its keys and values are kept (None: there is nothing to share); then come the rows and stages behind it."""

    row: Row | None = None
    rows: list[Row] = field(default_factory=list)
    stages: list["Stage"] = field(default_factory=list)

    @property
    def longest(self) -> int:
        return max([*(row.longest for row in self.rows), *(stage.longest for stage in self.stages)], default=0)


def plan(requests: Sequence[Request], positions: int, most: int | None = None) -> Stage:
    """Rows of about `positions` tokens (a longer text has a row for itself) and of at most `most` requests (None: any number)."""
    return _Planner(requests, positions, most).whole()


class _Planner:
    """The sorted texts, with the length that each shares with the one before it."""

    def __init__(self, requests: Sequence[Request], positions: int, most: int | None) -> None:
        self._requests, self._positions, self._most = requests, positions, most
        asked: dict[tuple[int, ...], list[int]] = {}
        for number, request in enumerate(requests):
            asked.setdefault(request.tokens[:-1], []).append(number)
        self._texts = sorted(asked)
        self._asked = [asked[text] for text in self._texts]
        self._shared = [0, *(_common(before, after) for before, after in pairwise(self._texts))]

    def whole(self) -> Stage:
        stage = Stage()
        if self._texts:
            self._fill(stage, 0, len(self._texts), 0)
        return stage

    def _fill(self, stage: Stage, begin: int, end: int, base: int) -> None:
        """Lays out the texts begin..end, which have their first `base` tokens in common, behind a stage that ends there."""
        if end - begin == 1 or self._fits(begin, end, base):
            self._add(stage, begin, end, base)
            return
        common = min(self._shared[begin + 1 : end])
        if common - base >= WORTH:
            inner = Stage(self._row(begin, end, base, common))
            stage.stages.append(inner)
            self._fill(inner, begin, end, common)
            return
        open_at = begin
        for first, last in pairwise([begin, *(at for at in range(begin + 1, end) if self._shared[at] == common), end]):
            if open_at < first and not self._fits(open_at, last, base):
                self._add(stage, open_at, first, base)
                open_at = first
            if last - first > 1 and not self._fits(first, last, base):
                self._fill(stage, first, last, base)
                open_at = last
        self._add(stage, open_at, end, base)

    def _fits(self, begin: int, end: int, base: int) -> bool:
        tokens = len(self._texts[begin]) - base + sum(len(self._texts[at]) - self._shared[at] for at in range(begin + 1, end))
        requests = sum(len(asked) for asked in self._asked[begin:end])
        return tokens <= self._positions and (self._most is None or requests <= self._most)

    def _add(self, stage: Stage, begin: int, end: int, base: int) -> None:
        if begin < end and (row := self._row(begin, end, base)).tokens:
            stage.rows.append(row)

    def _row(self, begin: int, end: int, base: int, stop: int | None = None) -> Row:
        """The tokens base..stop of the texts begin..end, those that are shared once."""
        row, path = Row(base), list[int]()
        for at in range(begin, end):
            text = self._texts[at] if stop is None else self._texts[at][:stop]
            if at > begin:
                del path[max(0, min(self._shared[at], len(text)) - base) :]
            if base + len(path) < len(text):
                first, depth = len(row.tokens), base + len(path)
                row.tokens += text[depth:]
                row.positions += range(depth, len(text))
                row.branches.append((first, len(row.tokens), list(path)))
                path += range(first, len(row.tokens))
            row.longest = max(row.longest, len(text))
            self._ask(row, at, path)
        return row

    def _ask(self, row: Row, at: int, path: list[int]) -> None:
        """Notes which tokens of the row one text's requests are asked of; `path`: where its tokens stand in the row."""
        length = len(self._texts[at])
        for number in self._asked[at]:
            tokens, scored = self._requests[number].tokens, self._requests[number].scored
            for place in range(max(length - scored, row.base), min(length, row.base + len(path))):
                row.asked.append((path[place - row.base], tokens[place + 1], number))
            if row.base < length <= row.base + len(path):
                row.requests.append(number)


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens two texts begin with alike."""
    return next((at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), min(len(one), len(other)))
