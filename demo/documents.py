"""What a document of the demo corpus is, and which side of the split its text belongs to."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

TRAIN, CALIBRATION, BENCH = "train", "calibration", "bench"


@dataclass(frozen=True)
class Ask:
    """One question; the answer is one word and is among the choices. `family` is a benchmark family or ''."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()
    family: str = ""


@dataclass(frozen=True)
class Document:
    """A context (may be empty), questions about it, a tail that repeats it; `text` is what the model reads."""

    context: str
    asks: tuple[Ask, ...] = ()
    tail: str = ""

    @property
    def text(self) -> str:
        lines = [line for line in (self.context, self.tail) if line]
        return "\n".join(lines + [f"{ask.question} {ask.answer}" for ask in self.asks])

    def item(self, ask: Ask) -> str:
        """What a benchmark shows before the choices: the context and one question."""
        return f"{self.context}\n{ask.question}" if self.context else ask.question


def side(key: str) -> str:
    """The side of the split that owns a context: a hash of the text decides, so the sides are disjoint by
    construction, whatever the seeds. 1/16 bench and held-out, 1/16 calibration, the rest training."""
    bucket = zlib.crc32(key.encode()) % 16
    return {0: BENCH, 1: CALIBRATION}.get(bucket, TRAIN)


def part_on(document: Document, wanted: str) -> Document | None:
    """What of a document belongs to one side: all or nothing where there is a context, else the questions
    of that side, each of which stands alone; None where nothing is left."""
    if document.context:
        return document if side(document.context) == wanted else None
    asks = tuple(ask for ask in document.asks if side(ask.question) == wanted)
    return Document("", asks) if asks else None


def choose(rng: random.Random, answer: str, pool: Sequence[str], count: int = 4) -> tuple[str, ...]:
    """`count` distinct choices in random order: the answer and others drawn from the pool."""
    others = sorted({word for word in pool if word != answer})
    picked = [answer, *rng.sample(others, min(count - 1, len(others)))]
    rng.shuffle(picked)
    return tuple(picked)
