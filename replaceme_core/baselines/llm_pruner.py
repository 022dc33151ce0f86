"""LLM-Pruner (arXiv 2305.11627): coupled weights go together, those first whose loss would change least to first order.

A group is a channel of the MLP (a row of gate and up, a column of down) or the heads that share a key and value head (their rows of
q, k, v, their columns of o). Its importance is the sum of |g w| over its weights, g the gradient of the next-token loss on the
calibration set (equation 5; the vector's first-order term). This uses gradients and trains nothing. As in the paper the first and
last blocks stay whole (3 and 2 of 32 there) and each block in between loses the same share of its own groups. Such a model has
blocks of two shapes, which no plain configuration describes; `uniform=True` narrows all blocks alike and gives a plain model.

The paper then heals by LoRA, which is training and not part of the choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from replaceme_core.baselines import width
from replaceme_core.baselines.interface import Clock, Pruned, Request
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.errors import InputError, NumericsError
from replaceme_core.models.running.precision import exact

_POSITIONS, _TOKENS = 1024, 8192
_FIRST, _LAST = 3 / 32, 2 / 32
"""shares of the blocks that stay whole at both ends"""
GRADIENTS = "Uses gradients of the loss on the calibration set; no weight is trained."
UNIFORM = "All blocks are narrowed alike, the outer ones too, which the paper does not do; so the result is a plain model."


def by(uniform: bool) -> Callable[[Request], Pruned]:
    """The method as the table of names wants it."""
    return partial(_make, uniform)


def _make(uniform: bool, request: Request) -> Pruned:
    width.checked(request)
    clock = Clock()
    with request.handle.borrow() as model:
        copied = width.own_copy(model)
    blocks = _narrowed_blocks(len(copied.model.layers), uniform)
    groups, channels = _amounts(request, copied, len(blocks))
    importance = {number: scores for number, scores in enumerate(importances(request, copied)) if number in blocks}
    kept: dict[str, Any] = {"blocks": list(blocks), "heads_removed": groups, "channels_removed": channels}
    for number, scores in importance.items():
        narrow(copied.model.layers[number], _best(scores.heads, groups), _best(scores.channels, channels))
    if uniform:
        _mend(copied)
    notes = (UNIFORM if uniform else width.IN_MEMORY, GRADIENTS)
    name = "llm_pruner_uniform" if uniform else "llm_pruner"
    return width.finished(request, name, copied, (), seconds=clock.seconds, figures=kept, notes=notes)


def _narrowed_blocks(count: int, uniform: bool) -> range:
    if uniform:
        return range(count)
    first, last = max(1, round(_FIRST * count)), max(1, round(_LAST * count))
    if count <= first + last:
        raise InputError(f"A model of {count} blocks has no middle blocks to narrow; choose the uniform form.")
    return range(first, count - last)


def _amounts(request: Request, model: Any, count: int) -> tuple[int, int]:
    """Key and value heads, and MLP channels, that every narrowed block loses: one share of both, channels filling up the budget."""
    block = model.model.layers[0]
    heads, channels = model.config.num_key_value_heads, block.mlp.gate_proj.out_features
    per_head = sum(p.numel() for p in _attention_weights(block)) // heads
    per_channel = sum(p.numel() for p in _mlp_weights(block)) // channels
    budget = -(-request.n_parameters // count)
    share = budget / (heads * per_head + channels * per_channel)
    groups = min(heads - 1, int(share * heads))
    wanted = -(-(budget - groups * per_head) // per_channel)
    if wanted >= channels:
        width.require_budget(request, count * ((heads - 1) * per_head + (channels - 1) * per_channel))
        groups = heads - 1
        wanted = max(0, -(-(budget - groups * per_head) // per_channel))
    return groups, wanted


def _attention_weights(block: Any) -> list[Tensor]:
    """What belongs to single heads. The bias of o belongs to the stream."""
    attention = block.self_attn
    rows = [p for linear in (attention.q_proj, attention.k_proj, attention.v_proj) for p in linear.parameters()]
    return [*rows, attention.o_proj.weight]


def _mlp_weights(block: Any) -> list[Tensor]:
    return [*block.mlp.gate_proj.parameters(), *block.mlp.up_proj.parameters(), block.mlp.down_proj.weight]


@dataclass(frozen=True, eq=False)
class Importance:
    """Of one block: the sum of |g w| over each group."""

    heads: Float64[Tensor, " groups"]
    channels: Float64[Tensor, " channels"]


def importances(request: Request, model: Any) -> list[Importance]:
    """Of every block, from the summed gradient over the train part (about 8,192 tokens at most). `model` is a copy of one's own."""
    calibration = request.calibration.first(_TOKENS)
    chosen = [[i for i in batch if not calibration.heldout[i]] for batch in batches(calibration.lengths, _POSITIONS)]
    chosen = [batch for batch in chosen if batch]
    weights = [p for block in model.model.layers for p in (*_attention_weights(block), *_mlp_weights(block))]
    for weight in weights:
        weight.requires_grad_(True)
    total = sum(calibration.lengths[i] - 1 for batch in chosen for i in batch)
    with torch.enable_grad():
        for number, batch in enumerate(chosen, start=1):
            ids, mask = (tensor.to(model.device) for tensor in inputs_of(calibration, batch))
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            goals = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), goals.flatten(), reduction="sum") / total
            loss.backward()  # type: ignore[no-untyped-call]
            request.progress.update(number, len(chosen), "batches", "gradients of the loss (LLM-Pruner)")
    if not all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights):
        raise NumericsError("The gradients of the loss are not finite. Load the model in float32 instead of float16.")
    found = [_importance(block, model.config.num_key_value_heads) for block in model.model.layers]
    for weight in weights:
        weight.grad = None
        weight.requires_grad_(False)
    return found


def _importance(block: Any, heads: int) -> Importance:
    attention, mlp = block.self_attn, block.mlp
    rows = [p for linear in (attention.q_proj, attention.k_proj, attention.v_proj) for p in linear.parameters()]
    by_head = sum(_salience(p).reshape(heads, -1).sum(1) for p in rows)
    by_head = by_head + _salience(attention.o_proj.weight).sum(0).reshape(heads, -1).sum(1)
    rows = [*mlp.gate_proj.parameters(), *mlp.up_proj.parameters()]
    by_channel = sum(_salience(p).reshape(len(p), -1).sum(1) for p in rows) + _salience(mlp.down_proj.weight).sum(0)
    return Importance(by_head.cpu(), by_channel.cpu())


def _salience(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return (exact(weight.grad) * exact(weight.detach())).abs()


def _best(scores: Tensor, fewer: int) -> Tensor:
    """Indices that stay, ascending: all but the `fewer` of least importance."""
    return scores.argsort(stable=True)[fewer:].sort().values


def narrow(block: Any, heads: Tensor, channels: Tensor) -> None:
    """Keeps these key and value heads, with the query heads that read them, and these channels. Changes the block."""
    attention, mlp = block.self_attn, block.mlp
    size, shared = attention.head_dim, attention.num_key_value_groups
    own, queries = _spread(heads, size), _spread(heads, size * shared)
    for linear, rows in ((attention.q_proj, queries), (attention.k_proj, own), (attention.v_proj, own)):
        _keep_rows(linear, rows)
    _keep_columns(attention.o_proj, queries)
    _keep_rows(mlp.gate_proj, channels)
    _keep_rows(mlp.up_proj, channels)
    _keep_columns(mlp.down_proj, channels)


def _spread(groups: Tensor, size: int) -> Tensor:
    """The positions of groups of `size` neighbours."""
    return (groups.unsqueeze(1) * size + torch.arange(size)).flatten()


def _keep_rows(linear: Any, rows: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[rows.to(linear.weight.device)].clone(), requires_grad=False)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows.to(linear.bias.device)].clone(), requires_grad=False)
    linear.out_features = len(rows)


def _keep_columns(linear: Any, columns: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns.to(linear.weight.device)].clone(), requires_grad=False)
    linear.in_features = len(columns)


def _mend(model: Any) -> None:
    """The configuration of a model whose blocks are all narrowed alike."""
    config, block = model.config, model.model.layers[0]
    size = block.self_attn.head_dim
    config.head_dim, config.intermediate_size = size, block.mlp.gate_proj.out_features
    config.num_attention_heads = block.self_attn.q_proj.out_features // size
    config.num_key_value_heads = block.self_attn.k_proj.out_features // size
