"""Families of grammar as minimal pairs: two ways to go on that differ in one form, one of them right."""

import random
from collections.abc import Iterator

from plain.drafts import Draft
from plain.words import words


def agreement(rng: random.Random) -> Iterator[Draft]:
    """A verb after a subject with another noun in between, of the other number more often than not."""
    lists = words("grammar")
    while True:
        person = rng.random() < 0.7
        many, other_many = rng.random() < 0.5, rng.random() < 0.5
        head = rng.choice(lists["people"] if person else lists["things"])[many]
        other = rng.choice([pair for pair in lists["things"] if head not in pair])[other_many]
        between = rng.choice(lists["beside"])
        if person and rng.random() < 0.3:
            between, other = rng.choice(["with the keys to", "who came out of"]), rng.choice(lists["buildings"])[other_many]
        acts = rng.choice(lists["acts"] if person else lists["states"])
        yield Draft(f"The {head} {between} the {other}", acts[many], sure=[acts[not many]])


def reflexives(rng: random.Random) -> Iterator[Draft]:
    """himself, herself, themselves and the like after the one they stand for, sometimes with another person in between."""
    lists = words("grammar")
    kinds = {"himself": lists["masculine"], "herself": lists["feminine"], "themselves": lists["groups"]}
    first = {"I": "myself", "We": "ourselves"}
    while True:
        verb, tail = rng.choice(lists["selves"]), rng.choice(lists["tails"])
        if rng.random() < 0.15:
            subject = rng.choice(list(first))
            right, wrong = first[subject], rng.choice(["yourself", "himself", "themselves", *first.values()])
            if wrong == right:
                continue
        else:
            right, wrong = rng.sample(list(kinds), 2)
            subject = rng.choice(kinds[right])
            if rng.random() < 0.4:
                subject += f", who had come with {rng.choice(kinds[wrong])},"
        yield Draft(f"{subject[0].upper()}{subject[1:]} {verb}", f"{right} {tail}.", sure=[f"{wrong} {tail}."])


def determiners(rng: random.Random) -> Iterator[Draft]:
    """a and an, this and these, many and much, each and all, before the noun they go with."""
    makers = (_articles, _pointers, _amounts, _each)
    while True:
        yield rng.choice(makers)(rng, words("grammar"))


def _articles(rng: random.Random, lists: dict) -> Draft:
    vowel = rng.random() < 0.5
    noun = rng.choice(lists["vowel"] if vowel else lists["consonant"])
    lead = rng.choice(["The story is about", "She could not stop thinking about", "In his dream there was", "The last picture shows"])
    right, wrong = ("an", "a") if vowel else ("a", "an")
    return Draft(lead, f"{right} {noun}", sure=[f"{wrong} {noun}"])


def _pointers(rng: random.Random, lists: dict) -> Draft:
    many = rng.random() < 0.5
    noun = rng.choice(lists["countable"])[many]
    pair = rng.choice([("this", "these"), ("that", "those")])
    between = rng.choice(["", "wonderful ", "very old ", "small grey ", "long since forgotten ", "other "])
    lead = rng.choice(
        ["Nobody has ever asked about", "She took a photograph of", "My father painted", "Please look at", "We came here because of"]
    )
    return Draft(lead, f"{pair[many]} {between}{noun}", sure=[f"{pair[not many]} {between}{noun}"])


def _amounts(rng: random.Random, lists: dict) -> Draft:
    pair = rng.choice([("many", "much"), ("few", "little")])
    counted = rng.random() < 0.5
    noun = rng.choice(lists["countable"])[1] if counted else rng.choice(lists["uncountable"])
    lead = rng.choice(["In this house there has always been too", "The trouble is that they have far too", "He complained that we had too"])
    lead = lead.replace("has always been", "have always been") if counted else lead
    return Draft(lead, f"{pair[not counted]} {noun}", sure=[f"{pair[counted]} {noun}"])


def _each(rng: random.Random, lists: dict) -> Draft:
    many = rng.random() < 0.5
    noun = rng.choice(lists["countable"])
    between = rng.choice(["", "very old ", "badly painted ", "strange little ", "hidden "])
    word = rng.choice(["both", "several", "all those", "a dozen"] if many else ["each", "every", "one", "another"])
    lead = rng.choice(["She pointed at", "The man behind us counted", "I shall never forget", "They talked about"])
    return Draft(f"{lead} {word}", f"{between}{noun[many]} there", sure=[f"{between}{noun[not many]} there"])


def negation(rng: random.Random) -> Iterator[Draft]:
    """ever, yet and any under a negation; the verb after do not and has not; neither with nor."""
    makers = (_polarity, _polarity, _do_support, _do_support, _perfect, _neither)
    while True:
        yield rng.choice(makers)(rng, words("grammar"))


# [with a negation, without one]; {one} and {many} are people
_POLAR = [
    ("nobody", "somebody"), ("no one", "everyone"), ("nobody in town", "the mayor"), ("hardly anybody", "almost everybody"),
    ("none of the {many}", "most of the {many}"), ("not one of the {many}", "one of the {many}"), ("neither of the {many}", "both of the {many}"),
    ("not a single {one}", "every single {one}"), ("no other {one}", "the other {one}"), ("hardly any {one}", "nearly every {one}"),
]  # fmt: skip
_LICENSED = [
    "had ever seen snow", "had ever been to London", "knew anything about it", "bought any bread", "had arrived yet", "had ever heard of him",
    "cared at all", "had ever eaten there", "found any mistakes", "wanted to go there any more", "said anything to her", "had finished yet",
]  # fmt: skip


def _polarity(rng: random.Random, lists: dict) -> Draft:
    """A word that needs a negation above it; in every third item there is one in either sentence, but in the wrong one not above it."""
    lead = rng.choice(["I remember that", "She told us that", "He wrote to me that", "It is a fact that", "We heard that", "It seems that"])
    one, many = rng.choice(lists["people"])
    no, yes = (subject.format(one=one, many=many) for subject in rng.choice(_POLAR))
    act = rng.choice(_LICENSED)
    if rng.random() < 0.35:
        other = rng.choice([pair[1] for pair in lists["people"] if pair[1] != many])
        verb = rng.choice(["liked", "had met", "talked about", "trusted"])
        no, yes = f"no {one} that the {other} {verb}", f"the {one} that no {other} {verb}"
    return Draft(lead, f"{no} {act}.", sure=[f"{yes} {act}."])


def _do_support(rng: random.Random, lists: dict) -> Draft:
    base, third, past, _ = rng.choice(lists["verbs"])
    thing = lists["objects"][base]
    name = rng.choice([name for names in words("names").values() for name in names])
    kind = rng.randrange(3)
    if kind == 0:
        return Draft(f"{name} did not", f"{base} {thing}.", sure=[f"{past} {thing}."])
    if kind == 1:
        return Draft(f"On Sundays {name} does not", f"{base} {thing}.", sure=[f"{third} {thing}."])
    people, right, wrong = rng.choice([(name, "does", "do"), (f"{name}'s parents", "do", "does")])
    return Draft(f"On Sundays {people}", f"{right} not {base} {thing}.", sure=[f"{wrong} not {base} {thing}."])


def _perfect(rng: random.Random, lists: dict) -> Draft:
    base, _, past, participle = rng.choice([verb for verb in lists["verbs"] if verb[2] != verb[3]])
    name = rng.choice([name for names in words("names").values() for name in names])
    thing = lists["objects"][base]
    return Draft(f"Up to now {name} has not", f"{participle} {thing}.", sure=[f"{past} {thing}."])


def _neither(rng: random.Random, _: dict) -> Draft:
    name = rng.choice([name for names in words("names").values() for name in names])
    drinks = rng.sample(["tea", "coffee", "milk", "cocoa", "lemonade", "water"], 2)
    pair, right, wrong = rng.choice([("neither", "nor", "or"), ("either", "or", "nor")])
    tail = "after supper" if pair == "either" else "this time"
    lead = "wanted" if pair == "neither" else "always drinks"
    return Draft(f"{name} {lead} {pair} {drinks[0]}", f"{right} {drinks[1]} {tail}.", sure=[f"{wrong} {drinks[1]} {tail}."])
