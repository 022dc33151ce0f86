"""Solvers side by side, in one run: held-out cosine loss and KL against seconds, on every span of one length.

    python -m benchmarks.solvers                 # the demo model, a quarter of its depth
    python -m benchmarks.solvers --length 6 --calibration demo:stories

Loss: mean 1 - cos of the stream at the end of the span, held-out tokens. KL: of the pruned model to the original, held-out text.
"""

from dataclasses import dataclass

import click

from replaceme_core import compare, loading, solvers, spans, surgery
from replaceme_core.measure import measure
from replaceme_core.pipeline import prepare_for
from replaceme_core.plan import CalibrationSection, ModelSection

METHODS = ("drop", "least_squares", "weighted_least_squares", "cosine", "adam")


@dataclass(frozen=True)
class Row:
    """One method on one span."""

    span: str
    method: str
    loss: float
    kl: float
    seconds: float


@click.command(help=__doc__)
@click.option("--model", default="demo", show_default=True)
@click.option("--calibration", default="demo:mixture", show_default=True)
@click.option("--max-tokens", default=16384, show_default=True)
@click.option("--length", type=int, help="blocks to remove; default: a quarter of the depth")
def main(model: str, calibration: str, max_tokens: int, length: int | None) -> None:
    handle = loading.load(ModelSection(path=model))
    tokens = prepare_for(handle, CalibrationSection(source=calibration, max_tokens=max_tokens))
    measured = measure(handle, tokens)
    length = length or spans.length_of_share(handle.n_blocks, 0.25)
    sequences = compare.heldout_sequences(handle, 4096)
    rows: list[Row] = []
    for point in spans.profile(measured.distances["all"], length):
        fits = [solvers.fit(measured, point.span, method) for method in METHODS]
        variants = [surgery.prune(handle, fit, fit.method).handle for fit in fits]
        measured_kl = compare.divergence(handle, variants, sequences)[1:]
        rows += [
            Row(str(point.span), fit.method, 1 - fit.report.heldout_cosine, row.kl, fit.report.seconds)
            for fit, row in zip(fits, measured_kl, strict=True)
        ]
    click.echo(f"{handle.name}, spans of {length}, {measured.n_tokens:,} tokens of {calibration}; loss / KL / seconds")
    click.echo("span  " + "".join(f"{method:>30}" for method in METHODS))
    for span in dict.fromkeys(row.span for row in rows):
        mine = {row.method: row for row in rows if row.span == span}
        click.echo(f"{span:6}" + "".join(f"{mine[m].loss:14.4f} {mine[m].kl:.4f} {mine[m].seconds:7.3f}s" for m in METHODS))
    _verdict(rows)


def _verdict(rows: list[Row]) -> None:
    """The reweighted steps against Adam, over all spans."""
    by = {(row.span, row.method): row for row in rows}
    found = [(by[s, "cosine"], by[s, "adam"]) for s in dict.fromkeys(row.span for row in rows)]
    lower = sum(ours.loss <= adam.loss for ours, adam in found)
    ratios = sorted(ours.seconds / adam.seconds for ours, adam in found)
    click.echo(
        f"cosine at or below Adam's held-out loss on {lower} of {len(found)} spans, in {ratios[0]:.2f} to {ratios[-1]:.2f} of its time"
    )


if __name__ == "__main__":
    main()
