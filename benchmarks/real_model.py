"""What spans and fits cost on a real language model: `python -m benchmarks.real_model --text FILE --tokens 17408`.

One calibration pass on a text of yours, then every method at every span: KL and perplexity on the text's own test part, and on the
prose of the plain suite, which no calibration set holds. 17,408 tokens are what a plan takes for a refit of SmolLM2: ten for every
unknown of a column. Without --spans: the span of least distance (the paper's choice) and the suggested one, which keeps the attention
sink. Prints a Markdown table.
"""

import click

from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.calibration.calibration import plain_prose
from replaceme_core.comparison import compare
from replaceme_core.comparison.compare import Divergence
from replaceme_core.comparison.intervals import bracketed
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection
from replaceme_core.selection import sinks, spans
from replaceme_core.surgery import surgery

METHODS = ("drop", "least_squares", "weighted_least_squares", "cosine", "refit", "local_refit", "exchange_refit")


def _asked(said: str, n_blocks: int) -> list[Span]:
    return [Span(*map(int, each.split(":"))).check(n_blocks) for each in said.split(",")]


def _said(row: Divergence) -> str:
    return f"{bracketed(row.kl, row.kl_low, row.kl_high, '.3f')} | {row.perplexity:.1f}"


@click.command()
@click.option("--model", default="smollm2", show_default=True)
@click.option("--text", default="smollm2:prose", show_default=True, help="Calibration text: a file or a source of the library.")
@click.option("--tokens", default=6656, show_default=True, help="Of train and held-out part together.")
@click.option("--test-tokens", default=4096, show_default=True)
@click.option("--share", default=8 / 30, show_default=True, help="Of the blocks, for the two spans that are taken without --spans.")
@click.option("--spans", "asked", default="", help="Such as 11:19,12:20.")
@click.option("--methods", default=",".join(METHODS), show_default=True)
def main(model: str, text: str, tokens: int, test_tokens: int, share: float, asked: str, methods: str) -> None:
    """Measures and prints."""
    handle = loading.load(ModelSection(path=model))
    calibration = pipeline.prepare_for(handle, CalibrationSection(source=text, max_tokens=tokens))
    length = spans.length_of_share(handle.n_blocks, share)
    wanted = _asked(asked, handle.n_blocks) if asked else None
    measured = measure(handle, calibration, spans=wanted)
    if wanted is None:
        wanted = [spans.best(measured.distances["all"], length), spans.best(sinks.kept(measured), length)]
    test, prose = calibration.test_text(test_tokens), plain_prose(handle.tokenizer, 2048)
    click.echo(
        f"{handle.name}, {measured.n_tokens:,} tokens of {calibration.name}; {test.n_tokens:,} test tokens, {prose.n_tokens:,} of {prose}.\n"
    )
    click.echo("| span | distance | method | KL, test part [95 %] | perplexity | KL, plain prose [95 %] | perplexity | seconds |")
    click.echo("|---|---:|---|---|---:|---|---:|---:|")
    for span in dict.fromkeys(wanted):
        fits = [pipeline.fit(handle, calibration, measured, span, MethodSection(name=name), keep=False) for name in methods.split(",")]
        pruned = [surgery.prune(handle, fitted, fitted.method).handle for fitted in fits]
        (original, *rows), (own, *others) = (compare.divergence(handle, pruned, part) for part in (test, prose))
        if span == wanted[0]:
            click.echo(f"| none | | original | {_said(original)} | {_said(own)} | |")
        distance = measured.distances["all"].at(span)
        for fitted, row, other in zip(fits, rows, others, strict=True):
            click.echo(f"| {span} | {distance:.3f} | {fitted.method} | {_said(row)} | {_said(other)} | {fitted.report.seconds:.1f} |")


if __name__ == "__main__":
    main()
