"""The documents that are not stories: lists, colours, made-up words, causes, chains, ages, counts, sums, facts."""

from __future__ import annotations

import itertools
import random

from demo.documents import Ask, Document, choose
from demo.world import (
    ANIMALS,
    COLOURS,
    COUNTABLES,
    FACT_QUESTIONS,
    FEELINGS,
    HAPPENINGS,
    MADE_UP,
    NAMES,
    NUMBERS,
    OBJECTS,
    ORDINALS,
    relations,
)


def _pick(rng: random.Random, asks: list[Ask], most: int = 5) -> tuple[Ask, ...]:
    return tuple(rng.sample(asks, min(most, len(asks))))


def lists(rng: random.Random) -> Document:
    """A list to repeat, and questions about neighbours and positions in it."""
    items = rng.sample(rng.choice([OBJECTS, NAMES, COLOURS, OBJECTS + NAMES]), rng.randint(4, 7))
    context = f"List: {' '.join(items)}."
    asks = []
    for left, right in itertools.pairwise(items):
        asks.append(Ask(f"What is after {left}?", right, choose(rng, right, items), "after"))
        if rng.random() < 0.3:
            asks.append(Ask(f"What is before {right}?", left, choose(rng, left, items), "ahead"))
    for ordinal, item in zip(ORDINALS, items, strict=False):
        if rng.random() < 0.3:
            asks.append(Ask(f"What is {ordinal}?", item, choose(rng, item, items), "nth"))
    asks.append(Ask("What is last?", items[-1], choose(rng, items[-1], items), "nth"))
    asks.append(Ask("How many are there?", str(len(items)), choose(rng, str(len(items)), NUMBERS[3:9])))
    return Document(context, _pick(rng, asks, 6))


def repeats(rng: random.Random) -> Document:
    """The same words twice: the cheapest lesson in copying."""
    items = rng.choices(OBJECTS + NAMES + COLOURS + MADE_UP + NUMBERS, k=rng.randint(6, 24))
    return Document(f"Say: {' '.join(items)}.", tail=f"Again: {' '.join(items)}.")


def colours(rng: random.Random) -> Document:
    """Things have colours and owners: what colour (one step), whose colour (two steps)."""
    count = rng.randint(2, 5)
    things, shades = rng.sample(OBJECTS, count), rng.sample(COLOURS, count)
    owners = rng.sample(NAMES, count)
    sentences = [f"The {t} is {s}." for t, s in zip(things, shades, strict=True)]
    owned = rng.random() < 0.6
    if owned:
        sentences += [f"{o} has the {t}." for o, t in zip(owners, things, strict=True)]
    rng.shuffle(sentences)
    asks = []
    for thing, shade, owner in zip(things, shades, owners, strict=True):
        asks.append(Ask(f"What colour is the {thing}?", shade, choose(rng, shade, shades), "colour"))
        if rng.random() < 0.2:
            asks.append(Ask(f"What is {shade}?", thing, choose(rng, thing, things)))
        if owned:
            asks.append(Ask(f"What colour has {owner}?", shade, choose(rng, shade, shades), "paint"))
            asks.append(Ask(f"Who has {shade}?", owner, choose(rng, owner, owners), "owner"))
            asks.append(Ask(f"Who has the {thing}?", owner, choose(rng, owner, owners)))
    return Document(" ".join(sentences), _pick(rng, asks, 6))


def words(rng: random.Random) -> Document:
    """Made-up words that mean something in this document only, asked for both ways and as analogies."""
    count = rng.randint(2, 6)
    made, meanings = rng.sample(MADE_UP, count), rng.sample(OBJECTS + COLOURS + list(ANIMALS), count)
    pairs = list(zip(made, meanings, strict=True))
    context = " ".join(f"{m} means {w}." for m, w in pairs)
    asks = []
    for (m1, w1), (m2, w2) in zip(pairs, pairs[1:] + pairs[:1], strict=True):
        asks.append(Ask(f"What is a {m1}?", w1, choose(rng, w1, meanings), "words"))
        if rng.random() < 0.2:
            asks.append(Ask(f"Which word means {w1}?", m1, choose(rng, m1, made)))
            asks.append(Ask(f"{m1} is to {w1} as {m2} is to?", w2, choose(rng, w2, meanings)))
    return Document(context, _pick(rng, asks, 6))


def causes(rng: random.Random) -> Document:
    """Something happens to a thing, so somebody feels something: why, and who."""
    count = rng.randint(3, 4)
    things, people = rng.sample(OBJECTS, count), rng.sample(NAMES, count)
    feelings, happenings = rng.choices(FEELINGS, k=count), rng.choices(HAPPENINGS, k=count)
    sentences, asks = [], []
    for thing, person, feeling, happening in zip(things, people, feelings, happenings, strict=True):
        sentences.append(f"The {thing} {happening}, so {person} is {feeling}.")
        asks.append(Ask(f"Why is {person} {feeling}?", thing, choose(rng, thing, things), "cause"))
        asks.append(Ask(f"Who cares about the {thing}?", person, choose(rng, person, people)))
        asks.append(Ask(f"How is {person}?", feeling, choose(rng, feeling, FEELINGS)))
    return Document(" ".join(sentences), _pick(rng, asks))


def chains(rng: random.Random) -> Document:
    """Two chains of things that push one another, told out of order: one push, or the end of the chain."""
    first, second = rng.sample(OBJECTS, 6)[:3], []
    second = rng.sample([o for o in OBJECTS if o not in first], 3)
    links = [(a, b) for chain in (first, second) for a, b in itertools.pairwise(chain)]
    rng.shuffle(links)
    context = " ".join(f"The {a} pushes the {b}." for a, b in links)
    things = first + second
    asks = []
    for a, b in links:
        asks.append(Ask(f"What does the {a} push?", b, choose(rng, b, things)))
        asks.append(Ask(f"What pushes the {b}?", a, choose(rng, a, things)))
    for start, _, end in (first, second):
        asks.append(Ask(f"The {start} moves. What moves last?", end, choose(rng, end, things), "chain"))
    return Document(context, _pick(rng, asks))


def ages(rng: random.Random) -> Document:
    """People and their ages in numbers: how old, who is the oldest or the youngest."""
    count = rng.randint(3, 4)
    people, years = rng.sample(NAMES, count), rng.sample(range(1, 21), count)
    context = " ".join(f"{p} is {y}." for p, y in zip(people, years, strict=True))
    asks = [Ask(f"How old is {p}?", str(y), choose(rng, str(y), NUMBERS)) for p, y in zip(people, years, strict=True)]
    for word, best in (("oldest", max(years)), ("youngest", min(years))):
        who = people[years.index(best)]
        asks.append(Ask(f"Who is the {word}?", who, choose(rng, who, people), "ages"))
    return Document(context, _pick(rng, asks))


def orders(rng: random.Random) -> Document:
    """Who is older than whom, out of order: the ends of the row follow from two sentences."""
    row = rng.sample(NAMES, 3)
    sentences = [f"{a} is older than {b}." for a, b in itertools.pairwise(row)]
    rng.shuffle(sentences)
    asks = [
        Ask(f"Who is the {word}?", who, choose(rng, who, row), "order")
        for word, who in (("oldest", row[0]), ("youngest", row[2]), ("middle", row[1]))
    ]
    return Document(" ".join(sentences), _pick(rng, asks))


def counts(rng: random.Random) -> Document:
    """People own several things each: how many does one of them have."""
    people = rng.sample(NAMES, rng.randint(2, 3))
    pool = rng.sample(OBJECTS, 15)
    sentences, asks = [], []
    for person in people:
        number = rng.randint(1, 5)
        mine, pool = pool[:number], pool[number:]
        sentences.append(f"{person} has {', '.join(mine)}.")
        asks.append(Ask(f"How many has {person}?", str(number), choose(rng, str(number), NUMBERS[1:6]), "count"))
        asks += [Ask(f"Who has the {thing}?", person) for thing in mine[:1]]
    return Document(" ".join(sentences), _pick(rng, asks))


def sums(rng: random.Random) -> Document:
    """People have, find and lose countable things: two numbers to find in the text and one to work out."""
    people, goods = rng.sample(NAMES, 2), rng.sample(COUNTABLES, 2)
    sentences, totals = [], []
    for person, good in zip(people, goods, strict=True):
        have, change = rng.randint(1, 9), rng.randint(1, 9)
        lose = have > change and rng.random() < 0.4
        sentences.append(f"{person} has {have} {good}. {person} {'loses' if lose else 'finds'} {change} {good}.")
        totals.append(have - change if lose else have + change)
    asks = []
    for person, good, total in zip(people, goods, totals, strict=True):
        near = [str(n) for n in range(max(0, total - 3), min(20, total + 3) + 1)]
        asks.append(Ask(f"How many {good} has {person}?", str(total), choose(rng, str(total), near), "sums"))
    rng.shuffle(asks)
    return Document(" ".join(sentences), tuple(asks))


def arithmetic(rng: random.Random) -> Document:
    """Bare sums and differences below 20, a few to a document."""
    lines = []
    for _ in range(rng.randint(5, 9)):
        a, b = rng.randint(0, 10), rng.randint(0, 10)
        lines.append(f"{a} + {b} = {a + b}." if rng.random() < 0.6 else f"{a + b} - {b} = {a}.")
    return Document(" ".join(lines))


def facts(rng: random.Random) -> Document:
    """What the animals of this world eat, where they live and their young; asked plainly or with choices."""
    asks = []
    for _ in range(rng.randint(2, 4)):
        index, animal = rng.randrange(3), rng.choice(list(ANIMALS))
        value = ANIMALS[animal][index]
        others = [a for a in ANIMALS if ANIMALS[a][index] != value]
        three = choose(rng, animal, others, 3)
        asks.append(Ask(f"Which {FACT_QUESTIONS[index]} {value}: {', '.join(three)}?", animal, three, "facts"))
    return Document("", tuple(asks))


def sayings(rng: random.Random) -> Document:
    """The same facts as plain statements."""
    lines = []
    for animal in rng.sample(list(ANIMALS), rng.randint(2, 4)):
        lines += [f"The {animal} {FACT_QUESTIONS[k]} {ANIMALS[animal][k]}." for k in rng.sample(range(3), 2)]
    return Document(" ".join(lines))


def analogies(rng: random.Random) -> Document:
    """Two pairs of one relation of the world, then a third to complete."""
    asks = []
    for _ in range(rng.randint(1, 3)):
        pairs = rng.choice(list(relations().values()))
        (a, b), (c, d), (e, f) = rng.sample(pairs, 3)
        pool = [right for _, right in pairs]
        asks.append(Ask(f"{a} is to {b}, {c} is to {d}, {e} is to?", f, choose(rng, f, pool), "analogy"))
    return Document("", tuple(asks))


def restated(rng: random.Random) -> Document:
    """A context and its sentences once more in another order: every value can be copied by looking up its owner."""
    context = rng.choice([words, colours, causes, ages, colours, words])(rng).context
    sentences = context.split(". ")
    sentences[-1] = sentences[-1].removesuffix(".")
    rng.shuffle(sentences)
    return Document(context, tail=f"Again: {'. '.join(sentences)}.")
