"""Which blocks of a configuration are of which kind, said by numbers, counts or periods: the same said anew of the blocks that stay.

Where a configuration has no words for what stays, or a block's formula depends on its number, a cut is refused with the spans that can
be said. Whether it can is not derived, but seen: a model is built from the mended configuration, without memory, and compared.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch

from replaceme_core.errors import FamilyError
from replaceme_core.models.architecture.families import blocks_of, counted
from replaceme_core.models.architecture.family import Family
from replaceme_core.span import Cut, Span

_NUMBERS = ("layer_idx", "layer_id")
_INDICES = ("moe_layers", "attn_layer_indices", "full_attn_idxs", "local_layer_ids", "ple_layer_ids", "cross_attention_layers")
"""entries that list the numbers of some blocks"""
_COUNTS = ("first_k_dense_replace", "num_dense_layers", "num_hash_layers")
"""entries that count the blocks of a kind from the first one on"""
_PERIODS = (("attn_layer_period", "attn_layer_offset"), ("expert_layer_period", "expert_layer_offset"))
"""block number modulo the period equals the offset"""
_NAMED = 8
"""spans that a refusal names at most"""

Mend = Callable[[Any, list[int]], None]


def mend_patterns(config: Any, kept: list[int]) -> None:
    """Puts right every entry of the kinds above; `kept` holds the old numbers of the blocks that stay, in order."""
    if getattr(config, "mlp_only_layers", None) is not None:
        step, dense = getattr(config, "decoder_sparse_step", 1), set(config.mlp_only_layers)
        config.mlp_only_layers = [new for new, old in enumerate(kept) if old in dense or (old + 1) % step]
        config.decoder_sparse_step = 1
    for entry in _COUNTS:
        if getattr(config, entry, None) is not None:
            setattr(config, entry, sum(old < getattr(config, entry) for old in kept))
    for entry in _INDICES:
        if getattr(config, entry, None) is not None:
            named = set(getattr(config, entry))
            setattr(config, entry, [new for new, old in enumerate(kept) if old in named])
    for period, offset in _PERIODS:
        if getattr(config, period, None) is not None and hasattr(config, offset):
            _mend_period(config, period, offset, kept)
    if hasattr(config, "moe_layer_interval"):
        _mend_interval(config, kept)
    if getattr(config, "block_types", None):  # recurrent_gemma repeats them from the first block on
        config.block_types = [config.block_types[old % len(config.block_types)] for old in kept]


def _mend_period(config: Any, period: str, offset: str, kept: list[int]) -> None:
    """The least period and offset that say which of the blocks that stay are of the kind; as they are where there are none."""
    own = [old % getattr(config, period) == getattr(config, offset) for old in kept]
    for length in range(1, len(kept) + 2):
        for first in range(length):
            if [new % length == first for new in range(len(kept))] == own:
                setattr(config, offset, 0)  # never outside the period, which is checked at every change
                setattr(config, period, length)
                setattr(config, offset, first)
                return


def _mend_interval(config: Any, kept: list[int]) -> None:
    """ernie4_5_moe: from a first to a last block, every so manyth holds experts."""
    first, last, step = config.moe_layer_start_index, config.moe_layer_end_index, config.moe_layer_interval
    sparse = [new for new, old in enumerate(kept) if (old + 1) % step == 0 and first <= old <= last]
    if not sparse:
        config.moe_layer_start_index, config.moe_layer_end_index = len(kept), len(kept)
        return
    for length in range(1, len(kept) + 1):
        if [new for new in range(sparse[0], sparse[-1] + 1) if (new + 1) % length == 0] == sparse:
            config.moe_layer_interval = length
            break
    config.moe_layer_start_index, config.moe_layer_end_index = sparse[0], sparse[-1]


def require_expressible(model: Any, family: Family, removed: Span | Cut, mend: Mend) -> None:
    """A `FamilyError` for a cut after which the configuration would build other blocks than those that stay. No weight is read.

    `mend` is what puts a configuration right (see mending). Families of images hold no such entries.
    """
    if family.inputs != "text":
        return
    own = _described(model, model.config, family)
    if _same(own, model, family, removed, mend):
        return
    length = len(removed.blocks)
    starts = range(1, len(own) - length + 1)
    fit = [span for span in (Span(start, start + length) for start in starts) if _same(own, model, family, span, mend)]
    named = ", ".join(map(str, fit[:_NAMED])) + (f" and {len(fit) - _NAMED} more" if len(fit) > _NAMED else "")
    raise FamilyError(
        f"Without the blocks {removed} the configuration of '{family.name}' would build other blocks than those that stay: a block there follows "
        "from its number, by a pattern or in its formula. "
        + (
            f"Of {length} block(s), these spans can be removed: {named}."
            if fit
            else f"No span of {length} block(s) can be removed; try another length."
        )
    )


def _same(own: list[Any], model: Any, family: Family, removed: Span | Cut, mend: Mend) -> bool:
    kept = [number for number in range(len(own)) if number not in removed.blocks]
    config = copy.deepcopy(model.config)
    try:
        mend(counted(config, family), kept)
        return _described(model, config, family) == [own[number] for number in kept]
    except Exception:  # configurations check themselves in many ways
        return False


def _described(model: Any, config: Any, family: Family) -> list[Any]:
    """What each block of a model of this configuration is made of, but for its number and its weights."""
    with torch.device("meta"):
        built = type(model)(copy.deepcopy(config))
    blocks = blocks_of(built, family)
    left_out = {*_NUMBERS, "training"} | ({"scaling"} if getattr(config, "scale_attn_by_inverse_layer_idx", False) else set())
    return [[(path, type(module).__name__, _plain(module, left_out)) for path, module in block.named_modules()] for block in blocks]


def _plain(module: Any, left_out: set[str]) -> dict[str, Any]:
    """Numbers and words that a module computes with; those that begin with _ are transformers' own marks. And the shapes of its weights."""
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and not key.startswith("_") and key not in left_out
    }
    return found | {name: tuple(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
