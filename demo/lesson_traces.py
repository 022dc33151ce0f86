"""The figures of the app's Lesson page: `python -m demo.lesson_traces` measures them on the demo model (assets/lesson/*.json).

The page reads these files alone, so that it works at once, offline and with no model loaded. tests/ui/lesson/test_lesson_traces.py
computes some of them anew and compares. Everything is the library's own: one calibration pass, its fits, its comparison.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported, here through replaceme_core

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replaceme_core import __version__, refit, solvers
from replaceme_core.artifacts import LinearTransform, Measurement, ModelHandle, Span, SpanMoments
from replaceme_core.calibration.calibration import CalibrationSet, demo_documents, documents, prepare
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.comparison.compare import Divergence
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection
from replaceme_core.storage.folders import write_json
from replaceme_core.surgery import surgery

TARGET = Path(__file__).resolve().parent.parent / "assets" / "lesson"
TOKENS = 8192
"""calibration tokens: what *Start with the small demo, in seconds* measures, so that the app shows the same matrix"""
TEST_TOKENS = 4096
LENGTHS = (1, 2, 3, 4, 6)
METHODS = ("drop", "weighted_least_squares")
CLOSEST, FIRST, LAST = Span(5, 8), Span(1, 4), Span(9, 12)
TINY = (192, 256, 512, 1024, 2048, 4096, 8192)
"""calibration tokens of the fits that are starved, a tenth of them held out; the demo model's T has 128 x 128 unknowns"""
SOURCES = ("mixture", "stories", "questions", "facts", "random")
PROMPTS = (
    "Finn has the bottle. Dora is in the barn. Nora is in the office. Finn is in the school. Nora is poor and goes to the shop.\n"
    "Where is the bottle?",
    "Anna is in the barn. Anna has the map. Ben is in the shop. Anna goes to the shop. Anna gives the map to Ben.\nWho has the map?",
    "6 + 7 = 13. 4 + 4 = 8. 19 - 9 =",
)
NEW_TOKENS = 24
PARTS = ("matrix", "removals", "texts", "wrong", "refits")


@dataclass(frozen=True, eq=False)
class Bench:
    """What every trace is made from: the demo model, its calibration pass, and text that no fit has seen."""

    original: ModelHandle
    calibration: CalibrationSet
    measurement: Measurement
    text: TextPart


def bench() -> Bench:
    """Load the demo model and run the calibration pass: seconds."""
    original = loading.load(ModelSection(path="demo", device="cpu"))
    calibration = prepare(CalibrationSection(max_tokens=TOKENS), original.tokenizer)
    return Bench(original, calibration, measure(original, calibration), documents(original.tokenizer, TEST_TOKENS))


def matrix(on: Bench) -> dict[str, Any]:
    """Distances of every pair of boundaries, their spread over sequences, and the stream's length at each boundary."""
    distances = on.measurement.distances["all"]
    return {
        "model": on.original.name,
        "n_blocks": distances.n_blocks,
        "n_tokens": distances.n_tokens,
        "n_sequences": distances.n_sequences,
        "calibration": on.measurement.calibration_name,
        "distances": [[figure(value) for value in row] for row in distances.values.tolist()],
        "spread": [[figure(value) for value in row] for row in distances.spread.tolist()],
        "norms": [figure(value) for value in on.measurement.norms.tolist()],
    }


def removals(on: Bench, spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Each span simply removed and fitted: KL on the test documents with its interval, and the errors of the fit."""
    fits = [solvers.fit(on.measurement, span, method) for span in spans for method in METHODS]
    return rows(on, fits)


def refits(on: Bench, spans: Iterable[Span], methods: Iterable[str] = ("refit", "sequential_refit")) -> list[dict[str, Any]]:
    """The same for refits, which solve the weights that stay."""
    methods = tuple(methods)
    return rows(on, [refit.fit(on.original, on.calibration, span, method) for span in spans for method in methods])


def texts(on: Bench, spans: Iterable[Span], prompts: Iterable[str] = PROMPTS) -> list[dict[str, Any]]:
    """What the original, the cut and the fitted model write after each prompt: greedy, so that only the models differ."""
    systems: list[tuple[str | None, str, ModelHandle]] = [(None, "original", on.original)]
    for span in spans:
        for method in METHODS:
            systems.append((str(span), method, pruned(on, solvers.fit(on.measurement, span, method))))
    return [
        {"span": span, "method": method, "prompt": prompt, "text": "".join(compare.stream(handle, prompt, NEW_TOKENS))}
        for prompt in prompts
        for span, method, handle in systems
    ]


def starved(on: Bench, sizes: Iterable[int] = TINY) -> list[dict[str, Any]]:
    """Fits of the closest span on few tokens: error on their own train tokens, and on text that none of them saw."""
    unseen = unseen_moments(on, CLOSEST)
    found = []
    for size in sizes:
        few = measure(on.original, prepare(CalibrationSection(max_tokens=size), on.original.tokenizer), spans=[CLOSEST])
        for ridge in (0.0, None):
            transform = solvers.fit(few, CLOSEST, MethodSection(ridge=ridge))
            row = rows(on, [transform])[0]
            train = few.moments[CLOSEST, "end_norm"].train.error(transform.matrix)
            found.append(
                row | {"tokens": size, "no_ridge": ridge == 0.0, "train": figure(train), "unseen": figure(unseen.error(transform.matrix))}
            )
    return found


def sources(on: Bench, names: Iterable[str] = SOURCES) -> list[dict[str, Any]]:
    """The closest span fitted on each of the demo's calibration sets, judged on the same test documents."""
    found = []
    for name in names:
        section = CalibrationSection(source=f"demo:{name}", max_tokens=TOKENS)
        measured = measure(on.original, prepare(section, on.original.tokenizer), spans=[CLOSEST])
        found.append(rows(on, [solvers.fit(measured, CLOSEST, "weighted_least_squares")])[0] | {"source": name})
    return found


def unseen_moments(on: Bench, span: Span) -> SpanMoments:
    """The sums of the test documents, under the weights of the weighted fit: no fit reads them."""
    calibration = prepare(
        CalibrationSection(max_tokens=TEST_TOKENS, test_tokens=0), on.original.tokenizer, demo_documents(), "test documents"
    )
    moments = measure(on.original, calibration, spans=[span]).moments[span, "end_norm"]
    return moments.train + moments.heldout


def pruned(on: Bench, transform: LinearTransform) -> ModelHandle:
    return surgery.prune(on.original, transform, f"{transform.method} {transform.span}").handle


def rows(on: Bench, transforms: list[LinearTransform]) -> list[dict[str, Any]]:
    """One row per transform: merged, proved, and compared with the original on the test documents."""
    found = compare.divergence(on.original, [pruned(on, transform) for transform in transforms], on.text)
    return [row(transform, result) for transform, result in zip(transforms, found[1:], strict=True)]


def row(transform: LinearTransform, found: Divergence) -> dict[str, Any]:
    return {
        "span": str(transform.span),
        "method": transform.method,
        "kl": figure(found.kl),
        "low": figure(found.kl_low),
        "high": figure(found.kl_high),
        "perplexity": figure(found.perplexity),
        "agreement": figure(found.agreement),
        "error": figure(transform.report.heldout_error),
    }


def figure(value: float) -> float:
    """Five digits: what a picture shows, and what keeps the files small."""
    return float(f"{value:.5g}")


def made(on: Bench) -> dict[str, Any]:
    """How the figures of a file came about."""
    return {
        "command": "python -m demo.lesson_traces",
        "version": __version__,
        "model": on.original.name,
        "width": on.original.width,
        "calibration": on.measurement.calibration_name,
        "calibration_tokens": on.measurement.n_tokens,
        "heldout_tokens": sum(len(sequence) - 1 for sequence in on.text.sequences),
        "heldout_sequences": len(on.text.sequences),
    }


def places(on: Bench) -> list[Span]:
    """Every span of the lengths that the lesson asks about."""
    n_blocks = on.original.n_blocks
    return [Span(start, start + length) for length in LENGTHS for start in range(1, n_blocks - length + 1)]


def main() -> int:
    """Measure everything and write it; a few minutes on two cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="files to make anew")
    asked = parser.parse_args().only
    began = time.perf_counter()
    on = bench()
    about = made(on)
    shown = (CLOSEST, FIRST, LAST)
    parts = {
        "matrix": lambda: {"matrix": matrix(on)},
        "removals": lambda: {"rows": removals(on, places(on))},
        "texts": lambda: {"new_tokens": NEW_TOKENS, "rows": texts(on, shown)},
        "wrong": lambda: {"starved": starved(on), "sources": sources(on)},
        "refits": lambda: {"rows": refits(on, shown)},
    }
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in asked:
        write_json(TARGET / f"{name}.json", {"made": about} | parts[name]())
        print(f"{name}.json after {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
