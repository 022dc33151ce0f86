"""A question with its answer and what else might be offered, and the item that is made of it.

A family's items are chosen so that nobody gains by guessing: the right choice stands on every place equally often, and it is the
longest (and the shortest) as often as any other choice would be.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

_WINDOW = 40
"""drafts among which the one is taken that keeps the lengths even"""


@dataclass(frozen=True)
class Draft:
    """A question, its answer, wrong choices that are always offered (`sure`) and others to draw from (`pool`)."""

    question: str
    answer: str
    sure: Sequence[str] = ()
    pool: Sequence[str] = ()


@dataclass(frozen=True)
class Item:
    """What a model is asked. `answer` is the index of the right one of the distinct `choices`."""

    question: str
    choices: tuple[str, ...]
    answer: int

    @property
    def right(self) -> str:
        return self.choices[self.answer]


Maker = Callable[[random.Random], Iterator[Draft]]
"""what makes the drafts of a family: all of a finite list, or one after the other without end"""


def items_of(maker: Maker, choices: int, count: int, seed: str) -> list[Item]:
    """`count` distinct items with `choices` choices each. Raises `ValueError` if the family has too few drafts."""
    rng = random.Random(seed)
    waiting = _distinct(list(islice(maker(rng), 6 * count)))
    rng.shuffle(waiting)
    if len(waiting) < count:
        raise ValueError(f"{seed}: {len(waiting)} distinct drafts for {count} items; add words or templates.")
    places = [number % choices for number in range(count)]
    rng.shuffle(places)
    longest = shortest = 0.0
    found = []
    for place in places:
        target = (len(found) + 1) / choices
        draft, wrong = _evenest(waiting[:_WINDOW], choices, (target - longest, target - shortest), rng)
        waiting.remove(draft)
        longest, shortest = longest + credit(draft.answer, wrong, max), shortest + credit(draft.answer, wrong, min)
        found.append(Item(draft.question, (*wrong[:place], draft.answer, *wrong[place:]), place))
    return found


def credit(answer: str, wrong: Iterable[str], extreme: Callable[[Iterable[int]], int]) -> float:
    """The chance that somebody is right who takes a longest (`max`) or shortest (`min`) choice, whatever is asked."""
    lengths = [len(answer), *map(len, wrong)]
    best = extreme(lengths)
    return 1 / lengths.count(best) if len(answer) == best else 0.0


def _distinct(drafts: list[Draft]) -> list[Draft]:
    """One draft for each question with its answer and its certain wrong choices."""
    return list({(draft.question, draft.answer, tuple(sorted(draft.sure))): draft for draft in drafts}.values())


def _evenest(drafts: list[Draft], choices: int, owed: tuple[float, float], rng: random.Random) -> tuple[Draft, list[str]]:
    """The first draft with wrong choices that leave the guessers by length within one item of their due, or the one that comes nearest."""
    best: tuple[float, Draft, list[str]] | None = None
    for draft in drafts:
        for shorter in rng.sample(range(choices), choices):
            wrong = _wrong(draft, choices - 1, shorter, rng)
            miss = max(abs(due - credit(draft.answer, wrong, extreme)) for due, extreme in zip(owed, (max, min), strict=True))
            if miss <= 1:
                return draft, wrong
            if best is None or miss < best[0]:
                best = (miss, draft, wrong)
    assert best is not None, "there are enough drafts"
    return best[1], best[2]


def _wrong(draft: Draft, count: int, shorter: int, rng: random.Random) -> list[str]:
    """`count` wrong choices, about `shorter` of them shorter than the answer, in random order."""
    wrong = list(dict.fromkeys(choice for choice in draft.sure if choice != draft.answer))[:count]
    pool = sorted({choice for choice in draft.pool if choice != draft.answer and choice not in wrong})
    rng.shuffle(pool)
    size = len(draft.answer)
    pool.sort(key=lambda choice: max(2, abs(len(choice) - size)))  # of about the answer's length first
    if len(wrong) + len(pool) < count:
        raise ValueError(f"'{draft.question}' has {len(wrong) + len(pool)} wrong choices, {count} are asked for.")
    short = [choice for choice in pool if len(choice) < size][: max(0, shorter - sum(len(choice) < size for choice in wrong))]
    rest = [choice for choice in pool if len(choice) > size] + [choice for choice in pool if len(choice) == size]
    wrong += (short + rest + [choice for choice in pool if len(choice) < size and choice not in short])[: count - len(wrong)]
    rng.shuffle(wrong)
    return wrong
