"""The linearity probe: does a block's output follow its written module one to one? Confirms a row, or recognises a new family.

A random change added to the output of the written module must move the block's output by exactly `scale` times as much.
Where it does, T merges; where a norm stands between, the error is of order one. One extra forward of eight tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from replaceme_core.errors import FamilyError, ModelError, quoted
from replaceme_core.figures import number as number_of
from replaceme_core.models.architecture import modality, recognition
from replaceme_core.models.architecture.families import blocks_of, counted, placed, scale_of
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.running import capture
from replaceme_core.models.running.precision import exact

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_BACKWARDS = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 1e-2}
"""how far logits may move with the token behind them, relative to that token's own: rounding alone"""
_LENGTH = 8
_SENSES = ("vision", "visual", "image", "audio", "speech")


def expected(model: Any, family: Family) -> Family:
    """The row as far as the modules say, without a weight: placed where this model has its blocks; refused where something is missing.

    What no row knows is *unknown* if blocks and something like an output projection are there: only `confirm` can tell.
    """
    family = _located(placed(model, family), model)
    known = "" if family.writers else f"{family.reason}, and "
    try:
        blocks = blocks_of(model, family)
        lacking = [number for number in recognition.kinds(blocks) if not recognition.has_writers(blocks[number], family)]
    except (AttributeError, FamilyError):
        said = f"{known}no single list of {_depth(model)} blocks is found in {type(model).__name__}"
        return replace(family, merge="refused", blocks="", reason=said)
    if lacking and family.merge != "refused":
        return replace(
            family, merge="refused", reason=f"the row '{family.name}' does not fit this model: block {lacking[0]} has no {family.writer}"
        )
    if lacking or family.writers:
        return (
            family
            if family.writers
            else replace(family, reason=f"{known}nothing like an output projection is found in its block {lacking[0]}")
        )
    return replace(family, merge="unknown", reason=f"{known}whether a transform merges is measured when the weights are read")


def confirm(model: Any, family: Family) -> Family:
    """`expected`, confirmed by measurement in one block of each kind; refused if it fails; a measured row for an unknown family."""
    known, family = family, expected(model, family)
    if family.merge == "unknown":
        return _recognise(model, replace(family, merge="refused", reason=known.reason))
    if family.merge == "refused":
        return family
    try:
        error = max(probe(model, family, number) for number in recognition.kinds(blocks_of(model, family)))
    except Exception as missing:  # a row that does not fit fails anywhere in the model's own code
        return replace(family, merge="refused", reason=f"the row '{family.name}' does not fit this model ({_said(missing)})")
    if error <= TOLERANCE[model.dtype]:
        return family
    measured = f"measured: the block's output does not follow its output projection (relative error {number_of(error)}), so that something stands between"
    return replace(family, merge="refused", reason=measured)


def require_causal(model: Any, family: Family) -> None:
    """A `ModelError` for a model of text whose words about a token depend on the tokens behind it: nothing here is true of it."""
    if family.merge != "refused" and any(parameter.is_meta for parameter in model.parameters()):
        return  # known families that accelerate offloaded: a pass reads all weights from the disk
    ids = modality.TEXT.probe(model, None, (1, _LENGTH)).repeat(2, 1)
    ids[1, -1] = (ids[1, -1] + 1) % model.get_input_embeddings().num_embeddings
    try:
        with torch.no_grad():
            left, right = exact(model(input_ids=ids, use_cache=False).logits)
    except Exception:  # what cannot run is told where it is used
        return
    moved = (left - right).norm(dim=-1)
    if float(moved[:-1].max()) > _BACKWARDS[model.dtype] * float(moved[-1]):
        raise ModelError(
            f"'{family.name}' is not a causal language model here: what it says of a token depends on the tokens behind it (an encoder, or bidirectional "
            "attention). Choose a decoder model (see `python -m replaceme_core families`)."
        )


def _located(family: Family, model: Any) -> Family:
    """The row with the path of the blocks in this model, which a wrapper may hold deeper."""
    if family.inputs == "text":
        try:
            model.get_submodule(family.blocks or "?")
        except AttributeError:
            return replace(family, blocks=find_blocks(model) or family.blocks)
    return family


def _depth(model: Any) -> int:
    return int(getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", 0))


def probe(model: Any, family: Family, block: int | None = None) -> float:
    """Relative error of 'output moves by scale x change' in one block, by default the middle one."""
    generator = torch.Generator().manual_seed(0)
    ids, mask = modality.of(family).probe(model, family, (1, _LENGTH)), None
    block = counted(model.config, family).num_hidden_layers // 2 if block is None else block
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
    if len(found) > 1:  # the tower of a model that also sees or hears may be as deep
        found = [name for name in found if not any(word in name for word in _SENSES)]
    return found[0] if len(found) == 1 else None


def _recognise(model: Any, family: Family) -> Family:
    """An unknown architecture whose writers can be found and pass the probe in every kind of block; else the refused row."""
    path = family.blocks
    kinds, said = recognition.kinds(model.get_submodule(path)), ""
    for row in recognition.candidates(model, family, path):
        try:
            passes = all(probe(model, row, number) <= TOLERANCE[model.dtype] for number in kinds)
            if passes and all(recognition.takes_a_transform(model, row, number) for number in kinds):
                return row
        except Exception as error:  # an architecture that is not known fails anywhere in its own code
            said = f" ({_said(error)})"
    different = f"its {len(kinds)} kinds of blocks" if len(kinds) > 1 else "its blocks"
    return replace(family, blocks="", reason=f"{family.reason}, and no output projection in {different} passes the linearity probe{said}")


def _said(error: Exception) -> str:
    return quoted(error).rstrip(".") or type(error).__name__
