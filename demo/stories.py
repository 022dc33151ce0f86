"""Stories: a few people move, take, give and drop things in a consistent world, and are asked about it."""

from __future__ import annotations

import random

from demo.documents import Ask, Document, choose
from demo.world import NAMES, OBJECTS, PLACES, REASONS


class Scene:
    """The state of one story and its sentences so far. Things lie at a place or are held by a person."""

    def __init__(self, rng: random.Random, people: int, places: int, objects: int):
        self.rng = rng
        self.people = rng.sample(NAMES, people)
        self.places = rng.sample(PLACES, places)
        self.objects = rng.sample(OBJECTS, objects)
        self.trail = {person: [rng.choice(self.places)] for person in self.people}
        self.holder: dict[str, str | None] = {}
        self.lies: dict[str, str] = {}
        self.reason: dict[str, str] = {}
        self.sentences = [f"{p} is in the {self.trail[p][0]}." for p in self.people]
        for thing in self.objects:
            self._place(thing)
        rng.shuffle(self.sentences)

    def _place(self, thing: str) -> None:
        if self.rng.random() < 0.7:
            self.holder[thing] = self.rng.choice(self.people)
            self.sentences.append(f"{self.holder[thing]} has the {thing}.")
        else:
            self.holder[thing], self.lies[thing] = None, self.rng.choice(self.places)
            self.sentences.append(f"The {thing} is in the {self.lies[thing]}.")

    def at(self, person: str) -> str:
        """Where the person is now."""
        return self.trail[person][-1]

    def place_of(self, thing: str) -> str:
        """Where the thing is now: its holder's place, or where it lies."""
        holder = self.holder[thing]
        return self.at(holder) if holder else self.lies[thing]

    def step(self) -> None:
        """One random event that is possible in the present state."""
        person = self.rng.choice(self.people)
        held = [o for o in self.objects if self.holder[o] == person]
        near = [o for o in self.objects if not self.holder[o] and self.lies[o] == self.at(person)]
        friends = [p for p in self.people if p != person and self.at(p) == self.at(person)]
        if near and self.rng.random() < 0.7:
            thing = self.rng.choice(near)
            self.holder[thing] = person
            self.sentences.append(f"{person} takes the {thing}.")
        elif held and friends and self.rng.random() < 0.8:
            thing, friend = self.rng.choice(held), self.rng.choice(friends)
            self.holder[thing] = friend
            self.sentences.append(f"{person} gives the {thing} to {friend}.")
        elif held and self.rng.random() < 0.2:
            thing = self.rng.choice(held)
            self.holder[thing], self.lies[thing] = None, self.at(person)
            self.sentences.append(f"{person} drops the {thing}.")
        else:
            self._go(person)

    def _go(self, person: str) -> None:
        place = self.rng.choice([p for p in self.places if p != self.at(person)])
        self.trail[person].append(place)
        self.reason.pop(person, None)
        if place in REASONS and self.rng.random() < 0.5:
            self.reason[person] = REASONS[place]
            self.sentences.append(f"{person} is {REASONS[place]} and goes to the {place}.")
        else:
            self.sentences.append(f"{person} goes to the {place}.")

    def asks(self) -> list[Ask]:
        """Every question with one certain answer, in random order."""
        found = [*self._about_people(), *self._about_things()]
        self.rng.shuffle(found)
        return found

    def _about_people(self) -> list[Ask]:
        found = []
        for person in self.people:
            moved = "where" if len(self.trail[person]) > 1 else ""
            others = choose(self.rng, self.at(person), self.places)
            found.append(Ask(f"Where is {person}?", self.at(person), others, moved))
            if len(self.trail[person]) > 1:
                before = self.trail[person][-2]
                found.append(Ask(f"Where was {person} before?", before, choose(self.rng, before, self.places), "before"))
            if person in self.reason:
                why = self.reason[person]
                found.append(Ask(f"Why is {person} there?", why, choose(self.rng, why, list(REASONS.values()))))
        return found

    def _about_things(self) -> list[Ask]:
        found = []
        for thing in self.objects:
            holder, place = self.holder[thing], self.place_of(thing)
            if holder:
                found.append(Ask(f"Who has the {thing}?", holder, choose(self.rng, holder, self.people), "holder"))
            # A held thing takes two steps: who has it, and where that person is.
            others = choose(self.rng, place, self.places)
            found.append(Ask(f"Where is the {thing}?", place, others, "find" if holder else ""))
        return found


def story(rng: random.Random, most_asks: int = 6) -> Document:
    """A story of 4 to 12 sentences (about 30 to 90 tokens) with up to `most_asks` questions."""
    scene = Scene(rng, people=rng.randint(2, 4), places=rng.randint(3, 5), objects=rng.randint(1, 3))
    for _ in range(rng.randint(0, 6)):
        scene.step()
    return Document(" ".join(scene.sentences), tuple(scene.asks()[:most_asks]))


def bench_story(rng: random.Random) -> Document:
    """A story of the size that benchmarks use: three people, four places, two things, four events."""
    scene = Scene(rng, people=3, places=4, objects=2)
    for _ in range(4):
        scene.step()
    return Document(" ".join(scene.sentences), tuple(scene.asks()))


def plain_story(rng: random.Random) -> Document:
    """A story without questions."""
    return story(rng, most_asks=0)
