"""Families that need nothing but what was just read: copying, finding, and questions of two steps."""

import random
import re
from collections.abc import Iterator
from itertools import pairwise

from plain.drafts import Draft
from plain.words import passages, words


def copying(rng: random.Random) -> Iterator[Draft]:
    """A list of words is begun again; the next word of it."""
    while True:
        listed = rng.sample(words("nouns")["things"], rng.randint(6, 10))
        at = rng.randrange(2, len(listed))
        lead, again = rng.choice(
            [
                ("The words are:", "Once more, the words are:"),
                ("She wrote:", "He copied what she wrote:"),
                ("Repeat after me:", "I repeat:"),
            ]
        )
        text = f"{lead} {', '.join(listed)}. {again} {', '.join(listed[:at])},"
        yield Draft(text, listed[at], pool=[word for place, word in enumerate(listed) if place != at])


def finding(rng: random.Random) -> Iterator[Draft]:
    """One fact in the middle of prose, or one of several facts of a form, asked for in the same words, in others, or from behind."""
    makers = (_amid_prose, _amid_prose, _amid_prose, _same_words, _same_places, _other_words, _owner)
    while True:
        yield rng.choice(makers)(rng)


def _amid_prose(rng: random.Random) -> Draft:
    """A fact between sentences that have nothing to do with it."""
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", rng.choice([text for text in passages() if '"' not in text]))
    start = rng.randrange(len(sentences) - 2)
    around = sentences[start : start + 3]
    name, thing = _names(rng, 1)[0], rng.choice(words("nouns")["held"])
    rooms = [room for room in words("nouns")["rooms"] if room not in " ".join(around)]
    room, verb = rng.choice(rooms), rng.choice(["hid", "left", "forgot", "found"])
    around.insert(rng.choice([0, 1, 2]), f"{name} {verb} the {thing} in the {room}.")
    return Draft(f"{' '.join(around)} Remember: {name} {verb} the {thing} in the", room, pool=[other for other in rooms if other != room])


def _pairs(rng: random.Random) -> tuple[str, str, dict[str, str]]:
    """A few sentences of one form, their verb, and what they say: {person: thing}."""
    people = _names(rng, rng.randint(4, 5))
    things = dict(zip(people, rng.sample(words("nouns")["held"], len(people)), strict=True))
    verb = rng.choice(["has", "found", "bought", "brought", "wanted"])
    return " ".join(f"{name} {verb} the {thing}." for name, thing in things.items()), verb, things


def _same_words(rng: random.Random) -> Draft:
    text, verb, things = _pairs(rng)
    name = rng.choice(list(things))
    return Draft(f"{text} So {name} {verb} the", things[name], pool=[other for other in things.values() if other != things[name]])


def _other_words(rng: random.Random) -> Draft:
    text, verb, things = _pairs(rng)
    name = rng.choice(list(things))
    return Draft(
        f"{text} The thing that {name} {verb} is the", things[name], pool=[other for other in things.values() if other != things[name]]
    )


def _owner(rng: random.Random) -> Draft:
    text, verb, things = _pairs(rng)
    name = rng.choice(list(things))
    return Draft(f"{text} The one who {verb} the {things[name]} is", name, pool=[other for other in things if other != name])


def _same_places(rng: random.Random) -> Draft:
    things = rng.sample(words("nouns")["held"], rng.randint(4, 6))
    rooms = dict(zip(things, rng.sample(words("nouns")["rooms"], len(things)), strict=True))
    said = " ".join(f"The {thing} is in the {room}." for thing, room in rooms.items())
    asked = rng.choice(things)
    lead = rng.choice(["So the", "As was said, the", "Do not forget: the"])
    return Draft(f"{said} {lead} {asked} is in the", rooms[asked], pool=[room for room in rooms.values() if room != rooms[asked]])


def two_steps(rng: random.Random) -> Iterator[Draft]:
    """Answers that need two look-ups, one after the other: two in the text, or one in the text and one in what everybody knows."""
    makers = (_held_where, _held_where, _related, _related, _capital_home, _young, _tallest)
    while True:
        yield rng.choice(makers)(rng)


def _names(rng: random.Random, count: int) -> list[str]:
    return rng.sample([name for names in words("names").values() for name in names], count)


def _shuffled(rng: random.Random, facts: list[str]) -> list[str]:
    return rng.sample(facts, len(facts))


def _held_where(rng: random.Random) -> Draft:
    """Who has it, and where is that person?"""
    people = _names(rng, 4)
    rooms, things = rng.sample(words("nouns")["rooms"], 4), rng.sample(words("nouns")["held"], 4)
    facts = _shuffled(rng, [f"{name} is in the {room}." for name, room in zip(people, rooms, strict=True)])
    facts += _shuffled(rng, [f"{name} has the {thing}." for name, thing in zip(people, things, strict=True)])
    at = rng.randrange(4)
    return Draft(f"{' '.join(facts)} So the {things[at]} is in the", rooms[at], pool=rooms[:at] + rooms[at + 1 :])


def _related(rng: random.Random) -> Draft:
    """Whose relative, and what does that relative do?"""
    people, jobs = _names(rng, 3), rng.sample(words("reading")["lists"]["job"], 4)
    kin = rng.choice(["neighbour", "cousin", "best friend", "boss"])
    others = [name for name in _names(rng, 12) if name not in people][:3]
    jobs = [job for job in jobs if job != kin][:3]
    facts = _shuffled(rng, [f"{name}'s {kin} is called {other}." for name, other in zip(people, others, strict=True)])
    facts += _shuffled(rng, [f"{other} works as a {job}." for other, job in zip(others, jobs, strict=True)])
    at = rng.randrange(3)
    pool = [job for job in words("reading")["lists"]["job"] if job not in jobs and job != kin]
    return Draft(f"{' '.join(facts)} So {people[at]}'s {kin} works as a", jobs[at], sure=jobs[:at] + jobs[at + 1 :], pool=pool)


def _capital_home(rng: random.Random) -> Draft:
    """Which country, and what is its capital?"""
    part = rng.choice(list(words("countries").values()))
    people, countries = _names(rng, 3), rng.sample(list(part), 3)
    facts = [f"{name} comes from the capital of {country}." for name, country in zip(people, countries, strict=True)]
    at = rng.randrange(3)
    sure = [part[country] for place, country in enumerate(countries) if place != at]
    return Draft(f"{' '.join(facts)} In other words, {people[at]} comes from", part[countries[at]], sure=sure, pool=[*part.values()])


def _young(rng: random.Random) -> Draft:
    """Which animal, and what are its young called?"""
    young = words("animals")["young"]
    people, animals = _names(rng, 3), rng.sample(list(young), 3)
    facts = [f"{name}'s favourite animal is the {animal}." for name, animal in zip(people, animals, strict=True)]
    at = rng.randrange(3)
    sure = [young[animal] for place, animal in enumerate(animals) if place != at]
    pool = [word for word in young.values() if word not in ("pup", "kid", "cub")]
    return Draft(
        f"{' '.join(facts)} So the young animal that {people[at]} would like to stroke is a", young[animals[at]], sure=sure, pool=pool
    )


def _tallest(rng: random.Random) -> Draft:
    """Three comparisons, and who is at an end of the row."""
    row = _names(rng, 4)
    word, least, most = rng.choice([("taller", "shortest", "tallest"), ("older", "youngest", "oldest"), ("faster", "slowest", "fastest")])
    facts = _shuffled(rng, [f"{first} is {word} than {second}." for first, second in pairwise(row)])
    end = rng.choice([(most, row[0]), (least, row[-1])])
    return Draft(f"{' '.join(facts)} Of the four, the {end[0]} is", end[1], pool=[name for name in row if name != end[1]])
