"""The figures of the app's Lesson page (assets/lesson): `python -m demo.lesson_traces --model smollm2` measures those of a real model, without it those of the demo.

The page reads these files alone, so that it works at once, offline and with no model loaded. tests/ui/lesson/test_lesson_traces.py
computes some of them anew and compares. Everything is the library's own: one calibration pass, its fits, its comparison.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported, here through replaceme_core

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from demo.lesson_courses import COURSES, DEMO, Course
from replaceme_core import __version__, refit, solvers
from replaceme_core.artifacts import LinearTransform, Measurement, ModelHandle, Span, SpanMoments
from replaceme_core.calibration.calibration import CalibrationSet, demo_documents, prepare
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.comparison.compare import Divergence
from replaceme_core.comparison.tails import Tail, Tails
from replaceme_core.comparison.texts import comparison_text
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.plans.plan import MethodSection, ModelSection
from replaceme_core.selection import spans
from replaceme_core.storage.folders import write_json
from replaceme_core.surgery import surgery

TARGET = Path(__file__).resolve().parent.parent / "assets" / "lesson"
METHODS = ("drop", "weighted_least_squares")
PARTS = ("matrix", "removals", "texts", "wrong", "refits")


@dataclass(frozen=True, eq=False)
class Bench:
    """What every trace is made from: a model, its calibration pass, and text that no fit has seen."""

    course: Course
    original: ModelHandle
    calibration: CalibrationSet
    measurement: Measurement
    text: TextPart

    @cached_property
    def tails(self) -> Tails:
        """The original's streams on the test text, read when first asked for."""
        return Tails(self.original, self.text)

    @property
    def shown(self) -> dict[str, Span]:
        """The spans that the lesson returns to."""
        course, n_blocks = self.course, self.original.n_blocks
        first, last = course.ends(n_blocks)
        closest = course.closest or spans.best(self.measurement.distances["all"], course.rounds[0])
        return {"closest": closest, "first": first, "last": last}


def bench(course: Course = DEMO, everywhere: bool = True) -> Bench:
    """Load the model and run the calibration pass; the sums of every place, or those of the lengths that are shown throughout."""
    original = loading.load(ModelSection(path=course.path, device="cpu"))
    calibration = prepare(course.calibration, original.tokenizer)
    measurement = measure(
        original, calibration, spans=places(course, original.n_blocks, course.lengths if everywhere else course.rounds[:1])
    )
    return Bench(course, original, calibration, measurement, comparison_text(original, course.path, calibration, course.test_tokens))


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
    """Each span simply removed and fitted: KL on the test text with its interval, and the errors of the fit."""
    return rows(on, [solvers.fit(on.measurement, span, method) for span in spans for method in METHODS])


def refits(on: Bench, spans: Iterable[Span], methods: Iterable[str] = ("refit", "local_refit", "sequential_refit")) -> list[dict[str, Any]]:
    """The same for refits, which solve the weights that stay."""
    methods = tuple(methods)
    return rows(
        on, [refit.fit(on.original, on.calibration, span, method, store=on.measurement.store) for span in spans for method in methods]
    )


def texts(on: Bench, spans: Iterable[Span], prompts: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """What the original, the cut and the fitted model write after each prompt: greedy, so that only the models differ."""
    systems: list[tuple[str | None, str, ModelHandle]] = [(None, "original", on.original)]
    for span in spans:
        for method in METHODS:
            systems.append((str(span), method, pruned(on, solvers.fit(on.measurement, span, method))))
    return [
        {"span": span, "method": method, "prompt": prompt, "text": "".join(compare.stream(handle, prompt, on.course.new_tokens))}
        for prompt in (on.course.prompts if prompts is None else prompts)
        for span, method, handle in systems
    ]


def starved(on: Bench, sizes: Iterable[int] | None = None) -> list[dict[str, Any]]:
    """Fits of the closest span on few tokens: error on their own train tokens, and on text that none of them saw."""
    closest = on.shown["closest"]
    unseen = unseen_moments(on, closest)
    found = []
    for size in on.course.sizes if sizes is None else sizes:
        section = on.course.calibration.model_copy(update={"max_tokens": size})
        few = measure(on.original, prepare(section, on.original.tokenizer), spans=[closest])
        for ridge in (0.0, None):
            transform = solvers.fit(few, closest, MethodSection(ridge=ridge))
            row = rows(on, [transform])[0]
            train = few.moments[closest, "end_norm"].train.error(transform.matrix)
            found.append(
                row | {"tokens": size, "no_ridge": ridge == 0.0, "train": figure(train), "unseen": figure(unseen.error(transform.matrix))}
            )
    return found


def sources(on: Bench, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """The closest span fitted on other calibration texts, judged on the same test text."""
    found, closest = [], on.shown["closest"]
    for name in on.course.sources if names is None else names:
        section = on.course.calibration.model_copy(update={"source": on.course.sources[name]})
        own = section == on.course.calibration
        measured = on.measurement if own else measure(on.original, prepare(section, on.original.tokenizer), spans=[closest])
        found.append(rows(on, [solvers.fit(measured, closest, "weighted_least_squares")])[0] | {"source": name})
    return found


def unseen_moments(on: Bench, span: Span) -> SpanMoments:
    """The sums of text of the test part, under the weights of the weighted fit: no fit reads them."""
    documents = demo_documents() if on.course.path == "demo" else None
    section = on.course.calibration.model_copy(
        update={"max_tokens": 4096 if documents else 2048, "test_tokens": 0, "source": "demo:mixture"}
    )
    texts = documents or [on.original.tokenizer.decode(row, skip_special_tokens=True) for row in on.calibration.test]
    calibration = prepare(section, on.original.tokenizer, texts, "test text")
    moments = measure(on.original, calibration, spans=[span]).moments[span, "end_norm"]
    return moments.train + moments.heldout


def pruned(on: Bench, transform: LinearTransform) -> ModelHandle:
    return surgery.prune(on.original, transform, f"{transform.method} {transform.span}").handle


def rows(on: Bench, transforms: list[LinearTransform]) -> list[dict[str, Any]]:
    """One row per transform: merged, proved, and compared with the original on the test text; or, of one matrix in a long course, by its tail."""
    if on.course.by_tails and not any(transform.weights for transform in transforms):
        return [row(transform, tail_of(on, transform).quality) for transform in transforms]
    found = compare.divergence(on.original, [pruned(on, transform) for transform in transforms], on.text)
    return [row(transform, result) for transform, result in zip(transforms, found[1:], strict=True)]


def tail_of(on: Bench, transform: LinearTransform) -> Tail:
    """One place, by the blocks behind it alone."""
    found = on.tails.measure([transform])[0]
    if not isinstance(found, Tail):
        raise found
    return found


def row(transform: LinearTransform, found: Divergence) -> dict[str, Any]:
    assert found.kl_low is not None, "the text is of ten documents or more"
    assert found.kl_high is not None
    figures = {"kl": found.kl, "low": found.kl_low, "high": found.kl_high, "perplexity": found.perplexity, "agreement": found.agreement}
    said = {name: figure(value) for name, value in figures.items()}
    return {"span": str(transform.span), "method": transform.method} | said | {"error": figure(transform.report.heldout_error)}


def figure(value: float) -> float:
    """Five digits: what a picture shows, and what keeps the files small."""
    return float(f"{value:.5g}")


def made(on: Bench) -> dict[str, Any]:
    """How the figures of a file came about, and what the lesson shows of them."""
    return {
        "command": f"python -m demo.lesson_traces --model {on.course.path}",
        "version": __version__,
        "model": on.original.name,
        "width": on.original.width,
        "calibration": on.measurement.calibration_name,
        "calibration_tokens": on.measurement.n_tokens,
        "heldout_tokens": sum(len(sequence) - 1 for sequence in on.text.sequences),
        "heldout_sequences": len(on.text.sequences),
        "shown": {name: str(span) for name, span in on.shown.items()},
        "rounds": list(on.course.rounds),
    }


def block(on: Bench) -> dict[str, Any]:
    """The weights of one block with their shapes, and its heads, read off the model."""
    with on.original.borrow() as model:
        weights = {name: list(weight.shape) for name, weight in blocks_of(model, on.original.family)[1].named_parameters()}
        config = model.config
    heads = config.num_attention_heads
    return {"weights": weights, "heads": heads, "kv_heads": config.num_key_value_heads or heads, "writer": on.original.family.writer}


def places(course: Course, n_blocks: int, lengths: Iterable[int] | None = None) -> list[Span]:
    """Every span of the lengths that the lesson asks about."""
    return [
        Span(start, start + length)
        for length in (course.lengths if lengths is None else lengths)
        for start in range(1, n_blocks - length + 1)
    ]


def main() -> int:
    """Measure everything and write it: a few minutes for the demo model on two cores, about ten for SmolLM2, and some ten more for its refits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(COURSES), default="demo", help="whose lesson")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="files to make anew")
    asked = parser.parse_args()
    began = time.perf_counter()
    on = bench(COURSES[asked.model], everywhere="removals" in asked.only)
    about, shown = made(on), list(on.shown.values())
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "matrix": lambda: {"matrix": matrix(on), "block": block(on)},
        "removals": lambda: {"rows": removals(on, places(on.course, on.original.n_blocks))},
        "texts": lambda: {"new_tokens": on.course.new_tokens, "rows": texts(on, shown)},
        "wrong": lambda: {"starved": starved(on), "sources": sources(on)},
        "refits": lambda: {"rows": refits(on, shown)},
    }
    folder = TARGET / on.course.path
    folder.mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        write_json(folder / f"{name}.json", {"made": about} | parts[name]())
        print(f"{name}.json after {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
