"""Families of reading: what happens next, who a pronoun stands for, one passage with a question, and whether a review is good or bad."""

import random
import re
from collections.abc import Iterator
from itertools import combinations

from plain.drafts import Draft
from plain.words import words

_SHE = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her"}


def endings(rng: random.Random) -> Iterator[Draft]:
    """A story with two possible third sentences; the ending of the other one is always among the choices."""
    stories = words("endings")
    for story in stories:
        others = [turn[1] for other in stories if other.get("lends") and other is not story for turn in other["turns"]]
        for thing in story["it"]:
            for turn, (third, ending) in enumerate(story["turns"]):
                person = _person(rng, it=thing)
                wrong = [story["turns"][1 - turn][1], rng.choice(story["never"]), rng.choice(others)]
                text, right, *sure = [part.format(**person) for part in (f"{story['start']} {third}", ending, *wrong)]
                yield Draft(text, right, sure=sure)


def _person(rng: random.Random, **more: str) -> dict[str, str]:
    """A name with its pronouns, for `format`."""
    girl = rng.random() < 0.5
    pronouns = _SHE if girl else {word: word for word in _SHE}
    return {"name": rng.choice(words("names")["girls" if girl else "boys"]), **pronouns, **more}


def pronouns(rng: random.Random) -> Iterator[Draft]:
    """A pronoun that gender, number, or being alive settles; or the one it stands for."""
    makers = (_question_tag, _question_tag, _object, _object, _relative, _meant, _meant_group)
    while True:
        yield rng.choice(makers)(rng, words("pronouns"))


def _question_tag(rng: random.Random, frames: dict) -> Draft:
    """The pronoun at the end of a question: 'The queen sings well, doesn't she?'"""
    one = rng.choice(list(frames["subjects"]))
    wrong = rng.choice([pronoun for pronoun in frames["subjects"] if pronoun != one])
    text, tag = rng.choice(frames["tags"]["several" if one == "they" else "one"]).split("|")
    subject = rng.choice(frames["subjects"][one])
    return Draft(f"{subject[0].upper()}{subject[1:]} {text}, {tag}", f"{one}?", sure=[f"{wrong}?"])


def _object(rng: random.Random, frames: dict) -> Draft:
    """it or them for what was just named, him or her for whom."""
    one, several, text, end = rng.choice(frames["objects"])
    many = rng.random() < 0.5
    right, wrong = ("them", "it") if many else ("it", "them")
    return Draft(text.format(several if many else one), f"{right} {end}.", sure=[f"{wrong} {end}."])


def _relative(rng: random.Random, frames: dict) -> Draft:
    """who for people and which for things."""
    lead, person, thing, end = rng.choice(frames["relatives"])
    alive = rng.random() < 0.5
    right, wrong = ("who", "which") if alive else ("which", "who")
    return Draft(f"{lead} {person if alive else thing},", f"{right} {end}.", sure=[f"{wrong} {end}."])


def _meant(rng: random.Random, frames: dict) -> Draft:
    """Which of a woman and a man is meant."""
    text, question = rng.choice(frames["people"]).split("|")
    pair = [rng.choice(words("names")[kind]) for kind in ("girls", "boys")]
    meant = rng.randrange(2)
    a, b = pair if rng.random() < 0.5 else pair[::-1]
    p = ("she", "he")[meant]
    return Draft(f"{text.format(a=a, b=b, p=p, P=p.capitalize())} {question}", pair[meant], sure=[pair[1 - meant]])


def _meant_group(rng: random.Random, frames: dict) -> Draft:
    """Whether one or several are meant."""
    text, one, several, *turns = rng.choice(frames["groups"])
    many = rng.random() < 0.5
    clause, question = turns[many]
    return Draft(f"{text.format(clause)} {question} It was", several if many else one, sure=[one if many else several])


def reading(rng: random.Random) -> Iterator[Draft]:
    """A passage and one question about it; words of the same kind from the passage are among the wrong choices."""
    lists = words("reading")["lists"] | words("names")
    while True:
        passage = rng.choice(words("reading")["passages"])
        filled = _filled(passage["text"], lists, rng)
        question, slot = rng.choice(passage["ask"]).split("|")
        kind = slot.rstrip("12")
        near = [word for name, word in filled.items() if name.rstrip("12") == kind and name != slot]
        kinds = ("girls", "boys") if kind in ("girl", "boy") else (kind,)
        near += [filled[name] for name in ("girl1", "boy1") if name in filled and len(kinds) == 2 and name != slot]
        pool = [word for name in kinds for word in lists[name] if word not in filled.values()]
        yield Draft(f"{passage['text'].format(**filled)} {question.format(**filled)}", filled[slot], sure=sorted(set(near)), pool=pool)


def _filled(text: str, lists: dict[str, list[str]], rng: random.Random) -> dict[str, str]:
    """A word for each slot of the text, all different."""
    filled: dict[str, str] = {}
    for slot in dict.fromkeys(re.findall(r"\{(\w+)\}", text)):
        kind = slot.rstrip("12")
        named = {"girl": "girls", "boy": "boys"}.get(kind, kind)
        filled[slot] = rng.choice([word for word in lists[named] if word not in filled.values()])
    return filled


def sentiment(rng: random.Random) -> Iterator[Draft]:
    """One or two sentences of a review and its verdict, one of a pair of about the same length."""
    made = []
    for kind in words("sentiment")["kinds"].values():
        for good, reviews in ((True, kind["praise"]), (False, kind["blame"])):
            for chosen in [(one,) for one in reviews] + list(combinations(reviews, 2)):
                thing, verdict = rng.choice(kind["it"]), rng.choice(words("sentiment")["verdicts"])
                text, *verdicts = (part.format(it=thing) for part in (f"{' '.join(chosen)} {verdict[0]}", *verdict[1:]))
                made.append(Draft(text, verdicts[not good], sure=[verdicts[good]]))
    rng.shuffle(made)
    yield from made
