"""`compare`: an original and what was made of it, on held-out text: perplexity, KL, agreement, speed and size."""

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
@click.option("--text", default="demo", show_default=True, help="'demo' (its held-out text), or a txt, jsonl, csv or parquet file")
@click.option("--column", default="text", show_default=True, help="of the text in a jsonl, csv or parquet file")
@click.option("--max-tokens", default=4096, show_default=True, type=click.IntRange(2), help="of the text")
@click.option("--speed/--no-speed", default=True, show_default=True, help="time a prefill and decoding too")
@DTYPE
@DEVICE
@JSON
def compare(
    models: tuple[str, ...], others: tuple[str, ...], text: str, column: str, max_tokens: int, speed: bool, as_json: bool, **held: Any
) -> None:
    """Perplexity, KL to the first model, agreement with it (all with 95 % intervals where there are any), speed and size.

    All models must share the vocabulary. The text should be none that a transform was fitted on.

    \b
    Examples:
      replaceme fit --model demo --span 6:8 --max-tokens 2048 --out exports/pair
      replaceme compare --models demo exports/pair --text demo --max-tokens 512
    """
    from replaceme_core.calibration.calibration import read_file
    from replaceme_core.comparison.compare import divergence, heldout_sequences
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
    texts = None if text == "demo" else read_file(Path(text), column, handles[0].tokenizer)
    rows = [asdict(row) for row in divergence(handles[0], handles[1:], heldout_sequences(handles[0], max_tokens, texts), bar)]
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
    lines = [
        f"{'model':28} {'perplexity [95 %]':28} {'KL [95 %], nats per token':28} {'agree':>7} {'parameters':>12} {'MiB':>8} {'tokens/s':>9}"
    ]
    for row in found:
        perplexity = f"{row['perplexity']:.3f} [{row['perplexity_low']:.3f}, {row['perplexity_high']:.3f}]"
        kl = f"{row['kl']:.4f} [{row['kl_low']:.4f}, {row['kl_high']:.4f}]"
        rate = f"{row['decode_tokens_per_s']:.0f}" if "decode_tokens_per_s" in row else ""
        lines.append(
            f"{row['path'][-28:]:28} {perplexity:28} {kl:28} {row['agreement']:>7.1%} {row['n_parameters']:>12,} "
            f"{row['n_bytes'] / 2**20:>8,.1f} {rate:>9}"
        )
    return "\n".join(
        [*lines, f"n = {found[0]['n_tokens']:,} tokens in {found[0]['n_sequences']} sequences; intervals: bootstrap over sequences."]
    )
