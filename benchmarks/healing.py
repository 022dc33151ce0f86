"""Healing (training) beside closed forms: KL on test text and seconds at one span.

    python -m benchmarks.healing --span 5:8 --steps 200 --threads 1
    python -m benchmarks.healing --model smollm2 --text wikitext2_valid.jsonl --tokens 17408 --span 12:20 \\
        --starts drop,least_squares,refit --kinds lora

KL is that of the pruned model to the original, nats per token, on text that neither fit nor healing has seen.
"""

import time
from pathlib import Path

import click
import torch

from replaceme_core import healing, pipeline
from replaceme_core.artifacts import Span
from replaceme_core.cli.bar import Bar
from replaceme_core.comparison import compare
from replaceme_core.comparison.texts import comparison_text
from replaceme_core.measurement import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, HealingSection, MethodSection, ModelSection
from replaceme_core.surgery import surgery

_TEST = 4096


@click.command(help=__doc__)
@click.option("--model", default="demo", show_default=True)
@click.option("--text", default="demo:mixture", show_default=True, help="calibration text: a file or a source of the library")
@click.option("--span", default="5:8", show_default=True)
@click.option("--tokens", default=16384, show_default=True, help="of train and held-out part together")
@click.option("--steps", default=200, show_default=True)
@click.option("--batch-tokens", default=2048, show_default=True)
@click.option("--starts", default="weighted_least_squares,sequential_refit", show_default=True)
@click.option("--kinds", default="transform,lora", show_default=True)
@click.option("--rate", default=None, type=float, help="empty: that of the kind")
@click.option("--threads", default=1, show_default=True)
@click.option("--checkpoints", type=click.Path(path_type=Path, file_okay=False), help="where a training that is stopped goes on from")
def main(
    model: str,
    text: str,
    span: str,
    tokens: int,
    steps: int,
    batch_tokens: int,
    starts: str,
    kinds: str,
    rate: float | None,
    threads: int,
    checkpoints: Path | None,
) -> None:
    torch.set_num_threads(threads)
    handle = loading.load(ModelSection(path=model))
    calibration = pipeline.prepare_for(handle, CalibrationSection(source=text, max_tokens=tokens))
    start, end = (int(part) for part in span.split(":"))
    chosen = Span(start, end)
    measurement = measure.measure(handle, calibration, spans=[chosen])
    test = comparison_text(handle, model, calibration, _TEST)
    click.echo(
        "| start | healing | rate | KL | least at step | KL of the calibration's held-out part | seconds |\n|---|---|---|---|---|---|---|"
    )
    for method in starts.split(","):
        began = time.perf_counter()
        fitted = pipeline.fit(handle, calibration, measurement, chosen, MethodSection(name=method), keep=False)
        seconds = time.perf_counter() - began
        variant = surgery.prune(handle, fitted, method, {})
        kl = compare.divergence(handle, [variant.handle], test)[1].kl
        click.echo(f"| {method} | none | | {kl:.4f} | | | {seconds:.1f} |")
        for kind in filter(None, kinds.split(",")):
            section = HealingSection(kind=kind, steps=steps, batch_tokens=batch_tokens, rate=rate)
            resumed = checkpoints / f"{method}-{kind}-{steps}" if checkpoints else None
            healed = healing.heal(handle, variant, calibration, section, Bar(), resumed)
            report = healed.healing
            assert report is not None
            kl = compare.divergence(handle, [healed.handle], test)[1].kl
            click.echo(
                f"| {method} | {kind} | {report.rate:.1e} | {kl:.4f} | {report.best} | {report.before:.4f} -> {report.after:.4f} | {report.seconds:.0f} |"
            )
            looks = ", ".join(f"{point.step}: {point.heldout:.4f}" for point in report.points)
            click.echo(f"held-out KL at each look: {looks}", err=True)


if __name__ == "__main__":
    main()
