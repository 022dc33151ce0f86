"""Our seconds for what the paper's public code does, on one machine, model and text: `python -m benchmarks.reference --json`.

One JSON object: seconds and share of a bare forward pass for the pass with distances, the choice of the span, the fits (least squares and
cosine), and the pruned model on disk, with our proofs (same outputs before and after the merge, the cache, the folder read back) and without
them; and the highest memory of the process and of the device.

Beside the public code (mts-ai/ReplaceMe on GitHub; it runs on CUDA only, and none of it is copied here): on a machine with a GPU, install it in
an environment of its own, write its YAML with the same model, data set, number of texts and number of layers, once with method `lstsq` and once
with `cosine`, and run

    /usr/bin/time -v run_replaceme --config lstsq.yaml

its own distances, choice and model on disk included. Then run this script on the same GPU with `--model`, `--text`, `--tokens` and `--share`
alike, one after the other. Its figures are measured outside of this project; note them in the docs with the date and the commit of both.
"""

import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from replaceme_core import solvers
from replaceme_core.artifacts import LinearTransform, ModelHandle
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.export import export
from replaceme_core.measurement.budget import MOST_POSITIONS
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.pipeline import prepare_for
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection, SpanSection
from replaceme_core.selection import criteria
from replaceme_core.surgery import surgery
from replaceme_core.surgery.merge import merge


class _Clock:
    """Seconds by name, in the order of the work; a device has finished what it was given before a time is read."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device

    def of(self, name: str, work: Callable[[], Any]) -> Any:
        self._wait()
        began = time.perf_counter()
        found = work()
        self._wait()
        self.seconds[name] = round(time.perf_counter() - began, 3)
        return found

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()


def measured(handle: ModelHandle, calibration: CalibrationSet, share: float, folder: Path) -> dict[str, Any]:
    """All stages once, in turn; the folder takes the written models."""
    clock = _Clock(handle.device)
    clock.of("bare_forward", lambda: bare(handle, calibration))
    found = clock.of("distances", lambda: measure(handle, calibration))
    section = SpanSection(share=share, criterion="distance")  # the paper's choice
    span, _ = clock.of("choice", lambda: criteria.of_share(found, section))
    if span not in found.spans():  # the memory did not hold the sums of every span
        found = clock.of("moments_of_the_span", lambda: measure(handle, calibration, spans=[span]))
    fitted = clock.of("least_squares", lambda: solvers.fit(found, span, MethodSection(name="least_squares")))
    clock.of("cosine", lambda: solvers.fit(found, span, MethodSection(name="cosine")))
    variant = clock.of("pruned_with_proofs", lambda: surgery.prune(handle, fitted, "proved"))
    clock.of("on_disk_with_proofs", lambda: export.export(variant, folder / "proved"))
    clock.of("on_disk_without_proofs", lambda: _written(handle, fitted, folder / "plain"))
    seconds = clock.seconds
    before = sum(seconds.get(name, 0.0) for name in ("distances", "choice", "moments_of_the_span", "least_squares"))
    seconds["all_with_proofs"] = round(before + seconds["pruned_with_proofs"] + seconds["on_disk_with_proofs"], 3)
    seconds["all_without_proofs"] = round(before + seconds["on_disk_without_proofs"], 3)
    return {
        "model": handle.name,
        "device": handle.device,
        "dtype": handle.dtype,
        "tokens": calibration.n_tokens,
        "span": str(span),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "over_bare_forward": {name: round(each / seconds["bare_forward"], 3) for name, each in seconds.items() if name != "bare_forward"},
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "peak_device_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if handle.device.startswith("cuda") else None,
    }


def bare(handle: ModelHandle, calibration: CalibrationSet) -> None:
    """The base model over the calibration tokens, in the batches of the calibration pass."""
    for batch in batches(calibration.lengths, MOST_POSITIONS):
        inputs, mask = inputs_of(calibration, batch)
        with handle.borrow() as model, torch.no_grad():
            model.base_model(input_ids=inputs.to(model.device), attention_mask=mask.to(model.device), use_cache=False)


def _written(handle: ModelHandle, transform: LinearTransform, folder: Path) -> None:
    """The merged model on disk, nothing checked."""
    with handle.borrow() as model:
        pruned = surgery.applied(model, handle.family, transform.cut)
        assert transform.matrix is not None
        merge(surgery.blocks_of(pruned, handle.family)[transform.span.carrier], handle.family, transform.matrix)
        pruned.save_pretrained(folder)
    handle.tokenizer.save_pretrained(folder)


@click.command(help=__doc__)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines for people.")
@click.option("--model", default="smollm2", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--text", default="smollm2:prose", show_default=True, help="Calibration text: a file or a source of the library.")
@click.option("--tokens", default=16384, show_default=True)
@click.option("--share", default=0.25, show_default=True, help="Of the blocks that are removed.")
def main(as_json: bool, model: str, device: str, text: str, tokens: int, share: float) -> None:
    handle = loading.load(ModelSection.parse({"path": model, "device": device}, "the model"))
    calibration = prepare_for(handle, CalibrationSection(source=text, max_tokens=tokens))
    folder = Path(tempfile.mkdtemp(prefix="replaceme-reference-"))
    try:
        found = measured(handle, calibration, share, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{found['model']} on {found['device']} in {found['dtype']}, {found['tokens']:,} tokens, blocks {found['span']} removed")
    for name, seconds in found["seconds"].items():
        click.echo(f"{name:24} {seconds:9.2f} s  {found['over_bare_forward'].get(name, 1.0):8.3f} of a bare forward pass")
    click.echo(f"highest memory {found['peak_memory_gib']} GiB, on the device {found['peak_device_memory_gib'] or '–'}")


if __name__ == "__main__":
    main()
