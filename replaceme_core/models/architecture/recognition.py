"""An architecture that is not in the table: its blocks are looked at one by one, and what is found is confirmed by measurement.

Blocks may differ (dense first, sparse later). What ends the MLP is looked for in one block of each kind, must have one place in all of
them, and must pass the linearity probe in each; experts must also take a transform there. Else the family is refused with the reason.
"""

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import blocks_of, writers_in, written_of
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.quantised import is_whole
from replaceme_core.models.running import capture
from replaceme_core.models.running.precision import exact

WRITER_NAMES = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2", "fc_out")
REASON = "recognised by measurement: the output projection passes the linearity probe"
EXPERTS = "recognised by measurement: one block of each kind passes the linearity probe, and every expert takes the transform"
_PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "attention_layers", "no_rope_layers")
"""configuration entries with one value for each block, wherever they occur"""
_MIXERS = ("attn", "attention", "mamba", "conv", "ssm", "indexer")
"""what a path of the other half of a block contains"""
_SCALE = "residual_multiplier"
_LENGTH = 8


def kinds(blocks: nn.ModuleList) -> list[int]:
    """One block of each kind: the first that has modules of these names and classes."""
    first: dict[tuple[Any, ...], int] = {}
    for number, block in enumerate(blocks):
        first.setdefault(tuple((path, type(module).__name__) for path, module in block.named_modules()), number)
    return list(first.values())


def candidates(model: Any, family: Family, path: str) -> Iterator[Family]:
    """Rows that may fit a model whose blocks are at `path`: the MLP as a whole where it holds several writers, then single linear layers."""
    blocks = model.get_submodule(path)
    config = model.config.get_text_config(decoder=True)
    scale = _SCALE if getattr(config, _SCALE, 1.0) != 1.0 else ""
    row = Family(family.name, family.model_types, path, (), REASON, layer_lists=layer_lists(model), scale=scale)
    found = [_writers(blocks[number], config.hidden_size) for number in kinds(blocks)]
    for child in dict.fromkeys(name.partition(".")[0] for each in found for name in each):
        own = [{name: inner for name, inner in each.items() if name.partition(".")[0] == child} for each in found]
        if not all(own):
            continue
        names = tuple(dict.fromkeys(name for each in own for name in each))
        stacked = {inner for each in own for inner in each.values()} - {None}
        if len(names) > 1 or stacked:
            for order in stacked or {False}:
                yield _with(row, names, child, inner_first=bool(order))
    for name in found[0]:
        if all(each.get(name, True) is None for each in found):
            yield _with(row, (name,))


def _with(row: Family, writers: tuple[str, ...], written: str = "", inner_first: bool = False) -> Family:
    return Family(
        row.name,
        row.model_types,
        row.blocks,
        writers,
        EXPERTS if written else REASON,
        written=written,
        scale=row.scale,
        experts="inner_first" if inner_first else "outer_first",
        layer_lists=row.layer_lists,
    )


def has_writers(block: nn.Module, family: Family) -> bool:
    """Whether a block has some of the row's writers; of a family that no row knows, whether it has something like one."""
    return bool(writers_in(block, family) if family.writers else _writers(block, 0))


def _writers(block: nn.Module, width: int) -> dict[str, bool | None]:
    """Path -> None for a linear layer; for stacked experts whether the width is the last side; what the attention ends with left out."""
    from transformers.pytorch_utils import Conv1D

    found: dict[str, bool | None] = {}
    for name, module in block.named_modules():
        if name.endswith(WRITER_NAMES) and isinstance(module, nn.Linear | Conv1D):
            found[name] = None
    for name, parameter in block.named_parameters():
        if name.endswith(WRITER_NAMES) and parameter.ndim == 3:
            found[name] = parameter.shape[1] != width
    return {name: inner for name, inner in found.items() if not any(word in name for word in _MIXERS)}


def takes_a_transform(model: Any, row: Family, number: int) -> bool:
    """Whether the written module of one block gives m T with a diagonal T in its writers: none was missed, and no experts lie the other way.

    Nothing is tried on a quantised or offloaded model; the checks of the pruned checkpoint stand in for it.
    """
    if not row.written or not is_whole(model):
        return True
    block = blocks_of(model, row)[number]
    written = written_of(block, row)
    with capture.called(written) as calls:
        capture.read_states(model, row, modality.of(row).probe(model, row, (1, _LENGTH)), None, stop=number + 1)
    args, options, before = calls[0]
    factors = 1 + torch.rand(before.shape[-1], generator=torch.Generator().manual_seed(0))
    weights = {name.removeprefix(f"{row.written}."): value for name, value in _scaled(block, row, factors.to(before)).items()}
    with torch.no_grad():
        after = capture.first(functional_call(written, weights, args, options))
    expected = exact(before) * exact(factors.to(before))
    return float((exact(after) - expected).norm() / expected.norm()) <= _ALLOWED[model.dtype]


def _scaled(block: nn.Module, row: Family, factors: Tensor) -> dict[str, Tensor]:
    """The parameters of a block's writers with a diagonal transform in them."""
    from transformers.pytorch_utils import Conv1D

    held = dict(block.named_parameters())
    changed: dict[str, Tensor] = {}
    for path in row.writers:
        if path in held:
            changed[path] = held[path] * (factors if row.experts == "inner_first" else factors.unsqueeze(-1))
        elif f"{path}.weight" in held:
            last = isinstance(block.get_submodule(path), Conv1D)
            changed[f"{path}.weight"] = held[f"{path}.weight"] * (factors if last else factors.unsqueeze(-1))
        for name in (f"{path}_bias", f"{path}.bias"):
            if name in held:
                changed[name] = held[name] * factors
    return changed


_ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def layer_lists(model: Any) -> tuple[str, ...]:
    """The configuration's entries that hold one value for each block: those known to, and those that the model reads by every block's number."""
    config = model.config.get_text_config(decoder=True)
    n_blocks = config.num_hidden_layers
    found = [name for name, value in config.to_dict().items() if isinstance(value, list | tuple) and len(value) == n_blocks]
    unknown = [name for name in found if name not in _PER_LAYER]
    read = _read_by_number(model, unknown) if unknown else {}
    return tuple(name for name in found if name in _PER_LAYER or read[name] >= set(range(n_blocks)))


def _read_by_number(model: Any, names: list[str]) -> dict[str, set[int]]:
    """The places of each list that are read while the model is built once more without memory, and runs once. Its length alone proves nothing."""
    config = model.config.get_text_config(decoder=True)
    own = {name: getattr(config, name) for name in names}
    seen: dict[str, set[int]] = {name: set() for name in names}
    try:
        for name in names:
            setattr(config, name, _Watched(own[name], seen[name]))
        with torch.device("meta"):
            type(model)(copy.deepcopy(model.config))
        with torch.no_grad(), suppress(Exception):  # what cannot run is refused by the probe, with what it said
            model.base_model(input_ids=modality.TEXT.probe(model, None, (1, _LENGTH)), use_cache=False)
    finally:
        for name in names:
            setattr(config, name, own[name])
    return seen


class _Watched(list):
    """A list that notes which places are read, also in its copies."""

    def __init__(self, values: Any, seen: set[int]) -> None:
        super().__init__(values)
        self.seen = seen

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int):
            self.seen.add(key % len(self))
        return super().__getitem__(key)

    def __deepcopy__(self, memo: Any) -> "_Watched":
        return _Watched(copy.deepcopy(list(self), memo), self.seen)
