"""Refits beside least squares on the demo model: KL on test documents over every span, over three depths, three calibration sets and sizes.

    python -m benchmarks.refit spans --out refit.jsonl                  # every span of a quarter, a third and half of the depth
    python -m benchmarks.refit sets --out sets.jsonl                    # every span of a quarter, three sets x three sizes
    python -m benchmarks.refit table refit.jsonl
    python -m benchmarks.refit kept --span 5:8                          # benchmark average kept, all items

Each fit is one line of the file; what is in the file already is not run again, so that a stopped run goes on. KL is that of the
pruned model to the original, nats per token, on text that no fit has seen.
"""

import json
import time
from pathlib import Path

import click
import pandas as pd

from replaceme_core import pipeline
from replaceme_core.artifacts import Measurement, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet, documents, prepare
from replaceme_core.comparison import compare
from replaceme_core.evaluation import evaluate
from replaceme_core.measurement import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, MethodSection, ModelSection
from replaceme_core.surgery import surgery

LENGTHS = (3, 4, 6)
SETS = ("mixture", "stories", "questions")
SIZES = (2048, 8192, 32768)
_TEST = 4096


def every(n_blocks: int, length: int) -> list[Span]:
    return [Span(start, start + length) for start in range(1, n_blocks - length + 1)]


class _Runs:
    """Results in a file, one line each."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line] if out.exists() else []
        self.handle = loading.load(ModelSection(path="demo"))
        self._text = documents(self.handle.tokenizer, _TEST)
        self._measured: dict[tuple[str, int], tuple[CalibrationSet, Measurement]] = {}

    def one(self, name: str, tokens: int, span: Span, method: str) -> None:
        """Fits, prunes, compares and writes a line, unless it is there."""
        key = {"set": name, "tokens": tokens, "span": str(span), "length": len(span), "method": method}
        if any(key.items() <= row.items() for row in self.rows):
            return
        calibration, measurement = self._calibrated(name, tokens)
        began = time.perf_counter()
        fitted = pipeline.fit(self.handle, calibration, measurement, span, MethodSection(name=method), keep=False)
        seconds = time.perf_counter() - began
        variant: ModelHandle = surgery.prune(self.handle, fitted, method).handle
        kl = compare.divergence(self.handle, [variant], self._text)[1].kl
        row = key | {"kl": kl, "error": fitted.report.heldout_error, "seconds": seconds, "lookahead": fitted.settings.get("lookahead")}
        self.rows.append(row)
        with self._out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _calibrated(self, name: str, tokens: int) -> tuple[CalibrationSet, Measurement]:
        if (name, tokens) not in self._measured:
            calibration = prepare(CalibrationSection(source=f"demo:{name}", max_tokens=tokens), self.handle.tokenizer)
            self._measured[name, tokens] = calibration, measure.measure(self.handle, calibration)
        return self._measured[name, tokens]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tokens", default=16384, show_default=True)
@click.option("--methods", default="drop,least_squares,weighted_least_squares,refit,sequential_refit,deep_refit", show_default=True)
def spans(out: Path, tokens: int, methods: str) -> None:
    """Every span of three lengths on the mixture."""
    runs = _Runs(out)
    for method in methods.split(","):
        for length in LENGTHS:
            for span in every(runs.handle.n_blocks, length):
                runs.one("mixture", tokens, span, method)


@main.command()
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--methods", default="least_squares,weighted_least_squares,sequential_refit", show_default=True)
def sets(out: Path, methods: str) -> None:
    """Every span of a quarter of the depth, three calibration sets, three sizes."""
    runs = _Runs(out)
    for tokens in SIZES:
        for name in SETS:
            for method in methods.split(","):
                for span in every(runs.handle.n_blocks, LENGTHS[0]):
                    runs.one(name, tokens, span, method)


@main.command()
@click.option("--span", default="5:8", show_default=True)
@click.option("--tokens", default=16384, show_default=True)
@click.option("--methods", default="drop,weighted_least_squares,refit,local_refit,exchange_refit,sequential_refit", show_default=True)
def kept(span: str, tokens: int, methods: str) -> None:
    """Share of the original's benchmark average (11 families of 200 items) that each method keeps at one span."""
    handle = loading.load(ModelSection(path="demo"))
    calibration = prepare(CalibrationSection(max_tokens=tokens), handle.tokenizer)
    place = Span(*map(int, span.split(":")))
    measurement = measure.measure(handle, calibration, spans=[place])
    dense = evaluate.evaluate(handle, EvaluationSection()).average
    click.echo(f"original {dense:.4f}")
    for method in methods.split(","):
        fitted = pipeline.fit(handle, calibration, measurement, place, MethodSection(name=method), keep=False)
        average = evaluate.evaluate(surgery.prune(handle, fitted, method).handle, EvaluationSection()).average
        assert dense is not None
        assert average is not None
        click.echo(f"{span} {method:24} {average:.4f} {average / dense:7.1%}")


@main.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def table(path: Path) -> None:
    """KL by method and its ratio to plain least squares at the same span; then how often each method stays below a quarter and below 1."""
    rows = pd.read_json(path, lines=True)
    wide = rows.pivot_table(index=["tokens", "set", "length", "span"], columns="method", values="kl")
    click.echo(wide.round(4).to_string())
    ratios = wide.div(wide["least_squares"], axis=0).drop(columns="least_squares")
    summary = ratios.groupby(["tokens", "set", "length"]).agg(["median", "max"])
    click.echo("\nratio to plain least squares\n" + summary.round(3).to_string())
    low, high = (ratios <= 0.25).sum(), (ratios <= 1).sum()
    for method in ratios:
        click.echo(f"{method}: at most a quarter on {low[method]} of {len(ratios)}, at most 1 on {high[method]} of {len(ratios)}")


if __name__ == "__main__":
    main()
