"""What the subcommands share: options, the pass that several of them run, and how a result is shown."""

import json
from collections.abc import Callable
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.storage.folders import plain

MODEL = click.option("--model", required=True, help="'demo', 'smollm2', a local folder, a GGUF file, or a Hugging Face id")
CALIBRATION = click.option(
    "--calibration",
    show_default="what fits the model: demo:mixture, or what it writes itself, chats and prose",
    help="demo:NAME, smollm2:NAME, a file, preset:NAME, hub:ID, self, or a folder of images",
)
TOKENS = click.option(
    "--max-tokens", default=16384, show_default=True, type=click.IntRange(2), help="calibration tokens, to fit on and to choose by"
)
LENGTH = click.option("--max-length", default=512, show_default=True, type=click.IntRange(2), help="tokens per sequence")
HOLDOUT = click.option(
    "--holdout", default=0.1, show_default=True, type=click.FloatRange(0, 1, True, True), help="share kept out of the fit, to choose by"
)
SEED = click.option("--seed", default=0, show_default=True, type=int)
DTYPE = click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"]))
QUANTISE = click.option(
    "--quantise", type=click.Choice(["nf4", "int8"]), help="4 or 8 bits for the calibration pass; the export is unquantised"
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, or spread (over all devices)")
BUDGET = click.option("--budget-gib", type=float, hidden=True, expose_value=False, callback=lambda *given: _without_effect(given[2]))
JSON = click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")


def _without_effect(budget_gib: float | None) -> None:
    if budget_gib is not None:
        click.echo(
            "--budget-gib has no effect any more: what a pass stores is on the disk, and a refit takes what memory is free.", err=True
        )


def measured_by(command: Any) -> Any:
    """The options of what runs a calibration pass."""
    for option in (BUDGET, DEVICE, QUANTISE, DTYPE, SEED, HOLDOUT, LENGTH, TOKENS, CALIBRATION, MODEL):
        command = option(command)
    return command


def loaded(options: dict[str, Any], method: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """(plan, handle) from the options of `measured_by`: what is left out follows the model, the method as well.

    `options["test_tokens"]` is for commands that compare; what compares nothing leaves no text unread.
    """
    from replaceme_core import pipeline
    from replaceme_core.models import loading
    from replaceme_core.plans.plan import PruningPlan

    model = {"path": options["model"], "dtype": options["dtype"], "quantisation": options["quantise"], "device": options["device"]}
    calibration = {key: options[key] for key in ("max_tokens", "max_length", "holdout", "seed")}
    calibration |= {} if options["calibration"] is None else {"source": options["calibration"]}
    calibration |= {"test_tokens": options.get("test_tokens", 0)}
    plan = PruningPlan.parse({"model": model, "calibration": calibration, "method": method or {}})
    bar = Bar()
    handle = loading.load(plan.model, bar)
    bar.close()
    return pipeline.completed(plan, handle), handle


def calibrated(plan: Any, handle: Any, spans: Any, passes: bool = True) -> tuple[Any, Any]:
    """(calibration set, measurement) of a plan; `spans` are those of `measure`, where there is a pass at all."""
    from replaceme_core import pipeline
    from replaceme_core.measurement import measure
    from replaceme_core.span import Cut
    from replaceme_core.surgery import checkpoint, surgery

    if spans:
        checkpoint.require_rewritable(handle)
        surgery.require_expressible(handle, Cut.of(spans))
    bar = Bar()
    tokens = pipeline.prepare_for(handle, plan.calibration, bar)
    if tokens.note:
        click.echo(tokens.note, err=True)
    measured = measure.measure(handle, tokens, spans, bar) if passes else None
    bar.close()
    return tokens, measured


def plan_of(text: str) -> Any:
    """The plan of a YAML file; 'demo' is the one that is shipped."""
    from replaceme_core.plans.plan import PruningPlan
    from replaceme_core.storage.shipped import DEMO

    return PruningPlan.read(DEMO / "plan.yaml" if text == "demo" else text)


def show(data: Any, as_json: bool, words: Callable[[], str]) -> None:
    click.echo(json.dumps(plain(data), ensure_ascii=False, allow_nan=False) if as_json else words())
