"""What the calibration pass costs: peak memory against the number of tokens, and time against a bare forward pass.

    python -m benchmarks.calibration_pass memory            # each size in a fresh process
    python -m benchmarks.calibration_pass time              # ratios, side by side in one run
    python -m benchmarks.calibration_pass time --shape smollm

Models are random: neither figure depends on the weights. `memory` prints the growth of the resident set over the loaded
model; it should be flat in tokens. `time` alternates the bare `base_model` forward with each kind of pass on the same batches.
"""

import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

import click
import torch

from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.measurement import measure
from replaceme_core.measurement.needs import MOST_POSITIONS
from replaceme_core.models.architecture import families
from replaceme_core.models.loading import make_handle

SHAPES = {
    "demo": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 12, "num_attention_heads": 4, "num_key_value_heads": 4},
    "smollm": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
}
_LENGTH = 256
_REPEATS = 5


def random_model(shape: str) -> ModelHandle:
    """A Llama of the named shape with random weights."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], vocab_size=2048, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return make_handle(shape, model, None, families.find(config))


def random_set(n_tokens: int) -> CalibrationSet:
    """Random sequences of one length, one in ten held out."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 2048, (n_tokens // _LENGTH, _LENGTH), generator=generator)
    return CalibrationSet("random", list(ids), [i % 10 == 0 for i in range(len(ids))], "random", [])


def one_length(handle: ModelHandle) -> list[Span]:
    """Every span of a quarter of the depth."""
    length = handle.n_blocks // 4
    return [Span(start, start + length) for start in range(1, handle.n_blocks - length + 1)]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--shape", default="demo", type=click.Choice(list(SHAPES)))
@click.option("--tokens", default="4096,16384,65536", help="sizes, separated by commas")
def memory(shape: str, tokens: str) -> None:
    """Peak growth of the resident set during the pass and the moments of one span, one fresh process per size."""
    click.echo(f"{'tokens':>8} {'growth, MiB':>12}")
    for size in tokens.split(","):
        command = [sys.executable, "-m", "benchmarks.calibration_pass", "peak", "--shape", shape, "--tokens", size]
        click.echo(f"{int(size):8,} {float(subprocess.run(command, check=True, capture_output=True, text=True).stdout):12.0f}")


@main.command(hidden=True)
@click.option("--shape", required=True)
@click.option("--tokens", type=int, required=True)
def peak(shape: str, tokens: int) -> None:
    handle = random_model(shape)
    calibration = random_set(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured = measure.measure(handle, calibration, again=True)
    for weighting in ("uniform", "end_norm"):
        measured.moments[one_length(handle)[0], weighting]
    click.echo((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


@main.command("time")
@click.option("--shape", default="demo", type=click.Choice(list(SHAPES)))
@click.option("--tokens", default=4096)
@click.option("--threads", default=0, help="0: as many as torch chooses")
def cost(shape: str, tokens: int, threads: int) -> None:
    """Ratios to a bare forward pass of the base model on the same sequences: of wall time, and of processor time.

    Processor time is the one to read on a machine that does other work, with one thread (threads that wait also use it).
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    handle = random_model(shape)
    calibration = random_set(tokens)
    length = one_length(handle)
    kinds: dict[str, dict[str, Any]] = {"distances only": {"spans": []}, "one span stored": {"spans": length[:1]}, "everything stored": {}}
    ratios: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in kinds}
    for _ in range(_REPEATS):
        for kind, kept in kinds.items():
            bare = _seconds(lambda: _bare(handle, calibration))
            done = _seconds(lambda kept=kept: measure.measure(handle, calibration, again=True, **kept))
            ratios[kind].append(tuple(a / b for a, b in zip(done, bare, strict=True)))
    click.echo(f"{shape}, {calibration.n_tokens:,} tokens, {torch.get_num_threads()} threads, {_REPEATS} repeats: pass / bare forward")
    click.echo(f"{'':26} {'wall':>6}  {'least, most':14} {'processor':>9}  least, most")
    for kind, pairs in ratios.items():
        wall, processor = zip(*pairs, strict=True)
        words = [f"[{min(values):.2f}, {max(values):.2f}]" for values in (wall, processor)]
        click.echo(f"{kind:26} {median(wall):6.2f}  {words[0]:14} {median(processor):9.2f}  {words[1]}")


def _bare(handle: ModelHandle, calibration: CalibrationSet) -> None:
    rows = MOST_POSITIONS // _LENGTH
    with handle.borrow() as model, torch.no_grad():
        for batch in torch.stack(calibration.sequences).split(rows):
            model.base_model(input_ids=batch, attention_mask=torch.ones_like(batch), use_cache=False)


def _seconds(work: object) -> tuple[float, float]:
    """Wall time and processor time."""
    began = time.perf_counter(), time.process_time()
    work()  # type: ignore[operator]
    return time.perf_counter() - began[0], time.process_time() - began[1]


if __name__ == "__main__":
    main()
