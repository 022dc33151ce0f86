"""Measure what the demo model teaches: `python -m demo.lesson` (writes its table into demo/README.md).

For every span of a quarter of the blocks: cosine distance, KL on test documents and benchmark average with no transform in the gap,
plain and weighted least squares. Four claims are checked on the figures; the exit status is 1 if one fails.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported, here through replaceme_core

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from replaceme_core import solvers
from replaceme_core.artifacts import Measurement, ModelHandle, Span
from replaceme_core.calibration.calibration import documents, prepare
from replaceme_core.comparison import compare
from replaceme_core.evaluation import evaluate
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ModelSection
from replaceme_core.selection import spans
from replaceme_core.surgery import surgery

README = Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- lesson: begin -->", "<!-- lesson: end -->"
METHODS = ("drop", "least_squares", "weighted_least_squares")
SHARE = 0.25


@dataclass(frozen=True)
class Result:
    """One span after one method: KL to the original in nats per token of test documents, mean accuracy over the families."""

    span: Span
    distance: float
    method: str
    kl: float
    average: float
    by_task: dict[str, float]


def accuracies(scores: evaluate.Scores) -> dict[str, float]:
    """Accuracy of every multiple-choice task; perplexity tasks have none."""
    primary = {task: scores.primary(task) for task in scores.results}
    return {task: score.value for task, score in primary.items() if score is not None}


def run_one(original: ModelHandle, measurement: Measurement, span: Span, method: str, args: argparse.Namespace) -> Result:
    """Fit, merge, compare and evaluate one span with one method."""
    variant = surgery.prune(original, solvers.fit(measurement, span, method), f"{method} {span}")
    text = documents(original.tokenizer, args.test_tokens)
    kl = compare.divergence(original, [variant.handle], text)[1].kl
    found = accuracies(evaluate.evaluate(variant.handle, EvaluationSection(limit=args.limit)))
    distance = measurement.distances["all"].at(span)
    return Result(span, distance, method, kl, sum(found.values()) / len(found), found)


def claims(results: list[Result], dense: float) -> list[tuple[str, bool]]:
    """The four sentences of the lesson, each with whether the figures bear it out."""
    drop = [r for r in results if r.method == "drop"]
    by = {(r.span, r.method): r for r in results}
    closest, worst = min(drop, key=lambda r: r.distance), min(drop, key=lambda r: r.average)
    mended = by[closest.span, "weighted_least_squares"].average / dense
    kept, left = closest.average / dense, worst.average / dense
    frame = pd.DataFrame({"distance": [r.distance for r in drop], "kl": [r.kl for r in drop], "loss": [-r.average for r in drop]})
    rank = frame.corr(method="spearman")["distance"]
    beaten = sum(by[r.span, "weighted_least_squares"].kl < r.kl for r in drop)
    return [
        (
            f"The closest span, {closest.span}, keeps {kept:.1%} of the benchmark average with no transform in the gap (claim: at least 90 %), and "
            f"{mended:.1%} with weighted least squares, the T that the Fit page begins with, which is not claimed.",
            kept >= 0.9,
        ),
        (
            f"The worst span, {worst.span}, keeps {left:.1%} with no transform in the gap (claim: at least 10 points less than the closest).",
            kept - left >= 0.1,
        ),
        (
            f"Distance and damage rise together over the {len(drop)} spans: Spearman {rank['kl']:.2f} with KL, "
            f"{rank['loss']:.2f} with lost accuracy (claim: both at least 0.5).",
            min(rank["kl"], rank["loss"]) >= 0.5,
        ),
        (
            f"Weighted least squares has a lower KL on test documents than no transform on {beaten} of {len(drop)} spans (claim: all).",
            beaten == len(drop),
        ),
    ]


def table(results: list[Result], dense: dict[str, float]) -> str:
    """Markdown: one row per span, KL and share of the original average for each method; then a row per family."""
    average = sum(dense.values()) / len(dense)
    by = {(r.span, r.method): r for r in results}
    lines = [
        "| span | cosine distance | KL, no transform | KL, LS | KL, weighted LS | kept, no transform | kept, LS | kept, weighted LS |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for span in sorted({r.span for r in results}):
        row = [by[span, method] for method in METHODS]
        cells = [f"{r.kl:.3f}" for r in row] + [f"{r.average / average:.1%}" for r in row]
        lines.append(f"| {span} | {row[0].distance:.3f} | " + " | ".join(cells) + " |")
    closest = min((r for r in results if r.method == "drop"), key=lambda r: r.distance).span
    worst = min((r for r in results if r.method == "drop"), key=lambda r: r.average).span
    columns = [(closest, "drop"), (closest, "weighted_least_squares"), (worst, "drop"), (worst, "weighted_least_squares")]
    lines += ["", f"Accuracy by family: original, closest span ({closest}) and worst span ({worst}).", ""]
    lines.append(
        "| family | original | " + " | ".join(f"{s} {'no transform' if m == 'drop' else m.replace('_', ' ')}" for s, m in columns) + " |"
    )
    lines.append("|---" * (2 + len(columns)) + "|")
    for task in dense:
        lines.append(f"| {task} | {dense[task]:.3f} | " + " | ".join(f"{by[c].by_task[task]:.3f}" for c in columns) + " |")
    return "\n".join([*lines, f"| average | {average:.3f} | " + " | ".join(f"{by[c].average:.3f}" for c in columns) + " |"])


def write_readme(text: str) -> None:
    """Put the text between the markers of demo/README.md."""
    old = README.read_text(encoding="utf-8")
    new = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{text}\n{END}", old, flags=re.DOTALL)
    README.write_text(new, encoding="utf-8")


def main() -> int:
    """Measure, print, write into the README; 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=None, help="items per task; all by default")
    parser.add_argument("--tokens", type=int, default=16384, help="calibration tokens of the mixture set")
    parser.add_argument("--test-tokens", type=int, default=8192)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--no-readme", action="store_true", help="print only")
    args = parser.parse_args()
    began = time.perf_counter()
    original = loading.load(ModelSection(path=args.model, device="cpu"))
    section = CalibrationSection(source="demo:mixture", max_tokens=args.tokens)
    measurement = measure(original, prepare(section, original.tokenizer))
    dense = accuracies(evaluate.evaluate(original, EvaluationSection(limit=args.limit)))
    average = sum(dense.values()) / len(dense)
    results = []
    for point in spans.profile(measurement.distances["all"], spans.length_of_share(original.n_blocks, SHARE)):
        for method in METHODS:
            results.append(run_one(original, measurement, point.span, method, args))
            r = results[-1]
            print(f"{r.span} {r.distance:.3f} {method}: KL {r.kl:.3f}, kept {r.average / average:.1%}", file=sys.stderr, flush=True)
    checked = claims(results, average)
    items = "all items" if args.limit is None else f"{args.limit} items per family"
    text = "\n".join(
        [
            f"Calibration: {measurement.n_tokens:,} tokens of the mixture (a tenth held out of the fit). KL in nats per token over "
            f"{args.test_tokens:,} tokens of test documents. Benchmarks: {len(dense)} families, {items}, original average {average:.3f}. "
            f"Took {(time.perf_counter() - began) / 60:.0f} minutes.",
            "",
            *[f"- {'Holds' if holds else 'FAILS'}: {sentence}" for sentence, holds in checked],
            "",
            table(results, dense),
        ]
    )
    print(text)
    if not args.no_readme:
        write_readme(text)
    return 0 if all(holds for _, holds in checked) else 1


if __name__ == "__main__":
    sys.exit(main())
