"""What a cut really gains against the share of depth removed: time to read and to write, peak memory, size on disk, as ratios to the original.

    python -m benchmarks.speed_gain --shape demo
    python -m benchmarks.speed_gain --shape smollm --repeats 7

Blocks are cut from the middle without a transform: a merged one adds no parameter and no time. 'demo' is the shipped model, 'smollm' has the shape of SmolLM-135M with random weights and its vocabulary of 49,152.
Original and pruned model run in turn; the table shows median [least, most] of the repeats.
"""

from typing import Any

import click
import torch

from benchmarks.calibration_pass import SHAPES
from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.comparison.speed_gain import Range, Timing, measure_gain
from replaceme_core.models.architecture import families
from replaceme_core.models.loading import load, make_handle
from replaceme_core.plans.plan import ModelSection
from replaceme_core.selection.spans import length_of_share
from replaceme_core.surgery import surgery

_VOCABULARY = 49152


def model(shape: str) -> ModelHandle:
    """The demo model, or a random one of the other shape."""
    if shape == "demo":
        return load(ModelSection(path="demo"))
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], vocab_size=_VOCABULARY, tie_word_embeddings=True)
    built = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return make_handle(shape, built, None, families.find(config))


def without(handle: ModelHandle, span: Span) -> ModelHandle:
    """The model without these blocks."""
    with handle.borrow() as whole:
        pruned: Any = surgery.cut(whole, handle.family, span)
    return make_handle(f"{handle.name} without {span}", pruned, handle.tokenizer, handle.family)


@click.command(help=__doc__)
@click.option("--shape", default="demo", type=click.Choice(list(SHAPES)))
@click.option("--shares", default="0.125,0.25,0.375,0.5", help="of the depth, separated by commas")
@click.option("--prompt", default=128, help="tokens read")
@click.option("--new", default=16, help="tokens written")
@click.option("--repeats", default=7)
@click.option("--threads", default=0, help="0: as many as torch chooses")
def main(shape: str, shares: str, prompt: int, new: int, repeats: int, threads: int) -> None:
    torch.set_num_threads(threads or torch.get_num_threads())
    handle = model(shape)
    click.echo(f"{'removed':>8} {'depth':>6} {'ideal':>6}  {'reads':22} {'writes':22} {'peak memory':>11} {'on disk':>8}")
    gain = None
    for length in sorted({length_of_share(handle.n_blocks, float(share)) for share in shares.split(",")}):
        start = max(1, (handle.n_blocks - length) // 2)
        gain = measure_gain(handle, without(handle, Span(start, start + length)), Timing(prompt, new, repeats))
        share = length / handle.n_blocks
        peak = (
            "-"
            if not gain.pruned_peak_bytes or not gain.original_peak_bytes
            else f"{gain.pruned_peak_bytes / gain.original_peak_bytes:.1%}"
        )
        click.echo(
            f"{length:>2} of {handle.n_blocks:<2} {share:>6.1%} {1 / (1 - share):>6.2f}  {_said(gain.prefill.ratio):22} {_said(gain.decode.ratio):22} "
            f"{peak:>11} {gain.pruned_disk_bytes / gain.original_disk_bytes:>8.1%}"
        )
    if gain is not None:
        whole = f"{gain.prefill.original.median:,.0f} tokens/s reading, {gain.decode.original.median:,.1f} writing"
        click.echo(
            f"{shape} on {gain.device}: the original (last row) {whole}; {gain.timing.repeats} repeats in turn, {prompt} read, {new} written"
        )


def _said(values: Range) -> str:
    return f"{values.median:.2f} [{values.low:.2f}, {values.high:.2f}]"


if __name__ == "__main__":
    main()
