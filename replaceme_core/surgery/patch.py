"""What is not merged: T as a layer of its own behind the written module, or linear layers behind a block, with what they cost.

It stands where nothing merges (a norm follows the output projection), and as the other side of the merge's bargain: T of rank r costs 2 r d
parameters, a merged one none. `from_pretrained` builds a model from its configuration and knows no such layer, so a patched
model cannot be written as a plain folder; it stays in memory, and export says so.
"""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from replaceme_core.errors import ExportError, PlanError
from replaceme_core.models.architecture.families import written_of
from replaceme_core.models.architecture.family import Family
from replaceme_core.plans.plan import MethodSection


class SeparatePatch(nn.Module):
    """The written module followed by T: m -> m T, T = `start` I + A B, or a diagonal."""

    def __init__(self, written: nn.Module, matrix: Float64[Tensor, "width width"], section: MethodSection, dtype: torch.dtype) -> None:
        super().__init__()
        self.written = written
        device = next(written.parameters()).device
        self.start = float(section.structure == "low_rank_update")
        identity = torch.eye(len(matrix), dtype=torch.float64)
        if section.structure == "diagonal":
            factors = [matrix.diagonal()]
        elif section.rank is None:
            factors = [matrix]
        else:
            left, values, right = torch.linalg.svd(matrix - self.start * identity)
            factors = [left[:, : section.rank] * values[: section.rank], right[: section.rank]]
        self.factors = nn.ParameterList([nn.Parameter(factor.to(device, dtype), requires_grad=False) for factor in factors])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.written(*args, **kwargs)
        stream = output[0] if isinstance(output, tuple) else output
        changed = stream
        for factor in self.factors:
            changed = changed * factor if factor.ndim == 1 else changed @ factor
        changed = changed + stream if self.start else changed
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    @property
    def n_parameters(self) -> int:
        """What the patch adds to the model."""
        return sum(factor.numel() for factor in self.factors)


def attach(block: nn.Module, family: Family, matrix: Float64[Tensor, "width width"], section: MethodSection, dtype: torch.dtype) -> None:
    """Puts T behind the written module of a block; its weights stay as they are."""
    path = family.written or family.writers[0]
    parent, _, leaf = path.rpartition(".")
    setattr(block.get_submodule(parent), leaf, SeparatePatch(written_of(block, family), matrix, section, dtype))


def follow(block: nn.Module, slope: Float64[Tensor, "width width"], offset: Float64[Tensor, " width"]) -> None:
    """From now on the stream x that leaves the block becomes x A + b, after what follows it already: a stand-in of a block behind it.

    The block keeps its class as a parent, its modules and their names, so that it is found, numbered and called as before.
    """
    first = next(block.parameters())
    layer = nn.Linear(slope.shape[0], slope.shape[1], device=first.device, dtype=first.dtype).requires_grad_(False)
    with torch.no_grad():
        layer.weight.copy_(slope.T)
        layer.bias.copy_(offset)
    if isinstance(block, _Followed):
        block.followers.append(layer)
        return
    block.followers = nn.ModuleList([layer])
    block.__class__ = type(f"{type(block).__name__}Followed", (_Followed, type(block)), {})


class _Followed(nn.Module):
    """What `follow` puts before a block's own class."""

    followers: nn.ModuleList

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        stream = output[0] if isinstance(output, tuple) else output
        for layer in self.followers:
            stream = layer(stream)
        return (stream, *output[1:]) if isinstance(output, tuple) else stream


def patches_of(model: nn.Module) -> list[SeparatePatch]:
    """The patches of a model, none for a plain one."""
    return [module for module in model.modules() if isinstance(module, SeparatePatch)]


def parameters_of(section: MethodSection, width: int) -> int:
    """What a patch of this structure would add."""
    if section.structure == "diagonal":
        return width
    return width**2 if section.rank is None else 2 * section.rank * width


def require_merged(section: MethodSection) -> None:
    """A `PlanError` before any work for a run whose result could not be written."""
    if section.separate:
        raise PlanError(
            "method.separate keeps T as a layer of its own, which no plain model folder can hold, so a run or fit that exports cannot take it; "
            "leave it out, or try it in the app or from Python (surgery.prune)."
        )


def require_plain(model: nn.Module, name: str) -> None:
    """An `ExportError` for a model that `from_pretrained` could not rebuild."""
    if any(isinstance(module, _Followed) for module in model.modules()):
        raise ExportError(
            f"'{name}' has linear layers in the place of whole blocks, which transformers cannot load from a folder: the model's "
            "configuration knows no such layer. It can be compared and scored here."
        )
    if patches_of(model):
        raise ExportError(
            f"'{name}' holds its transform as a layer of its own, which transformers cannot load from a folder: the model's configuration "
            "knows no such layer. It can be compared and scored here; to export it, fit it again without 'separate', so that T is merged."
        )
