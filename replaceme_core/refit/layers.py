"""The layers of a block that a refit can solve in closed form: what is added to the stream depends on them linearly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from replaceme_core.models.architecture.families import scale_of, writers_in, written_of
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.running.capture import Side
from replaceme_core.models.running.precision import exact
from replaceme_core.surgery.merge import merge

_ATTENTION_ENDS = ("o_proj", "out_proj", "c_proj", "dense", "wo")


@dataclass(frozen=True, eq=False)
class Layer:
    """Its features times `change` are added to the block's output when the change is put in."""

    part: str
    read: nn.Module
    side: Side
    """which side of the module the features are: what goes into a linear, or M where the writer is a stack of experts"""
    scale: float
    weight: Float[Tensor, "inner width"] | None
    """as it acts on rows; None where the features are the output itself"""
    put: Callable[[Float64[Tensor, "inner width"]], None]

    def features(self, seen: Tensor) -> Tensor:
        return seen * self.scale


def layers_of(model: Any, block: nn.Module, family: Family, attention: bool = True) -> list[Layer]:
    """The attention's output and the MLP's output projection, in the order they are computed. A norm behind a layer makes it unfit: none then.

    Where attention and MLP stand one after the other, a change of the first moves the input of the second too: the change is
    right to first order only, and a refit measures what became of it.
    """
    if family.merge != "exact":
        return []
    scale = scale_of(model, family)
    found = []
    ends = [path for path, module in block.named_modules() if _ends_attention(path) and is_linear(module)]
    if attention and len(ends) == 1:
        found.append(linear("attention output", block.get_submodule(ends[0]), scale))
    writers, modules = writers_in(block, family), dict(block.named_modules())
    if len(writers) == 1 and writers[0] in modules and is_linear(modules[writers[0]]):
        found.append(linear("writer", modules[writers[0]], scale))
    else:  # several writers, or a stack of experts
        found.append(output_of(model, block, family))
    return found


def linear(part: str, module: Any, scale: float) -> Layer:
    rows = not isinstance(module, nn.Linear)  # Conv1D keeps its weight as it acts on rows

    def put(change: Tensor) -> None:
        old = module.weight
        moved = exact(old) + (change if rows else change.T)
        module.weight = nn.Parameter(moved.to(old), requires_grad=old.requires_grad)

    weight = module.weight if rows else module.weight.T
    return Layer(part, module, "input", scale, weight.detach(), put)


def output_of(model: Any, block: nn.Module, family: Family) -> Layer:
    """M itself, whatever makes it: its change D is the transform T = I + D, merged into every writer."""

    def put(change: Tensor) -> None:
        merge(block, family, change + torch.eye(len(change)).to(change))

    return Layer("transform", written_of(block, family), "output", scale_of(model, family), None, put)


def _ends_attention(path: str) -> bool:
    parent, _, leaf = path.rpartition(".")
    return leaf in _ATTENTION_ENDS and "att" in parent


def is_linear(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)
