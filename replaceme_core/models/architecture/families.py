"""Looks a model's family up, and finds its blocks and its written modules. The rows are in `family_table`."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn

from replaceme_core.errors import FamilyError, ModelError
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.architecture.family_table import FAMILIES

__all__ = [
    "FAMILIES",
    "Family",
    "blocks_of",
    "counted",
    "find",
    "placed",
    "require_causal",
    "require_mergeable",
    "scale_of",
    "unknown",
    "writers_in",
    "written_of",
]


def find(config: Any) -> Family:
    """The row of a transformers configuration; an unknown architecture gets a refused row that says so."""
    text = config.get_text_config(decoder=True)
    for model_type in (str(config.model_type), str(text.model_type)):
        for family in FAMILIES:
            if model_type in family.model_types:
                return replace(family, name=model_type)
    return unknown(str(config.model_type))


def require_causal(config: Any, where: str) -> None:
    """A `ModelError` for a configuration of an encoder, or of an encoder with a decoder; that of a decoder tower saved alone passes."""
    named = [str(name) for name in getattr(config, "architectures", None) or ()]
    head = any(name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in named)
    encoder = getattr(config, "is_decoder", None) is False and not head and find(config).merge == "refused"
    if find(config).inputs == "text" and (getattr(config, "is_encoder_decoder", False) or encoder):
        raise ModelError(
            f"{where} is not a causal language model ({', '.join(named) or config.model_type}: an encoder, or an encoder with a decoder); "
            "choose a decoder model (see `python -m replaceme_core families`)."
        )


def unknown(model_type: str) -> Family:
    """The refused row of an architecture that is not in the table."""
    reason = f"the architecture '{model_type}' is not in the table of families"
    return Family(model_type, (model_type,), "", (), reason, merge="refused")


def require_mergeable(family: Family) -> Family:
    """The family, or a `FamilyError` with the reason why nothing merges into it."""
    if family.merge != "refused":
        return family
    raise FamilyError(
        f"The family '{family.name}' cannot be pruned here: {family.reason}. `python -m replaceme_core families` lists those that can."
    )


def counted(config: Any, family: Family) -> Any:
    """The part of a configuration that counts the family's blocks: of a model with two towers, the one that is cut."""
    return getattr(config, "vision_config", config) if family.inputs == "images" else config.get_text_config(decoder=True)


def placed(model: nn.Module, family: Family) -> Family:
    """The row with paths that fit this model: a tower saved alone lacks the prefix that it has under a head."""
    first = family.tower.partition(".")[0]
    if not first or first in dict(model.named_children()):
        return family
    return replace(family, tower="", blocks=family.blocks.removeprefix(f"{family.tower}."))


def blocks_of(model: nn.Module, family: Family) -> nn.ModuleList:
    """The list of blocks of a model with a language-model head, or of its vision tower."""
    blocks = model.get_submodule(family.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise FamilyError(
            f"'{family.blocks}' of {type(model).__name__} is not a list of blocks, so the row '{family.name}' does not fit it."
        )
    return blocks


def writers_in(block: nn.Module, family: Family) -> list[str]:
    """The paths of the family's writers that this block has; a family may mix dense and sparse blocks."""
    found = []
    for path in family.writers:
        parent, _, leaf = path.rpartition(".")
        with suppress(AttributeError):
            if getattr(block.get_submodule(parent), leaf, None) is not None:
                found.append(path)
    return found


def written_of(block: nn.Module, family: Family) -> nn.Module:
    """The module whose output, times `scale_of`, is M of this block."""
    return block.get_submodule(family.written or family.writers[0])


def scale_of(model: Any, family: Family) -> float:
    """The factor between the written module's output and what is added to the residual stream."""
    return float(getattr(counted(model.config, family), family.scale)) if family.scale else 1.0
