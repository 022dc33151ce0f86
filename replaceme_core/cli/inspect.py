"""`inspect`: what a model is and whether it fits, from its configuration alone. `load`: the same with its weights read."""

import time
from dataclasses import asdict
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import DEVICE, DTYPE, JSON, QUANTISE, show

REVISION = click.option("--revision", help="branch, tag or commit of a Hugging Face id")


def _of_a_model(command: Any) -> Any:
    """The argument and the options of a command that is about one model."""
    for option in (JSON, DEVICE, QUANTISE, DTYPE, REVISION, click.argument("model")):
        command = option(command)
    return command


@click.command()
@_of_a_model
def inspect(model: str, as_json: bool, quantise: str | None, **held: Any) -> None:
    """What MODEL is, what merges into it and whether it fits: no weights are read.

    MODEL is 'demo', 'smollm2', a local folder, a GGUF file, or a Hugging Face id.

    \b
    Examples:
      replaceme inspect demo
      replaceme inspect demo --dtype bfloat16 --json
    """
    from replaceme_core.measurement.preflight import preflight
    from replaceme_core.plans.plan import ModelSection

    found = preflight(ModelSection.parse({"path": model, "quantisation": quantise, **held}, "the model"))
    data = {key: value for key, value in asdict(found).items() if key != "family"}
    data |= {"family": found.family.name, "merge": found.merge, "reason": found.reason, "writers": list(found.family.writers)}
    show(
        data,
        as_json,
        lambda: (
            f"architecture  {found.architecture} (family {found.family.name}), {found.n_blocks} blocks x {found.width}, "
            f"{found.n_parameters:,} parameters, {found.block_parameters:,} in each block\n"
            f"merge         {_merge(found)}: {found.reason}\n"
            f"memory        {found.verdict}" + (f"\nleft out      {found.left_out}" if found.left_out else "")
        ),
    )


def _merge(found: Any) -> str:
    if found.merge == "unknown":
        return "unknown until it is measured"
    return f"{found.merge}, into {found.family.writer}" if found.family.writer else str(found.merge)


@click.command()
@_of_a_model
def load(model: str, as_json: bool, quantise: str | None, **held: Any) -> None:
    """Reads the weights of MODEL as every other command would, and says what came of it.

    \b
    Examples:
      replaceme load demo
    """
    from replaceme_core.models import loading
    from replaceme_core.plans.plan import ModelSection

    bar, began = Bar(), time.perf_counter()
    handle = loading.load(ModelSection.parse({"path": model, "quantisation": quantise, **held}, "the model"), bar)
    bar.close()
    data = {
        key: getattr(handle, key)
        for key in ("name", "n_blocks", "width", "n_parameters", "n_bytes", "dtype", "device", "fingerprint", "origin", "file_sha256")
    }
    data |= {
        "family": handle.family.name,
        "merge": handle.family.merge,
        "reason": handle.family.reason,
        "seconds": time.perf_counter() - began,
    }
    show(
        data,
        as_json,
        lambda: (
            f"{handle.name}: {handle.n_blocks} blocks x {handle.width}, {handle.n_parameters:,} parameters, "
            f"{handle.n_bytes / 2**20:,.1f} MiB as {handle.dtype} on {handle.device}, read in {data['seconds']:.1f} s\n"
            + (f"it can be loaded but not pruned: {handle.family.reason}\n" if handle.family.merge == "refused" else "")
            + f"fingerprint {handle.fingerprint}"
            + (f"\n{handle.origin}" if handle.origin else "")
        ),
    )
