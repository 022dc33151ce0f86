"""Puts a transform into the weights that end a block's MLP, whatever kind they are. Computed in fp64, stored in their dtype.

For a writer with M = phi W' + b, M T = phi (T'W)' + bT; the same for transposed (Conv1D) and fused expert weights; a norm's
gain g takes a diagonal t as g t. The original parameters are left alone: the block gets new ones.
"""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from replaceme_core.errors import FamilyError
from replaceme_core.models.architecture.families import writers_in
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.running.precision import exact, exact_device
from replaceme_core.plans.plan import MethodSection


def merge(block: nn.Module, family: Family, matrix: Float64[Tensor, "width width"]) -> None:
    """Replaces the parameters of every writer of the block, so that its M becomes M T."""
    found = writers_in(block, family)
    if not found:
        raise FamilyError(
            f"A block of the family '{family.name}' has none of its output projections ({family.writer}); the row does not fit this model."
        )
    for path in found:
        parent, _, name = path.rpartition(".")
        owner = block.get_submodule(parent)
        target = getattr(owner, name)
        if isinstance(target, nn.Parameter):
            _merge_experts(owner, name, family, matrix)
        elif family.merge == "diagonal":
            _merge_gain(target, family, matrix)
        else:
            _merge_linear(target, matrix)


def _merge_linear(writer: Any, matrix: Tensor) -> None:
    from transformers.pytorch_utils import Conv1D

    weight, bias = writer.weight, getattr(writer, "bias", None)
    transform = matrix.to(exact_device(weight.device))
    if isinstance(writer, Conv1D):
        writer.weight = _like(weight, exact(weight) @ transform)
    elif isinstance(writer, nn.Linear) and weight.is_floating_point():
        writer.weight = _like(weight, transform.T @ exact(weight))
    else:
        raise FamilyError(
            f"The output projection is a {type(writer).__name__}, not a plain linear layer; load the model unquantised to merge into it."
        )
    if bias is not None:
        writer.bias = _like(bias, exact(bias) @ transform)


def _merge_experts(owner: nn.Module, name: str, family: Family, matrix: Tensor) -> None:
    weight: Tensor = getattr(owner, name)
    transform = matrix.to(exact_device(weight.device))
    merged = exact(weight) @ transform if family.experts == "inner_first" else transform.T @ exact(weight)
    setattr(owner, name, _like(weight, merged))
    bias = getattr(owner, f"{name}_bias", None)
    if bias is not None:
        setattr(owner, f"{name}_bias", _like(bias, exact(bias) @ transform))


def require_takes(family: Family, method: MethodSection) -> None:
    """Before a pass: a `FamilyError` where what the method solves would not merge."""
    if family.merge == "diagonal" and method.name != "drop" and method.structure != "diagonal" and not method.separate:
        raise _only_diagonal(family)


def _only_diagonal(family: Family) -> FamilyError:
    return FamilyError(
        f"The family '{family.name}' takes only a diagonal transform ({family.reason}); choose a least-squares method with structure: diagonal, or 'drop'."
    )


def _merge_gain(norm: Any, family: Family, matrix: Tensor) -> None:
    diagonal = matrix.diagonal()
    if bool((matrix - torch.diag(diagonal)).abs().max() > 0):
        raise _only_diagonal(family)
    gain = exact(norm.weight) + family.gain_offset
    norm.weight = _like(norm.weight, gain * diagonal.to(gain.device) - family.gain_offset)


def _like(parameter: Tensor, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(parameter), requires_grad=parameter.requires_grad)
