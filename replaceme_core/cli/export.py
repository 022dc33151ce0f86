"""`export`: a saved transform applied to a model and written, in the dtype and the shards that are wanted; or the cut for mergekit."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import DEVICE, JSON, show
from replaceme_core.errors import InputError
from replaceme_core.span import Cut


@click.command()
@click.option("--transform", "source", help="transform.safetensors, or the folder of a run or an export that holds one")
@click.option("--model", help="the original; default: the one that the run config beside the transform names")
@click.option("--revision", help="branch, tag or commit of a Hugging Face id")
@click.option("--span", help="START:END, for a transform that does not say it, or with --mergekit alone; several: 2:4,6:8")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the pruned model")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="of what is written; default: that of the run config")
@click.option("--max-shard-size", default="5GB", show_default=True, help="largest file of weights, for example 500MB")
@click.option(
    "--mergekit", "for_mergekit", is_flag=True, help="print mergekit's recipe of the cut, without the transform; no model is written"
)
@DEVICE
@JSON
def export(source: str | None, span: str | None, out: Path | None, for_mergekit: bool, as_json: bool, **options: Any) -> None:
    """Applies a saved transform to its model, checks the result, and writes it as a plain transformers folder.

    \b
    Examples:
      replaceme fit --model demo --span 6:9 --max-tokens 2048 --transform-only --out exports/alone
      replaceme export --transform exports/alone --out exports/half --dtype bfloat16 --max-shard-size 500KB
      replaceme export --transform exports/alone --mergekit
      replaceme export --model demo --span 6:9 --mergekit
    """
    from replaceme_core.plans.plan import ExportSection, ModelSection
    from replaceme_core.surgery import transform_file

    if for_mergekit == (out is not None):
        raise click.UsageError("give either --out, for a model, or --mergekit, for the recipe of the cut")
    cut = None if span is None else Cut.parse(span)
    section = ExportSection.parse({"dtype": options["dtype"], "max_shard_size": options["max_shard_size"]}, "the export")
    transform, original = (None, {}) if source is None else transform_file.read(source, cut)
    recipe = {} if source is None else _recipe(transform_file.find(source).parent)
    named = dict(recipe.get("model") or {})
    if options["model"] is not None and options["model"] != named.get("path"):
        named = {"path": options["model"], "dtype": named.get("dtype", "float32")}
    if "path" not in named:
        raise click.UsageError("name the original: --model")
    chosen = {"quantisation": None, "device": options["device"]} | ({"revision": options["revision"]} if options["revision"] else {})
    model = ModelSection.parse(named | chosen, "the model")
    if transform is not None:
        cut = transform.cut
    if for_mergekit:
        _mergekit(model, cut, section, as_json)
        return
    if transform is None:
        raise click.UsageError("name the transform: --transform")
    assert out is not None
    written = _write(model, transform, original, recipe, section, out)
    show(written, as_json, lambda: f"{written['cut']}\n" + "\n".join([*written["notes"], f"written to {out}"]))


def _write(model: Any, transform: Any, original: dict[str, Any], recipe: dict[str, Any], section: Any, out: Path) -> dict[str, Any]:
    from replaceme_core import pipeline
    from replaceme_core.export import export as stage
    from replaceme_core.models import loading
    from replaceme_core.plans.plan import PruningPlan
    from replaceme_core.storage.folders import require_new
    from replaceme_core.surgery import checkpoint, surgery, transform_file

    require_new(out)
    if model.device == "spread":
        checkpoint.require_matrix_or_removal(transform)  # before the model is read
    bar = Bar()
    handle = loading.load(model, bar)
    transform_file.require_fitting(transform, original, handle)
    plan = {"model": model.model_dump(exclude_none=True), "span": transform.cut.plain(), "export": section.model_dump(exclude_none=True)}
    name = pipeline.variant_name(handle, transform.method, transform.cut)
    if handle.checkpoint is None:
        done = stage.export(surgery.prune(handle, transform, name, recipe | plan), out, section, bar).proofs
    else:
        done = stage.export_merged(handle, transform, name, PruningPlan.parse(recipe | plan), out, bar).proofs
    bar.close()
    report = asdict(transform.report)
    return {
        "out": str(out), "cut": transform.cut.describe(handle.n_blocks), "method": transform.method, "report": report,
        "dtype": section.dtype or handle.dtype, "proofs": {proof.name: asdict(proof) for proof in done}, "notes": list(report["notes"]),
    }  # fmt: skip


def _mergekit(model: Any, cut: Any, section: Any, as_json: bool) -> None:
    from replaceme_core.export import mergekit
    from replaceme_core.measurement.preflight import preflight

    if cut is None:
        raise click.UsageError("name the cut: --span START:END, or --transform")
    found = preflight(model)
    if found.family.inputs != "text":
        raise InputError("mergekit reads decoders of text; this model reads images.")
    text = mergekit.recipe(model.path, cut.check(found.n_blocks), found.n_blocks, section.dtype or model.dtype)
    show(yaml.safe_load(text), as_json, text.rstrip)


def _recipe(folder: Path) -> dict[str, Any]:
    """The plan that lies beside a transform; empty where there is none."""
    from replaceme_core.plans.plan import PruningPlan

    path = folder / "recipe.yaml"
    return PruningPlan.read(path).to_data() if path.is_file() else {}
