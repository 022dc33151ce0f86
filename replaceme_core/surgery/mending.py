"""After blocks are cut: everything in a model that counts them, or holds one value for each, is put right.

What is forgotten here fails late: a stale `layer_idx` breaks cached generation only, a stale list gives wrong logits in
silence, a stale rule for dense and sparse blocks fills the reloaded model with random weights. After `mend` the blocks still
compute what they did in the original; `settle` then moves what depends on a block's number into its weights.
"""

from typing import Any

import torch
from torch import nn

from replaceme_core.models.architecture.families import blocks_of, counted
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.checkpoints.left_out import PREDICTION
from replaceme_core.models.running.precision import exact, exact_device
from replaceme_core.span import Cut, Span
from replaceme_core.surgery.patterns import mend_patterns, require_expressible

_NUMBERS = ("layer_idx", "layer_id")


def mend(pruned: Any, family: Family, kept: list[int]) -> None:
    """Numbers and configuration. `kept` holds the old indices of the blocks that stay, in order. No weight is touched."""
    for index, block in enumerate(blocks_of(pruned, family)):
        _renumber(block, index)
    mend_configuration(counted(pruned.config, family), family, kept)


def mend_configuration(config: Any, family: Family, kept: list[int]) -> None:
    """Every entry that counts the blocks, or says something of single ones."""
    for entry in family.layer_lists:
        values = getattr(config, entry, None)
        if values is not None:
            setattr(config, entry, [values[old] for old in kept])
    mend_patterns(config, kept)
    for entry in PREDICTION:  # no model here holds these layers
        if getattr(config, entry, None):
            setattr(config, entry, 0)
    if hasattr(config, "attention_types"):  # gpt_neo keeps its list twice
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]
    config.num_hidden_layers = len(kept)


def require_cut(model: Any, family: Family, removed: Span | Cut) -> None:
    """A `FamilyError` before any pass for a cut that the family's configuration cannot express (see patterns)."""
    require_expressible(model, family, removed, lambda config, kept: mend_configuration(config, family, kept))


def settle(pruned: Any, family: Family, kept: list[int]) -> None:
    """The weights of blocks that compute with their own number, after all new weights are in their places.

    GPT-2 may divide attention scores by the block's number + 1 (`scale_attn_by_inverse_layer_idx`). transformers 5 computes the factor
    when it builds the block (modeling_gpt2.GPT2Attention), so that a model that is read back has those of the new numbers: the queries
    make up for them, and the block in memory gets the factor that it would be built with.
    """
    config = counted(pruned.config, family)
    if not numbered_scores(config):
        return
    for index, (old, block) in enumerate(zip(kept, blocks_of(pruned, family), strict=True)):
        if index != old:
            _rescale_queries(block, (index + 1) / (old + 1))
            attention: Any = block.get_submodule("attn")
            with torch.device("meta"):
                attention.scaling = type(attention)(config, layer_idx=index).scaling


def numbered_scores(config: Any) -> bool:
    """Whether attention scores depend on the number of their block, so that a cut changes weights of every block behind it."""
    return bool(getattr(config, "scale_attn_by_inverse_layer_idx", False))


def _renumber(block: nn.Module, index: int) -> None:
    for module in block.modules():
        for name in _NUMBERS:
            if isinstance(getattr(module, name, None), int):
                setattr(module, name, index)


def _rescale_queries(block: nn.Module, factor: float) -> None:
    """Multiplies the queries of a joint projection for queries, keys and values."""
    projection: Any = block.get_submodule("attn.c_attn")
    width = projection.weight.shape[0]
    scale = torch.ones(3 * width, dtype=torch.float64, device=exact_device(projection.weight.device))
    scale[:width] = factor
    for name in ("weight", "bias"):
        old = getattr(projection, name)
        setattr(projection, name, nn.Parameter((exact(old) * scale).to(old), requires_grad=old.requires_grad))
