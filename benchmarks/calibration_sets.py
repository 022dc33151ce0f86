"""Which text to calibrate on, and how much of it: every set of texts at one span, each scored on all the others.

    python -m benchmarks.calibration_sets run --span 12:20 --set WikiText=wiki_valid.jsonl --set "half chats=wiki_valid.jsonl+chats.jsonl" \\
        --set self-written=smollm2:prose --text WikiText=wiki_test.jsonl --text code=code_test.jsonl --tokens 4096,16384
    python -m benchmarks.calibration_sets table

A set is a file or a source of the library, or two of them joined by a plus, half of the tokens each. What is in the file already is not run
again. KL to the original, nats per token.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

from dataclasses import asdict
from math import exp, log
from pathlib import Path
from statistics import fmean

import click

from benchmarks.real_table import text_of
from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.cli.bar import Bar
from replaceme_core.comparison import compare
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.methods import in_words
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection
from replaceme_core.studies.leaderboard.run import Record, read
from replaceme_core.surgery import surgery

ROWS = Path(__file__).resolve().parent / "calibration_sets.jsonl"


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--model", default="smollm2", show_default=True)
@click.option("--span", default="12:20", show_default=True)
@click.option("--set", "sets", multiple=True, required=True, help="NAME=SOURCE or NAME=SOURCE+SOURCE, several times.")
@click.option("--text", "texts", multiple=True, required=True, help="NAME=FILE, several times.")
@click.option("--tokens", default="4096,16384", show_default=True, help="Of train and held-out part together.")
@click.option("--test-tokens", default=1024, show_default=True, help="Of each text.")
@click.option("--methods", default="weighted_least_squares", show_default=True)
@click.option("--out", default=ROWS, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def run(
    model: str, span: str, sets: tuple[str, ...], texts: tuple[str, ...], tokens: str, test_tokens: int, methods: str, out: Path
) -> None:
    """Makes the rows that are not in the file yet."""
    bar = Bar()
    handle = loading.load(ModelSection(path=model), bar)
    chosen = Span(*map(int, span.split(":"))).check(handle.n_blocks)
    record = Record(out, {"model_fingerprint": handle.fingerprint, "span": span, "test_tokens": test_tokens})
    parts = [text_of(handle, said, test_tokens) for said in texts]
    for said in sets:
        name, _, source = said.partition("=")
        first, _, second = source.partition("+")
        for n_tokens in map(int, tokens.split(",")):
            missing = [method for method in methods.split(",") if record.done(f"{method}|{name}", n_tokens) is None]
            if not missing:
                continue
            section = CalibrationSection(source=first, second=second or None, max_tokens=n_tokens)
            calibration = pipeline.prepare_for(handle, section)
            measured = measure(handle, calibration, spans=[chosen], progress=bar)
            for method in missing:
                fitted = pipeline.fit(handle, calibration, measured, chosen, MethodSection(name=method), bar, keep=False)  # type: ignore[arg-type]
                pruned = surgery.prune(handle, fitted, method).handle
                rows = {part.name: asdict(compare.divergence(handle, [pruned], part, bar)[1]) for part in parts}
                facts = {"tokens": calibration.n_tokens, "note": calibration.note, "seconds": fitted.report.seconds, "texts": rows}
                record.add({"method": f"{method}|{name}", "n_removed": n_tokens} | facts)  # the number that tells rows of one name apart
    bar.close()


@main.command()
@click.argument("path", default=ROWS, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def table(path: Path) -> None:
    """KL of every set on every text, and its geometric mean over them, in Markdown."""
    click.echo(full(path))


def full(path: Path) -> str:
    """A row for every fit, set and number of tokens, those of one fit by ascending mean. The best of a fit on each text is bold."""
    rows = [row | dict(zip(("fit", "set"), row["method"].split("|"), strict=True)) for row in read(path)]
    names = list(rows[0]["texts"])
    for row in rows:
        row["found"] = [row["texts"][text]["kl"] for text in names]
        row["found"].append(exp(fmean(map(log, row["found"]))))
    least = {
        (row["fit"], at): min(each["found"][at] for each in rows if each["fit"] == row["fit"])
        for row in rows
        for at in range(len(names) + 1)
    }
    lines = ["| fit | calibrated on | tokens | " + " | ".join(names) + " | mean |", "|---" * (len(names) + 4) + "|"]
    for row in sorted(rows, key=lambda row: (row["fit"], row["found"][-1])):
        cells = [f"**{kl:.3f}**" if kl == least[row["fit"], at] else f"{kl:.3f}" for at, kl in enumerate(row["found"])]
        lines.append(f"| {in_words(row['fit'])} | {row['set']} | {row['tokens']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
