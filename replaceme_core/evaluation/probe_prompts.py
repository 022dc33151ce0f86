"""Prompts of the generative probe, made from a seed, and the checks of what a model wrote.

Multiple choice asks which of a few answers is likeliest; a damaged model can still choose well and no longer write. The words and
forms are ones that the demo model knows and that any language model can follow; brackets and JSON are beyond the demo model.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

VERSION = "1"
"""changes with the prompts or the checks"""
_THINGS = "key cup ball book lamp hat coin map bell rope drum kite ring pen spoon knife bowl candle mirror bottle".split()  # noqa: SIM905
_NAMES = "Anna Bob Tom Mia Leo Eva Max Zoe Sam Lily Jack Nora".split()  # noqa: SIM905
_PLACES = "kitchen garden school shop park bedroom office barn".split()  # noqa: SIM905
_ORDINALS = ("first", "second", "third", "fourth")
_PAIRS = {"(": ")", "[": "]"}
_GRAM = 4


@dataclass(frozen=True)
class Prompt:
    """A prompt, the answer where there is a single one, and where writing may stop."""

    text: str
    wanted: str = ""
    ends: tuple[str, ...] = ("\n",)


@dataclass(frozen=True)
class Family:
    """One kind of prompt. `make` takes a generator; `grade` gives 1 or 0, or a rate, for a prompt and what was written."""

    about: str
    make: Callable[[random.Random], Prompt]
    grade: Callable[[Prompt, str], float]
    tokens: int
    """to write, at most"""
    metric: str = "acc"


def repetition(units: list[str]) -> float:
    """Share of runs of four units (words or tokens) that stood in the text before."""
    grams = [tuple(units[i : i + _GRAM]) for i in range(len(units) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def balanced(text: str) -> bool:
    """Whether every bracket is closed by its own kind, in order."""
    still_open: list[str] = []
    for sign in text:
        if sign in _PAIRS:
            still_open.append(_PAIRS[sign])
        elif sign in _PAIRS.values() and (not still_open or still_open.pop() != sign):
            return False
    return not still_open


def _arithmetic(rng: random.Random) -> Prompt:
    *examples, last = (_sum(rng) for _ in range(5))
    return Prompt(" ".join(f"{term} = {result}." for term, result in examples) + f" {last[0]} =", last[1], (".", "\n"))


def _sum(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        left, right = rng.randint(0, 10), rng.randint(0, 10)
        return f"{left} + {right}", str(left + right)
    left = rng.randint(2, 18)
    right = rng.randint(0, left)
    return f"{left} - {right}", str(left - right)


def _list(rng: random.Random) -> Prompt:
    items = rng.sample(_THINGS, 5)
    at = rng.randrange(len(_ORDINALS))
    return Prompt(f"List: {' '.join(items)}.\nWhat is {_ORDINALS[at]}?", items[at])


def _copy(rng: random.Random) -> Prompt:
    items = rng.sample(_THINGS, 6)
    return Prompt(f"Say: {' '.join(items)}.\nAgain:", f"{' '.join(items)}.", (".", "\n"))


def _brackets(rng: random.Random) -> Prompt:
    *examples, last = (_nested(rng) for _ in range(4))
    signs = last.split()
    return Prompt("\n".join(examples) + "\n" + " ".join(signs[: rng.randint(2, len(signs) - 1)]))


def _nested(rng: random.Random, depth: int = 3) -> str:
    start = rng.choice(list(_PAIRS))
    inner = [_nested(rng, depth - 1)] if depth > 1 else []
    if depth > 1 and rng.random() < 0.4:
        inner.append(_nested(rng, 1))
    return " ".join([start, *inner, _PAIRS[start]])


def _json(rng: random.Random) -> Prompt:
    rows = [json.dumps({"name": rng.choice(_NAMES), "age": rng.randint(5, 60), "has": rng.sample(_THINGS, 2)}) for _ in range(3)]
    return Prompt("\n".join(rows) + f'\n{{"name": "{rng.choice(_NAMES)}",')


def _story(rng: random.Random) -> Prompt:
    names, places, things = rng.sample(_NAMES, 3), rng.sample(_PLACES, 3), rng.sample(_THINGS, 2)
    told = [f"{name} is in the {place}." for name, place in zip(names, places, strict=True)]
    return Prompt(" ".join(told) + f" {names[0]} has the {things[0]}. {names[1]} has the {things[1]}.", ends=())


def _first_word(prompt: Prompt, said: str) -> float:
    found = re.search(r"\w+", said)
    return float(found is not None and found.group() == prompt.wanted)


def _same(prompt: Prompt, said: str) -> float:
    return float(" ".join(said.split()).rstrip(".") == prompt.wanted.rstrip("."))


def _balances(prompt: Prompt, said: str) -> float:
    written = said.split("\n")[0]
    return float(bool(written.strip()) and balanced(prompt.text.split("\n")[-1] + written))


def _parses(prompt: Prompt, said: str) -> float:
    line = prompt.text.split("\n")[-1] + said.split("\n")[0]
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return 0.0
    return float(isinstance(row, dict) and {"name", "age", "has"} <= row.keys())


FAMILIES = {
    "arithmetic": Family("sums and differences up to 20: is the number right?", _arithmetic, _first_word, 6),
    "list": Family("the second, third, … of five things: is the word right?", _list, _first_word, 6),
    "copy": Family("six words again in the same order: is every word right?", _copy, _same, 24),
    "brackets": Family("a line of brackets begun: does it balance in the end?", _brackets, _balances, 32),
    "json": Family("a row of JSON begun: does it parse, with the keys of the rows before?", _json, _parses, 40),
    "repetition": Family(
        "a story begun: which share of four-token runs stood there before? Lower is better", _story, lambda _p, _s: 0.0, 48, "repetition"
    ),
}
