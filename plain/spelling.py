"""The family of spelling: plurals and past tenses among the misspellings that a rule would give."""

import random
from collections.abc import Iterator

from plain.drafts import Draft
from plain.words import words


def spelling(rng: random.Random) -> Iterator[Draft]:
    """One and two of a thing; every day and yesterday."""
    for one, many in words("spelling")["plurals"].items():
        lead = rng.choice(
            ["Here is one {}, and over there are two", "First I saw one {}, and then I saw many", "He has only one {}, but she has three"]
        )
        yield Draft(lead.format(one), many, sure=[one], pool=_misspelled_plurals(one, many))
    for verb, (past, participle, said_of) in words("spelling")["pasts"].items():
        sure = [participle] if participle and participle not in (past, verb) else [verb]
        yield Draft(f"Every day they {verb} {said_of}. Yesterday they also", past, sure=sure, pool=_misspelled_pasts(verb, past))


def _misspelled_plurals(one: str, many: str) -> list[str]:
    """What rules for other words would make of it."""
    forms = [f"{one}s", f"{one}es", f"{one}en", f"{many}s", f"{one}'s", f"{one}{one[-1]}es", *_slips(many)]
    if one.endswith("y"):
        forms += [f"{one.removesuffix('y').removesuffix('e')}ies", f"{one[:-1]}ys"]
    if one.endswith(("f", "fe")):
        forms += [f"{one.removesuffix('e')[:-1]}ves", f"{one.removesuffix('e')}es"]
    return [form for form in forms if form != many]


def _misspelled_pasts(verb: str, past: str) -> list[str]:
    """What rules for other words would make of it."""
    forms = [f"{verb}ed", f"{past}ed", f"{verb}t", f"{verb}{verb[-1]}ed", f"{verb}d", *_slips(past)]
    forms += [f"{verb[:-1]}ied"] if verb.endswith("y") else []
    return [form for form in forms if form != past]


def _slips(word: str) -> list[str]:
    """A longer word with an inner letter left out, or two of them in the wrong order."""
    if len(word) < 5:
        return []
    left_out = [word[:at] + word[at + 1 :] for at in range(2, len(word) - 1)]
    return left_out + [word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(1, len(word) - 2)]
