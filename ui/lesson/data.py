"""The lesson's bundled figures (assets/lesson, made by `python -m demo.lesson_traces`), read without torch, and those of a loaded model."""

import json
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from replaceme_core.span import Span
from ui.lesson.state import DEMO, REAL, LessonState
from ui.session.state import Studio

FOLDER = Path(__file__).resolve().parent.parent.parent / "assets" / "lesson"
DROP, FITTED = "drop", "weighted_least_squares"
REFIT, AROUND, SEQUENTIAL = "refit", "local_refit", "sequential_refit"
NAMES = ("matrix", "removals", "texts", "wrong", "refits")
TITLES = {REAL: "SmolLM2-135M, a real language model", DEMO: "the demo model, 12 small blocks"}


@dataclass(frozen=True)
class Removal:
    """One span after one method: KL to the original on test text with its 95 % interval, and the fit's held-out error."""

    span: Span
    method: str
    kl: float
    low: float
    high: float
    perplexity: float
    agreement: float
    error: float

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Removal":
        return cls(_span(row["span"]), **{name: row[name] for name in ("method", "kl", "low", "high", "perplexity", "agreement", "error")})


@dataclass(frozen=True)
class Written:
    """What one system wrote after a prompt; the original has no span."""

    span: str | None
    method: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Starved:
    """A fit on few tokens: error on its own train tokens, on text that it never saw, and the KL."""

    tokens: int
    no_ridge: bool
    train: float
    unseen: float
    kl: float


@dataclass(frozen=True, eq=False)
class Stream:
    """What one calibration pass says about a model's stream, bundled or live."""

    model: str
    values: np.ndarray
    """[start, end] distance, NaN below the diagonal"""
    norms: np.ndarray
    """mean length of the stream at every boundary"""
    n_tokens: int
    n_sequences: int
    calibration: str
    live: bool

    @property
    def n_blocks(self) -> int:
        return len(self.values) - 1

    @property
    def single(self) -> np.ndarray:
        """The distance across each block alone."""
        return np.array([self.values[block, block + 1] for block in range(self.n_blocks)])

    def said(self) -> str:
        """What was measured, and on what."""
        return f"{self.model}, {self.calibration}: {self.n_tokens:,} tokens in {self.n_sequences} sequences, all of them, one pass"


@dataclass(frozen=True)
class Block:
    """What one block of the bundled model is made of."""

    weights: dict[str, tuple[int, ...]]
    """shape by name, inputs last"""
    heads: int
    kv_heads: int
    writer: str
    """the output projection that T is merged into"""

    @property
    def n_parameters(self) -> int:
        return sum(prod(shape) for shape in self.weights.values())


@dataclass(frozen=True, eq=False)
class Traces:
    """Everything the bundled figures are drawn from."""

    made: dict[str, Any]
    stream: Stream
    removals: dict[tuple[Span, str], Removal]
    texts: tuple[Written, ...]
    starved: tuple[Starved, ...]
    sources: dict[str, Removal]
    """the closest span fitted on each calibration set, the course's own first"""
    block: Block
    spans: dict[str, Span]
    """the spans that the lesson returns to: 'closest', 'first', 'last'"""
    rounds: tuple[int, ...]
    """blocks to choose in each round of the game; the first is the length of the spans above"""

    @property
    def length(self) -> int:
        return self.rounds[0]

    @property
    def closest(self) -> Span:
        return self.spans["closest"]

    @property
    def first(self) -> Span:
        return self.spans["first"]

    @property
    def last(self) -> Span:
        return self.spans["last"]

    @property
    def unknowns(self) -> int:
        """Entries of T."""
        return int(self.made["width"]) ** 2

    def of_length(self, length: int, method: str) -> list[Removal]:
        """All places of a span of this many blocks, by ascending start."""
        return sorted((row for (span, name), row in self.removals.items() if len(span) == length and name == method), key=lambda r: r.span)

    def best(self, length: int, method: str = DROP) -> Removal:
        """The place that costs least."""
        return min(self.of_length(length, method), key=lambda row: row.kl)

    def lengths(self) -> list[int]:
        return sorted({len(span) for span, method in self.removals if method == DROP})

    def prompts(self) -> list[str]:
        return list(dict.fromkeys(text.prompt for text in self.texts))

    def written(self, prompt: str, span: Span | None, method: str) -> str:
        """The text of one system; `span` None is the original."""
        name = str(span) if span else None
        return next(text.text for text in self.texts if (text.prompt, text.span, text.method) == (prompt, name, method))

    def heldout(self) -> str:
        """On what the KL was measured."""
        return f"{self.made['heldout_tokens']:,} tokens in {self.made['heldout_sequences']} test sequences"

    def fitted_on(self) -> str:
        return f"{self.made['calibration_tokens']:,} tokens of {self.made['calibration']}"


def models() -> list[str]:
    """Whose figures are here, the real one first."""
    return [model for model in TITLES if all((FOLDER / model / f"{name}.json").is_file() for name in NAMES)]


@cache
def traces(model: str = REAL) -> Traces:
    """The bundled figures of one model; read once per process."""
    files = {name: json.loads((FOLDER / model / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}
    made, block = files["matrix"]["made"], files["matrix"]["block"]
    matrix = files["matrix"]["matrix"]
    values = np.array([[np.nan if value is None else value for value in row] for row in matrix["distances"]], dtype=float)
    rows = [Removal.of(row) for row in [*files["removals"]["rows"], *files["refits"]["rows"]]]
    starved = [
        Starved(**{name: row[name] for name in ("tokens", "no_ridge", "train", "unseen", "kl")}) for row in files["wrong"]["starved"]
    ]
    return Traces(
        made=made,
        stream=Stream(
            matrix["model"],
            values,
            np.array(matrix["norms"]),
            matrix["n_tokens"],
            matrix["n_sequences"],
            matrix["calibration"],
            live=False,
        ),
        removals={(row.span, row.method): row for row in rows},
        texts=tuple(Written(**row) for row in files["texts"]["rows"]),
        starved=tuple(starved),
        sources={row["source"]: Removal.of(row) for row in files["wrong"]["sources"]},
        block=Block(**block | {"weights": {name: tuple(shape) for name, shape in block["weights"].items()}}),
        spans={name: _span(said) for name, said in made["shown"].items()},
        rounds=tuple(made["rounds"]),
    )


def _span(said: str) -> Span:
    return Span(*map(int, said.split(":")))


def stream_of(state: Studio) -> Stream:
    """The stream of the loaded model where that is asked for and measured; else the bundled one."""
    own, measured, resident = state.slot(LessonState), state.measurement, state.resident
    if not own.live or measured is None or resident is None or measured.n_blocks < 4:
        return traces(own.model).stream
    distances = measured.distances["all"]
    return Stream(
        resident.handle.name,
        distances.values.numpy(),
        measured.norms.numpy(),
        distances.n_tokens,
        distances.n_sequences,
        measured.calibration_name,
        live=True,
    )
