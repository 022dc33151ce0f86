"""The corpus: a weighted mix of document kinds, generated without end from a seed, one side of the split each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from demo import puzzles, stories
from demo.documents import TRAIN, Document, part_on

Maker = Callable[[random.Random], Document]

# Share of documents. Most of what is asked can only be answered from the document itself.
MIX: dict[Maker, float] = {
    stories.story: 34,
    stories.plain_story: 2,
    puzzles.lists: 9,
    puzzles.repeats: 4,
    puzzles.restated: 6,
    puzzles.colours: 3,
    puzzles.words: 4,
    puzzles.causes: 2,
    puzzles.chains: 9,
    puzzles.ages: 9,
    puzzles.orders: 7,
    puzzles.counts: 8,
    puzzles.sums: 11,
    puzzles.arithmetic: 3,
    puzzles.facts: 2,
    puzzles.sayings: 1,
    puzzles.analogies: 2,
}


def documents(seed: int | str, on_side: str = TRAIN, mix: dict[Maker, float] = MIX) -> Iterator[Document]:
    """Documents of one side of the split, for ever; the same seed gives the same documents."""
    rng = random.Random(f"{seed}/{on_side}")
    makers, weights = list(mix), list(mix.values())
    while True:
        document = part_on(rng.choices(makers, weights)[0](rng), on_side)
        if document:
            yield document
