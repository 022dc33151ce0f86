"""Families of what everybody knows: capitals, opposites, animals, materials."""

import random
from collections.abc import Iterator

from plain.drafts import Draft
from plain.words import words


def capitals(_: random.Random) -> Iterator[Draft]:
    """Country to capital and back; wrong choices from the same part of the world."""
    for part in words("countries").values():
        for country, capital in part.items():
            yield Draft(f"The capital of {country} is", capital, pool=[other for other in part.values() if other != capital])
            yield Draft(f"{capital} is the capital of", country, pool=[other for other in part if other != country])


def opposites(_: random.Random) -> Iterator[Draft]:
    """A word to its opposite; a word that is near the cue is always among the choices."""
    avoid = words("opposites")["avoid"]
    for kind, fields in words("opposites").items():
        if kind == "avoid":
            continue
        question = "The opposite of to {} is to" if kind == "verbs" else "The opposite of {} is"
        for field, rows in fields.items():
            own = {word for row in rows for word in row}
            others = {word for name, rows in fields.items() if name != field for row in rows for word in row} - own
            for first, second, near_first, near_second in rows:
                for cue, answer, near in ((first, second, near_first), (second, first, near_second)):
                    pool = sorted(others - set(avoid.get(cue, ())) - {answer})
                    yield Draft(question.format(cue), answer, sure=[near], pool=pool)


def animals(_: random.Random) -> Iterator[Draft]:
    """What kind an animal is, what its young, its voice and its home are called, how many legs it has, and riddles."""
    known = words("animals")
    avoid = known["avoid"]

    def ask(question: str, animal: str, answer: str, others: list[str]) -> Draft:
        return Draft(question, answer, pool=[other for other in others if other not in (answer, *avoid.get(animal, ()))])

    for kind, members in known["classes"].items():
        for animal in members:
            yield ask(f"{_a(animal)[0].upper()}{_a(animal)[1:]} is a kind of", animal, kind, list(known["classes"]))
    for animal, young in known["young"].items():
        yield ask(f"The young of a {animal} is called a", animal, young, list(known["young"].values()))
    for animal, sound in known["sounds"].items():
        yield ask(f"When {_a(animal)} makes its usual noise, people say that it", animal, sound, list(known["sounds"].values()))
    for animal, home in known["homes"].items():
        yield ask(f"The place where a {animal} lives is called a", animal, home, list(known["homes"].values()))
    for animal, group in known["groups"].items():
        yield ask(f"A group of {animal} that stay together is called a", animal, group, list(known["groups"].values()))
    for legs, members in known["legs"].items():
        for animal in members:
            yield ask(f"Count the legs of {_a(animal)}: it has", animal, legs, list(known["legs"]))
    for gift, animal in known["gifts"].items():
        yield ask(f"The animals from which people get {gift} are", animal, animal, list(known["gifts"].values()))
    for animal, riddle in known["riddles"].items():
        yield ask(f"The animal that {riddle} is the", animal, animal, list(known["riddles"]))


def materials(_: random.Random) -> Iterator[Draft]:
    """A thing to what it is made of, a dish to its main ingredient, and a material to a thing."""
    things, foods = words("materials")["things"], words("materials")["foods"]
    for thing, made_of in things.items():
        others = {other[0] for other in things.values()} - set(made_of)
        yield Draft(f"{_a(thing)[0].upper()}{_a(thing)[1:]} is usually made of", made_of[0], pool=sorted(others))
        wrong = [_a(other) for other, also in things.items() if made_of[0] not in also]
        yield Draft(f"One thing that is usually made of {made_of[0]} is", _a(thing), pool=wrong)
    for food, made_of in foods.items():
        others = {other[0] for other in foods.values()} - set(made_of)
        yield Draft(f"The main thing that you need to make {food} is", made_of[0], pool=sorted(others))


def _a(noun: str) -> str:
    """The noun with its article."""
    return f"an {noun}" if noun[0] in "aeiouAEIOU" else f"a {noun}"
