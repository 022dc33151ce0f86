"""Writes a variant as a plain transformers folder, reads it back, and only then gives it its name.

The folder holds safetensors, configuration, tokenizer, the run config that repeats it, the transform alone, the report, a model
card, and mergekit's recipe of the cut. It is written under a temporary name beside its target, so that a crash or a full disk
leaves no half export.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from replaceme_core.artifacts import LinearTransform, ModelHandle, Proof, Variant
from replaceme_core.errors import ExportError
from replaceme_core.export import mergekit
from replaceme_core.export.card_plots import card_plots
from replaceme_core.export.model_card import model_card
from replaceme_core.export.reload import place_of, prove_reload
from replaceme_core.guard import guarded
from replaceme_core.models import loading
from replaceme_core.models.checkpoints.quiet import one_bar
from replaceme_core.models.quantised import is_whole
from replaceme_core.plans.plan import ExportSection, PruningPlan
from replaceme_core.progress import SILENT, Progress
from replaceme_core.storage.folders import put, require_new, require_space, staged, write_json, writing
from replaceme_core.surgery import checkpoint, patch, transform_file
from replaceme_core.surgery.surgery import TOLERANCE, prove_cache, require


@dataclass(frozen=True)
class Export:
    """What was written, with every check that the pruned model has passed."""

    folder: Path
    proofs: tuple[Proof, ...]
    n_bytes: int
    files: list[str]


@guarded
def export(variant: Variant, folder: str | Path, section: ExportSection | None = None, progress: Progress = SILENT) -> Export:
    """Saves, verifies by reloading, renames. Raises `ExportError` and leaves nothing behind if any of it fails."""
    section = section or ExportSection()
    target = Path(folder)
    with variant.handle.borrow() as model:
        patch.require_plain(model, variant.name)
    require_new(target)
    require_space(target, variant.handle.n_parameters * getattr(torch, section.dtype or variant.handle.dtype).itemsize)
    with staged(target) as staging:
        progress.update(0, 4, "steps", "writing the weights")
        with writing(staging):
            dtype = _save_model(variant, staging, section)
        progress.update(1, 4, "steps", "reading them back")
        proofs = (*variant.proofs, require(prove_reload(variant, staging, dtype)))
        progress.update(2, 4, "steps", "drawing the model card")
        with writing(staging):
            save_record(variant, staging, proofs)
        progress.update(3, 4, "steps", "giving the folder its name")
    progress.update(4, 4, "steps", "exported")
    return listed(target, proofs)


def listed(folder: Path, proofs: tuple[Proof, ...]) -> Export:
    """What lies in a folder that was written."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return Export(folder, proofs, sum(path.stat().st_size for path in files), [path.name for path in files])


def export_merged(
    handle: ModelHandle, transform: LinearTransform, name: str, plan: PruningPlan, folder: str | Path, progress: Progress = SILENT
) -> Variant:
    """For a handle with a `checkpoint`: merges on disk, reads the result back as a plain model, renames; the verified variant.

    The reloaded model is in the plan's dtype, on its device, unquantised: it is what the variant is compared and scored with.
    """
    assert handle.checkpoint is not None, f"'{handle.name}' has no checkpoint; prune it in memory"
    with staged(Path(folder)) as staging:
        merged = checkpoint.write_merged(handle.checkpoint, transform, staging, handle.family, plan.export, progress)
        reloaded = _reload(staging, plan, name, progress)
        with reloaded.borrow() as model:
            proofs = (*merged, require(prove_cache(model, TOLERANCE[reloaded.dtype])))
        variant = Variant(name, reloaded, handle.fingerprint, transform, proofs, plan.to_data())
        with writing(staging):
            save_record(variant, staging, proofs)
    return reopened(variant, Path(folder), plan)


def reopened(variant: Variant, folder: Path, plan: PruningPlan) -> Variant:
    """The same variant after its folder was renamed to `folder`: what is offloaded to the disk is read from there anew."""
    handle = variant.handle
    if handle.checkpoint is None:
        return variant
    with handle.borrow() as model:
        whole = is_whole(model)
    return replace(variant, handle=replace(handle if whole else _reload(folder, plan, variant.name), checkpoint=folder))


def _reload(folder: Path, plan: PruningPlan, name: str, progress: Progress = SILENT) -> ModelHandle:
    """An exported folder as a plain model, held as the plan says but for the quantisation."""
    section = plan.model.model_copy(update={"path": str(folder), "revision": None, "quantisation": None})
    return replace(loading.load(section, progress), name=name, revision=plan.model.revision)


def _save_model(variant: Variant, folder: Path, section: ExportSection) -> torch.dtype:
    with variant.handle.borrow() as model:
        dtype: torch.dtype = getattr(torch, section.dtype or variant.handle.dtype)
        state = dict(model.state_dict())
        if dtype != getattr(torch, variant.handle.dtype):  # rounded on the CPU: the device holds the model once
            state = _rounded(state, dtype)
        with one_bar():
            model.save_pretrained(folder, state_dict=state, max_shard_size=section.max_shard_size)
    _name_dtype(folder / "config.json", dtype)
    variant.handle.tokenizer.save_pretrained(folder)
    return dtype


def _rounded(state: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The floating tensors in another dtype on the CPU. What is one tensor under two names stays one, so that it is written once."""
    made = {place_of(tensor): tensor.to("cpu", dtype) if tensor.is_floating_point() else tensor for tensor in state.values()}
    return {name: made[place_of(tensor)] for name, tensor in state.items()}


def _name_dtype(path: Path, dtype: torch.dtype) -> None:
    """The configuration names the dtype of the weights beside it, not that of the model in memory."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    write_json(path, config)


def save_record(variant: Variant, folder: Path, proofs: tuple[Proof, ...]) -> None:
    """recipe.yaml with the texts it reads, report.json, transform.safetensors, mergekit.yaml, and the model card with its pictures."""
    put(folder / "recipe.yaml", yaml.safe_dump(variant.recipe, sort_keys=False, allow_unicode=True))
    for name, data in variant.files.items():
        put(folder / name, data)
    save_measured(variant, folder, proofs)
    cut = variant.transform.cut
    transform_file.save(variant.transform, folder / transform_file.NAME, transform_file.facts(variant.handle, len(cut)))
    if variant.handle.family.inputs == "text":
        source = variant.recipe.get("model", {}).get("path", "ORIGINAL")
        put(folder / mergekit.NAME, mergekit.recipe(source, cut, variant.handle.n_blocks + len(cut), variant.handle.dtype))


def save_measured(variant: Variant, folder: Path, proofs: tuple[Proof, ...]) -> None:
    """The part of the record that grows with what is measured: report.json, and the model card with its pictures. Raises `OSError`."""
    write_json(folder / "report.json", record(variant, proofs))
    plots = card_plots(variant)
    for name, data in plots.items():
        put(folder / name, data)
    put(folder / "README.md", model_card(variant, proofs, tuple(plots)))


def export_transform(original: ModelHandle, transform: LinearTransform, name: str, recipe: dict[str, Any], folder: str | Path) -> Path:
    """The transform alone with its recipe and report, without a model; `transform_file.read` and `replaceme export` apply it later."""
    if transform.matrix is None and not transform.weights:
        raise ExportError(
            "Where blocks are removed without a transform ('drop') there is none to save; export the model, or choose another method."
        )
    with staged(Path(folder)) as staging, writing(staging):
        put(staging / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        write_json(staging / "report.json", _record(name, transform) | {"fingerprints": {"original": original.fingerprint}})
        transform_file.save(transform, staging / transform_file.NAME, transform_file.facts(original))
    return Path(folder)


def record(variant: Variant, proofs: tuple[Proof, ...]) -> dict[str, Any]:
    """What is known of a variant, as plain data."""
    return _record(variant.name, variant.transform) | {
        "healing": None if variant.healing is None else asdict(variant.healing),
        "proofs": [asdict(proof) for proof in proofs],
        "fingerprints": {"original": variant.original_fingerprint, "pruned": variant.handle.fingerprint},
        "origin": variant.handle.origin,
        "file_sha256": variant.handle.file_sha256,
        "scores": variant.scores,
        "missing": list(variant.missing),
    }


def _record(name: str, transform: LinearTransform) -> dict[str, Any]:
    """What is known of a transform."""
    return {
        "name": name,
        "span": [transform.span.start, transform.span.end],
        "more": [[other.start, other.end] for other in transform.others],
        "method": transform.method,
        "report": asdict(transform.report),
        "steps": [asdict(step) for step in transform.steps],
    }
