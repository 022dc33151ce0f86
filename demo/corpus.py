"""The corpus: a weighted mix of document kinds, generated without end from a seed, one side of the split each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from demo import puzzles, stories
from demo.documents import TRAIN, Document, part_on

Maker = Callable[[random.Random], Document]

# Share of documents. Most of what is asked can only be answered from the document itself.
MIX: dict[Maker, float] = {
    stories.story: 30,
    stories.plain_story: 3,
    puzzles.lists: 11,
    puzzles.repeats: 7,
    puzzles.colours: 11,
    puzzles.words: 8,
    puzzles.causes: 6,
    puzzles.chains: 6,
    puzzles.ages: 5,
    puzzles.orders: 4,
    puzzles.counts: 5,
    puzzles.sums: 6,
    puzzles.arithmetic: 4,
    puzzles.facts: 4,
    puzzles.sayings: 2,
    puzzles.analogies: 4,
}


def documents(seed: int | str, on_side: str = TRAIN, mix: dict[Maker, float] = MIX) -> Iterator[Document]:
    """Documents of one side of the split, for ever; the same seed gives the same documents."""
    rng = random.Random(f"{seed}/{on_side}")
    makers, weights = list(mix), list(mix.values())
    while True:
        document = part_on(rng.choices(makers, weights)[0](rng), on_side)
        if document:
            yield document
