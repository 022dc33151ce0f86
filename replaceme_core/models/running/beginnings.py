"""Which blocks two models have in common: the same tensors, not equal ones.

A pruned model shares every tensor with its original that was not changed, so that what both compute up to the first changed block is
the same and need not be computed twice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.architecture.family import Family

_PLAIN = (bool, int, float, str, type(None))
_Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Layout:
    """What decides what a language model computes up to each boundary."""

    kind: type
    around: _Tensors
    """without head and blocks: the embeddings above all"""
    blocks: list[tuple[_Tensors, list[Any]]]
    """tensors, and every module's name, class and plain settings (its number, its kind of attention, its factors)"""


def layout(model: Any, family: Family) -> Layout:
    """Borrow the model first; no tensor is copied."""
    blocks = blocks_of(model, family)
    inside = {id(tensor) for tensor in (*blocks.parameters(), *blocks.buffers())}
    around = {name: tensor for name, tensor in _tensors(model.base_model).items() if id(tensor) not in inside}
    return Layout(type(model), around, [(_tensors(block), _settings(block)) for block in blocks])


def shared_blocks(mine: Layout, other: Layout) -> int:
    """How many blocks at the beginning of two models are the same; 0 where what stands around them is not.

    Parameters are the same in memory. Buffers may be equal copies: tables of rotary positions are made for every model.
    """
    if mine.kind is not other.kind or not _same(mine.around, other.around):
        return 0
    shared = 0
    for (tensors, settings), (others, theirs) in zip(mine.blocks, other.blocks, strict=False):
        if settings != theirs or not _same(tensors, others):
            break
        shared += 1
    return shared


def _tensors(module: nn.Module) -> _Tensors:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _settings(block: nn.Module) -> list[Any]:
    return [
        (name, type(module), {key: value for key, value in vars(module).items() if isinstance(value, _PLAIN)})
        for name, module in block.named_modules()
    ]


def _same(mine: _Tensors, other: _Tensors) -> bool:
    return list(mine) == list(other) and all(_one(tensor, other[name]) for name, tensor in mine.items())


def _one(mine: Tensor, other: Tensor) -> bool:
    if mine is other:
        return True
    if (mine.shape, mine.dtype, mine.device) != (other.shape, other.dtype, other.device) or mine.is_meta:
        return False
    if mine.numel() and mine.data_ptr() == other.data_ptr() and mine.stride() == other.stride():
        return True
    return not isinstance(mine, nn.Parameter) and torch.equal(mine, other)
