"""Checkpoints on disk for the tests of quantised, spread and rewritten models, and the second route through memory."""

import dataclasses
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from replaceme_core.artifacts import LinearTransform, Span
from replaceme_core.export import export
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection
from replaceme_core.surgery import surgery

SPAN = Span(2, 4)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(file).items()}


def in_memory(folder: Path, transform: LinearTransform, out: Path, dtype: str = "float32"):
    """The second route: load it all, cut and merge in memory, save."""
    handle = load(ModelSection(path=str(folder), dtype=dtype))
    export.export(surgery.prune(handle, transform, "in memory"), out)
    return handle


def rewritten(source: Path, target: Path, change) -> Path:
    """A copy of a checkpoint with its tensors changed by `change`."""
    shutil.copytree(source, target)
    save_file(change(load_file(source / "model.safetensors")), target / "model.safetensors", metadata={"format": "pt"})
    return target


def family_of(name):
    from replaceme_core.models.architecture.families import FAMILIES

    return next(dataclasses.replace(row, name=name) for row in FAMILIES if name in row.model_types)
