"""Which selection finds the best place of a real model, and for how many forward passes?

    python -m benchmarks.places measure --text wikitext2_valid.jsonl --test wikitext2_test.jsonl --out places.jsonl
    python -m benchmarks.places rank --text wikitext2_valid.jsonl --out places.jsonl
    python -m benchmarks.places table places.jsonl

`measure` takes every place of every length: what it costs on the test text, which nothing else reads (KL of the pruned model to the original,
nats per token, with nothing in the blocks' place and after the closed-form T), and the same on a few hundred tokens of the held-out part of
the calibration text, which is what a selection may look at. With `--method refit` the cost after a refit, too. Blocks behind the span alone
are run (see `comparison.tails`). One line per place, text and method; what is in the file already is not run again. `rank` adds what the one pass says of
every place, by each criterion. `table`
sets what each selection chooses beside the best place there is. The study of criteria on the demo is `benchmarks.selection`.
"""

import json
from pathlib import Path

import click
import pandas as pd

from replaceme_core import pipeline
from replaceme_core.artifacts import Cut, LinearTransform, Measurement, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet, ids_of, read_file
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.comparison.tails import Tail, Tails
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import REFIT, CalibrationSection, MethodSection, ModelSection
from replaceme_core.selection import criteria
from replaceme_core.surgery import surgery

TEST, LONG = 1536, 256
"""tokens of the test text, in sequences of up to"""
HELDOUT, SHORT = 640, 64
FEW, SHORT_LIST = (3, 5), 5
"""sequences of the held-out part with which it is tried, too; places of a short list"""
FITTED = "weighted_least_squares"
WAYS = {
    "distance": "least distance, all tokens (the paper's)",
    "distance_last": "least distance, last token",
    "path": "least path",
    "missed": "least relative error of the fit",
    "sinks_kept": "least distance, sinks kept",
    "listed_removed": "least KL removed, of the {k} places of least distance with sinks kept",
    "listed_fitted": "least KL with T, of the same {k}",
    "removed": "least KL removed, of all places",
    "fitted": "least KL with T, of all places",
}


@click.group(help=__doc__)
def main() -> None:
    pass


def _measured(model: str, text: str, tokens: int) -> tuple[ModelHandle, CalibrationSet, Measurement]:
    handle = loading.load(ModelSection(path=model))
    calibration = pipeline.prepare_for(handle, CalibrationSection(source=text, max_tokens=tokens))
    return handle, calibration, measure(handle, calibration)


def _places(n_blocks: int, lengths: str) -> list[Span]:
    return [Span(start, start + length) for length in map(int, lengths.split(",")) for start in range(1, n_blocks - length + 1)]


@main.command("measure")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", default="smollm2", show_default=True)
@click.option("--text", default="smollm2:prose", show_default=True, help="Calibration text: a file or a source of the library.")
@click.option("--tokens", default=6656, show_default=True)
@click.option("--test", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--test-tokens", default=TEST, show_default=True)
@click.option("--lengths", default="8,6,11", show_default=True)
@click.option("--method", default="weighted_least_squares", show_default=True, help="What is fitted; a refit on the test text alone.")
def measure_all(out: Path, model: str, text: str, tokens: int, test: Path, test_tokens: int, lengths: str, method: str) -> None:
    """Every place of these lengths; one line for each."""
    known = {(row["span"], row["method"], row["on"]) for row in _rows(out) if "span" in row}
    handle, calibration, measured = _measured(model, text, tokens)
    rows = [ids_of(row, handle.tokenizer) for row in read_file(test)]
    parts = {
        "test": TextPart.of("given", test.stem, [row for row in rows if len(row) > 1], test_tokens, LONG),
        "held-out": calibration.heldout_text(HELDOUT, SHORT),
    }
    if method in REFIT:
        parts.pop("held-out")
    tails = {name: Tails(handle, part) for name, part in parts.items()} if method not in REFIT else {}
    methods = {"test": (method,), "held-out": ("drop", method)}
    for span in _places(handle.n_blocks, lengths):
        todo = [(name, each) for name in parts for each in methods[name] if (str(span), each, name) not in known]
        fits = {each: _fit(handle, calibration, measured, span, each) for each in {each for _, each in todo}}
        for name, part in parts.items():
            own = [fits[each] for where, each in todo if where == name]
            for fit, found in zip(own, _costs(handle, own, part, tails.get(name)) if own else (), strict=True):
                row = {"span": str(span), "length": len(span), "method": fit.method, "on": name, "n": found.n_tokens, "kl": found.kl}
                _write(out, row | {"low": found.kl_low, "high": found.kl_high, "perplexity": found.perplexity, "kls": found.kls})


def _fit(handle: ModelHandle, calibration: CalibrationSet, measured: Measurement, span: Span, method: str) -> LinearTransform:
    if method == "drop":
        return LinearTransform.removal(Cut((span,)))
    return pipeline.fit(handle, calibration, measured, span, MethodSection(name=method))


class _Cost:
    def __init__(self, found: compare.Divergence, kls: list[float]) -> None:
        self.n_tokens, self.kl, self.kl_low, self.kl_high, self.perplexity = (
            found.n_tokens, found.kl, found.kl_low, found.kl_high, found.perplexity,
        )  # fmt: skip
        self.kls = kls
        """means of the sequences, in their order; empty where they are not known"""


def _costs(handle: ModelHandle, fits: list[LinearTransform], text: TextPart, tails: Tails | None) -> list[_Cost]:
    if tails is None:
        pruned = [surgery.prune(handle, fit, fit.method).handle for fit in fits]
        return [_Cost(row, []) for row in compare.divergence(handle, pruned, text)[1:]]
    found = []
    for tail in tails.measure(fits):
        if not isinstance(tail, Tail):
            raise tail
        counts = [len(sequence) - 1 for sequence in text.sequences]
        found.append(_Cost(tail.quality, [total / n for total, n in zip(tail.sums.tolist(), counts, strict=True)]))
    return found


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.exists() else []


def _write(path: Path, row: dict[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


@main.command("rank")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", default="smollm2", show_default=True)
@click.option("--text", default="smollm2:prose", show_default=True)
@click.option("--tokens", default=6656, show_default=True)
@click.option("--lengths", default="8,6,11", show_default=True)
def rank_all(out: Path, model: str, text: str, tokens: int, lengths: str) -> None:
    """What each criterion of the pass says of every place; one line for each criterion and length."""
    handle, _, measured = _measured(model, text, tokens)
    for length in map(int, lengths.split(",")):
        matrices = {"distance": measured.distances["all"], "distance_last": measured.distances["last"]}
        matrices |= {name: criteria.rank(measured, length, name)[0] for name in ("path", "sinks_kept", "missed")}
        for name, matrix in matrices.items():
            values = {str(span): matrix.at(span) for span in _places(handle.n_blocks, str(length))}
            _write(out, {"way": name, "length": length, "n_blocks": handle.n_blocks, "values": values})


@main.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--method", default="weighted_least_squares", show_default=True, help="Whose cost on the test text is the truth.")
def table(path: Path, method: str) -> None:
    """Choice and regret of every selection: its cost on the test text over the least there is. Lengths of which all places are there."""
    every = _rows(path)
    passes = {(row["way"], row["length"]): pd.Series(row["values"]) for row in every if "way" in row}
    n_blocks = next(int(str(row["n_blocks"])) for row in every if "way" in row)
    rows = pd.DataFrame([row for row in every if "way" not in row])
    counted = rows.groupby(["length", "method", "on"])["span"].nunique()
    whole = [(method, "test"), ("drop", "held-out"), (FITTED, "held-out")]
    lengths = [n for n in sorted(rows["length"].unique()) if all(counted.get((n, *each), 0) == n_blocks - n for each in whole)]
    found = {length: _choices(rows, passes, int(length)) for length in lengths}
    header = " | ".join(f"{length} of {n_blocks}: place, KL, regret" for length in lengths)
    click.echo(f"| selection | forwards of the text it looks at | {header} | mean regret |\n|---|---:|{'---|' * len(lengths)}---:|")
    for way, words in _ways().items():
        cells, regrets = [], []
        for length in lengths:
            cost = _cost(rows, method, "test", int(length))
            span = found[length][way]
            regrets.append(cost[span] / cost.min())
            cells.append(f"{span}, {cost[span]:.3f}, {regrets[-1]:.2f}")
        forwards = " / ".join(_forwards(way, n_blocks, int(length)) for length in lengths)
        click.echo(f"| {words} | {forwards} | {' | '.join(cells)} | {sum(regrets) / len(regrets):.3f} |")
    best = [_cost(rows, method, "test", int(length)) for length in lengths]
    click.echo(f"| the best place there is | | {' | '.join(f'{cost.idxmin()}, {cost.min():.3f}, 1' for cost in best)} | 1 |\n")
    for length in lengths:
        cost = _cost(rows, method, "test", int(length))
        others = {way: values for (way, own), values in passes.items() if own == length}
        others |= {"removed": _cost(rows, "drop", "held-out", int(length)), "fitted": _cost(rows, FITTED, "held-out", int(length))}
        said = ", ".join(f"{way} {cost.corr(values, method='spearman'):.2f}" for way, values in others.items())
        click.echo(f"Spearman with the cost at {length} blocks: {said}")


def _ways() -> dict[str, str]:
    few = {f"fitted_{n}": f"the same on the first {n} sequences of it" for n in FEW}
    return {name: words.format(k=SHORT_LIST) for name, words in WAYS.items()} | few


def _choices(rows: pd.DataFrame, passes: dict[tuple[str, int], pd.Series], length: int) -> dict[str, str]:
    """By selection, the place that it chooses."""
    found = {way: values.idxmin() for (way, own), values in passes.items() if own == length}
    listed = list(passes["sinks_kept", length].nsmallest(SHORT_LIST).index)
    removed, fitted = _cost(rows, "drop", "held-out", length), _cost(rows, FITTED, "held-out", length)
    return {way: str(span) for way, span in found.items()} | {
        "listed_removed": str(removed[listed].idxmin()),
        "listed_fitted": str(fitted[listed].idxmin()),
        "removed": str(removed.idxmin()),
        "fitted": str(fitted.idxmin()),
        **{f"fitted_{n}": str(_cost(rows, FITTED, "held-out", length, n).idxmin()) for n in FEW},
    }


def _cost(rows: pd.DataFrame, method: str, on: str, length: int, first: int | None = None) -> pd.Series:
    """KL by place; of the first sequences alone, if so many are named."""
    own = rows[(rows["method"] == method) & (rows["on"] == on) & (rows["length"] == length)].set_index("span")
    return own["kl"] if first is None else own["kls"].map(lambda kls: sum(kls[:first]) / first)


def _forwards(way: str, n_blocks: int, length: int) -> str:
    """Forward passes of the few held-out tokens, in the blocks behind the spans (without the head, which each place takes once)."""
    places = n_blocks - length
    if way.startswith(("fitted", "removed")):
        blocks = sum(n_blocks - length - start for start in range(1, places + 1))
        return f"{1 + blocks / n_blocks:.1f} ({1 + places} heads)"
    return f"up to {1 + SHORT_LIST * (1 - length / n_blocks):.1f} ({1 + SHORT_LIST} heads)" if way.startswith("listed") else "0"


if __name__ == "__main__":
    main()
