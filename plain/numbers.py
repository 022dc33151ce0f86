"""Families of number words: counting on and counting things, and small sums."""

import random
from collections.abc import Iterator

from plain.drafts import Draft
from plain.words import words

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
_TENS = ["ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDER = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"]


def counting(rng: random.Random) -> Iterator[Draft]:
    """A row of number words goes on, or the things of a list are counted."""
    makers = (_row, _row, _things)
    while True:
        yield rng.choice(makers)(rng)


def _row(rng: random.Random) -> Draft:
    kind = rng.randrange(5)
    if kind == 0:
        row, step = _TENS, rng.choice([1, -1])
    elif kind == 1:
        row, step = _ORDER, rng.choice([1, -1])
    else:
        row, step = _ONES[1:], rng.choice([1, 1, -1, 2, -2, 3])
    shown = rng.randint(3, 4)
    length = abs(step) * shown
    start = rng.randrange(len(row) - length) + (length if step < 0 else 0)
    listed = [row[start + place * step] for place in range(shown + 1)]
    near = [row[at] for at in range(len(row)) if 0 < abs(at - (start + shown * step)) <= 4]
    return Draft(f"{', '.join(listed[:-1]).capitalize()},", listed[-1], pool=near)


def _things(rng: random.Random) -> Draft:
    count = rng.randint(2, 6)
    kind, members = rng.choice(list(words("nouns")["groups"].items()))
    listed = rng.sample(members, count)
    near = [f"{_ONES[number]} {kind}" for number in range(2, 8) if number != count]
    lead = rng.choice(["She wrote down", "The list holds", "He could think of", "The child named"])
    text = f"{lead} {', '.join(listed[:-1])} and {listed[-1]}."
    return Draft(f"{text} All together that makes", f"{_ONES[count]} {kind}", pool=near)


def sums(rng: random.Random) -> Iterator[Draft]:
    """Small sums and differences in words: told, and in a row of solved ones."""
    makers = (_solved, _solved, _one_more, _told)
    while True:
        yield rng.choice(makers)(rng)


def _solved(rng: random.Random) -> Draft:
    """A sum after three that are solved."""
    pairs = rng.sample([(a, b) for a in range(1, 8) for b in range(1, 6)], 4)
    rows = [f"{_ONES[a].capitalize()} plus {_ONES[b]} is {_ONES[a + b]}." for a, b in pairs[:3]]
    a, b = pairs[3]
    return Draft(f"{' '.join(rows)} {_ONES[a].capitalize()} plus {_ONES[b]} is", _ONES[a + b], pool=_near(a + b))


def _one_more(rng: random.Random) -> Draft:
    """The number before or behind, after three that are solved."""
    word, step = rng.choice([("more", 1), ("less", -1)])
    numbers = rng.sample(range(2, 13), 4)
    rows = [f"One {word} than {_ONES[number]} is {_ONES[number + step]}." for number in numbers[:3]]
    total = numbers[3] + step
    return Draft(f"{' '.join(rows)} One {word} than {_ONES[numbers[3]]} is", _ONES[total], pool=_near(total))


_GAINS = ("{n} has {a} {t} and finds {b} more.", "{n} had {a} {t} and was given {b} more.", "{n} bought {a} {t} and then {b} more.")
_LOSSES = ("{n} had {a} {t} and gave {b} of them away.", "{n} had {a} {t} and lost {b} of them.", "{n} had {a} {t} and sold {b} of them.")


def _told(rng: random.Random) -> Draft:
    girl = rng.random() < 0.5
    name = rng.choice(words("names")["girls" if girl else "boys"])
    thing = rng.choice(["apples", "coins", "eggs", "stamps", "pencils", "plums", "shells", "books"])
    a, b = rng.randint(3, 9), rng.randint(1, 4)
    gained = rng.random() < 0.5 or a <= b
    text = rng.choice(_GAINS if gained else _LOSSES).format(n=name, a=_ONES[a], b=_ONES[b], t=thing)
    total = a + b if gained else a - b
    return Draft(f"{text} Now {'she' if girl else 'he'} has", f"{_ONES[total]} {thing[:-1] if total == 1 else thing}", pool=[
        f"{number} {thing[:-1] if number == 'one' else thing}" for number in _near(total)
    ])  # fmt: skip


def _near(total: int) -> list[str]:
    return [_ONES[number] for number in range(max(1, total - 5), total + 6) if number != total]
