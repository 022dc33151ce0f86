"""The linearity probe: does a block's output follow its written module one to one? Confirms a row, or recognises a new family.

A random change added to the output of the written module must move the block's output by exactly `scale` times as much.
Where it does, T merges; where a norm stands between, the error is of order one. One extra forward of eight tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from replaceme_core.figures import number
from replaceme_core.models import capture, modality
from replaceme_core.models.families import counted, placed, scale_of
from replaceme_core.models.family import Family
from replaceme_core.models.precision import exact

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_WRITER_NAMES = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2", "fc_out")
_LENGTH = 8


def confirm(model: Any, family: Family) -> Family:
    """The row, confirmed by measurement; a refused row in its place if the probe fails; a measured row for an unknown family."""
    family = placed(model, family)
    if family.merge == "refused":
        return _recognise(model, family)
    try:
        error = probe(model, family)
    except (AttributeError, IndexError) as missing:
        return replace(family, merge="refused", reason=f"the row '{family.name}' does not fit this model ({missing})")
    if error <= TOLERANCE[model.dtype]:
        return family
    measured = f"measured: the block's output does not follow its output projection (relative error {number(error)}), so that something stands between"
    return replace(family, merge="refused", reason=measured)


def probe(model: Any, family: Family) -> float:
    """Relative error of 'output moves by scale x change' in the middle block."""
    generator = torch.Generator().manual_seed(0)
    ids, mask = modality.of(family).probe(model, family, (1, _LENGTH)), None
    block = counted(model.config, family).num_hidden_layers // 2
    before = capture.read_states(model, family, ids, mask, stop=block + 1).boundaries[-1]
    change = torch.randn(before.shape, generator=generator).to(before) * before.std()
    with capture.nudged(model, family, block, change):
        after = capture.read_states(model, family, ids, mask, stop=block + 1).boundaries[-1]
    expected = scale_of(model, family) * exact(change)
    return float((exact(after) - exact(before) - expected).norm() / expected.norm())


def find_blocks(model: Any) -> str | None:
    """Path of the one list of blocks: as long as the configuration says, of checkpointing layers only."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    n_blocks = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks and all(isinstance(b, GradientCheckpointingLayer) for b in module)
    ]
    return found[0] if len(found) == 1 else None


def _recognise(model: Any, family: Family) -> Family:
    """An unknown architecture whose blocks and writer can be found and pass the probe; else the refused row."""
    path = find_blocks(model)
    if path is None or family.writers:
        return family
    config = model.config.get_text_config(decoder=True)
    lists = tuple(
        name for name, value in config.to_dict().items() if isinstance(value, list | tuple) and len(value) == config.num_hidden_layers
    )
    block = model.get_submodule(path)[0]
    for name, module in block.named_modules():
        if not name.endswith(_WRITER_NAMES) or "attn" in name or "attention" in name or not isinstance(module, nn.Linear):
            continue
        row = Family(
            family.name,
            family.model_types,
            path,
            (name,),
            "recognised by measurement: the output projection passes the linearity probe",
            layer_lists=lists,
        )
        if probe(model, row) <= TOLERANCE[model.dtype]:
            return row
    return replace(family, reason=f"{family.reason}, and no output projection in its blocks passes the linearity probe")
