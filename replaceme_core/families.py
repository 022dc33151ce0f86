"""Where a model family keeps its blocks and its writer, whether a transform merges into it, and if not, why.

A family is a row of data. The *writer* is the linear that ends a block's MLP; a merge is exact when the writer's
output is added to the residual stream as it is. `layer_lists` names the configuration entries that hold one value per
block and must be cut together with the blocks.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from replaceme_core.errors import FamilyError


@dataclass(frozen=True)
class Family:
    """One row: a family of architectures that share their parts' names and their merge."""

    name: str
    model_types: tuple[str, ...]
    blocks: str
    writer: str
    merge: Literal["exact", "refused"]
    reason: str
    layer_lists: tuple[str, ...] = ()


_PRE_NORM = "the MLP's output is added to the residual stream as it is"
_POST_NORM = "a norm stands between the writer and the residual stream, so that a full matrix cannot be merged"
_UNPROVEN = "its merge has not been proven here yet"

FAMILIES: tuple[Family, ...] = (
    Family("llama", ("llama",), "model.layers", "mlp.down_proj", "exact", _PRE_NORM),
    Family("mistral", ("mistral",), "model.layers", "mlp.down_proj", "exact", _PRE_NORM),
    Family("qwen2", ("qwen2",), "model.layers", "mlp.down_proj", "exact", _PRE_NORM, ("layer_types",)),
    Family("qwen3", ("qwen3",), "model.layers", "mlp.down_proj", "exact", _PRE_NORM, ("layer_types",)),
    Family("gemma 2 and 3", ("gemma2", "gemma3", "gemma3_text"), "model.layers", "mlp.down_proj", "refused", _POST_NORM),
    Family("olmo 2 and 3", ("olmo2", "olmo3"), "model.layers", "mlp.down_proj", "refused", _POST_NORM),
    Family("glm4", ("glm4",), "model.layers", "mlp.down_proj", "refused", _POST_NORM),
    Family("exaone4", ("exaone4",), "model.layers", "mlp.down_proj", "refused", _POST_NORM),
    Family("granite", ("granite",), "model.layers", "mlp.down_proj", "refused", f"it scales the MLP's output, and {_UNPROVEN}"),
    Family("gpt2", ("gpt2",), "transformer.h", "mlp.c_proj", "refused", f"its writer stores the transposed weight, and {_UNPROVEN}"),
    Family("opt", ("opt",), "model.decoder.layers", "fc2", "refused", f"its blocks have no MLP module, and {_UNPROVEN}"),
    Family("bloom", ("bloom",), "transformer.h", "mlp.dense_4h_to_h", "refused", f"its MLP adds the residual itself, and {_UNPROVEN}"),
    Family("gpt_neox", ("gpt_neox",), "gpt_neox.layers", "mlp.dense_4h_to_h", "refused", f"its blocks are parallel, and {_UNPROVEN}"),
    Family(
        "mixtral", ("mixtral",), "model.layers", "mlp.experts.down_proj", "refused", f"its MLP is a mixture of experts, and {_UNPROVEN}"
    ),
)


def find(config: Any) -> Family:
    """The row of a transformers configuration; an unknown architecture gets a refused row that says so."""
    model_type = str(getattr(config, "model_type", "unknown"))
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    return Family(model_type, (model_type,), "", "", "refused", f"the architecture '{model_type}' is not in the table of families")


def require_exact(family: Family) -> Family:
    """The family, or a `FamilyError` with the reason why it is refused."""
    if family.merge == "exact":
        return family
    known = ", ".join(row.name for row in FAMILIES if row.merge == "exact")
    raise FamilyError(f"The family '{family.name}' cannot be pruned here: {family.reason}. Families that can: {known}.")


def blocks_of(model: nn.Module, family: Family) -> nn.ModuleList:
    """The list of blocks of a model with a language-model head."""
    blocks = model.get_submodule(family.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise FamilyError(
            f"'{family.blocks}' of {type(model).__name__} is not a list of blocks, so the row '{family.name}' does not fit it"
        )
    return blocks


def writer_of(block: nn.Module, family: Family) -> nn.Linear:
    """The linear that ends the block's MLP."""
    writer = block.get_submodule(family.writer)
    if not isinstance(writer, nn.Linear):
        raise FamilyError(
            f"The writer '{family.writer}' is a {type(writer).__name__}, not a plain linear layer; load the model unquantised"
        )
    return writer
