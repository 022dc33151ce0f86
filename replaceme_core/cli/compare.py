"""`compare`: an original and what was made of it, on text that no fit has read: perplexity, KL, top-1 agreement, speed and size."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import DEVICE, DTYPE, JSON, show
from replaceme_core.errors import InputError


@click.command()
@click.option("--models", multiple=True, required=True, help="the original, then one or more others: --models A B C")
@click.argument("others", nargs=-1)
@click.option(
    "--text",
    help="'plain' (English prose that comes with the library), 'demo' (the demo's test documents), or a txt, jsonl, csv or parquet file; "
    "default: demo where the original is 'demo', else plain",
)
@click.option("--column", default="text", show_default=True, help="of the text in a jsonl, csv or parquet file")
@click.option("--max-tokens", default=4096, show_default=True, type=click.IntRange(2), help="of the text")
@click.option("--speed/--no-speed", default=True, show_default=True, help="time prefill and generation too")
@DTYPE
@DEVICE
@JSON
def compare(
    models: tuple[str, ...],
    others: tuple[str, ...],
    text: str | None,
    column: str,
    max_tokens: int,
    speed: bool,
    as_json: bool,
    **held: Any,
) -> None:
    """Perplexity, KL to the first model and top-1 agreement with it, with 95 % intervals, speed and size.

    All models must share the vocabulary. The text should be none that a transform was fitted on; it is read in sequences so short that
    there are 30 of them or more, for the intervals.

    \b
    Examples:
      replaceme fit --model demo --span 6:8 --max-tokens 2048 --out exports/pair
      replaceme compare --models demo exports/pair --max-tokens 512
    """
    from replaceme_core.calibration.calibration import documents, plain_prose, read_file
    from replaceme_core.comparison.compare import divergence
    from replaceme_core.models import loading
    from replaceme_core.plans.plan import ModelSection

    paths = [*models, *others]
    if len(paths) < 2:
        raise click.UsageError("give at least two models: --models ORIGINAL OTHER")
    bar = Bar()
    handles = [loading.load(ModelSection.parse({"path": path, **held}, "the model"), bar) for path in paths]
    for handle in handles:
        if handle.family.inputs != "text":
            raise InputError(f"'{handle.name}' reads images; the comparison reads next-token probabilities of text.")
    text = text or ("demo" if paths[0] == "demo" else "plain")
    tokenizer = handles[0].tokenizer
    if text == "plain":
        read = plain_prose(tokenizer, max_tokens)
    else:
        read = documents(tokenizer, max_tokens, None if text == "demo" else read_file(Path(text), column, tokenizer), text)
    rows = [asdict(row) for row in divergence(handles[0], handles[1:], read, bar)]
    timed = _timed(handles, bar) if speed else [{}] * len(handles)
    bar.close()
    found = [
        {"path": path, **row, "n_blocks": handle.n_blocks, "n_parameters": handle.n_parameters, "n_bytes": handle.n_bytes, **time}
        for path, row, handle, time in zip(paths, rows, handles, timed, strict=True)
    ]
    show({"text": text, "dtype": handles[0].dtype, "device": handles[0].device, "models": found}, as_json, lambda: _lines(found))


def _timed(handles: list[Any], bar: Bar) -> list[dict[str, Any]]:
    """In turns, so that what else the machine does meets all models alike."""
    from replaceme_core.comparison.compare import speeds

    return [asdict(time) for time in speeds(handles, progress=bar)]


def _lines(found: list[dict[str, Any]]) -> str:
    from replaceme_core.comparison.intervals import bracketed

    lines = [
        f"{'model':28} {'perplexity [95 %]':28} {'KL [95 %], nats per token':28} {'top-1':>7} {'parameters':>12} {'MiB':>8} {'tokens/s':>9}"
    ]
    for row in found:
        perplexity = bracketed(row["perplexity"], row["perplexity_low"], row["perplexity_high"], ".3f")
        kl = bracketed(row["kl"], row["kl_low"], row["kl_high"])
        rate = f"{row['decode_tokens_per_s']:.0f}" if "decode_tokens_per_s" in row else ""
        lines.append(
            f"{row['path'][-28:]:28} {perplexity:28} {kl:28} {row['agreement']:>7.1%} {row['n_parameters']:>12,} "
            f"{row['n_bytes'] / 2**20:>8,.1f} {rate:>9}"
        )
    first = found[0]
    of = "text that was given: whether a fit has read it is not known" if first["part"] == "given" else f"{first['part']} text"
    n = f"n = {first['n_tokens']:,} tokens in {first['n_sequences']} sequences of {first['n_documents']} documents ({first['text']}, {of})"
    return "\n".join([*lines, f"{n}; intervals: bootstrap over documents.", *filter(None, [first["note"]])])
