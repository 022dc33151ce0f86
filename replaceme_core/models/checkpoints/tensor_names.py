"""Which tensor of the model each tensor of a checkpoint is, where transformers renames or fuses them while it loads.

The rules are transformers' own (`conversion_mapping`), applied in its order (`core_model_loading`): renamed tensors, a
prefix that is added or taken away, and experts that are stacked, and joined in pairs, into one tensor.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.errors import ModelError
from replaceme_core.storage.tensor_files import Entry

UNQUANTISED = "load the model unquantised and merge in memory instead"
_COMPUTED = r"inv_freq$|masked_bias$|position_ids$"
_STACK, _JOIN = "MergeModulelist", "Concatenate"


@dataclass(frozen=True)
class Part:
    """One tensor of a checkpoint, as a part of the model."""

    entry: Entry
    target: str
    """the model's name of the tensor that it is, or that it goes into"""
    pattern: str | None = None
    """the rule that fuses it, for example `.experts.*.w2.weight`; None: it is the whole tensor"""
    index: int = 0
    """its place in the stack"""

    def of(self, whole: Tensor) -> Tensor:
        """This part of the model's tensor, which must not be joined from several kinds."""
        return whole if self.pattern is None else whole[self.index]


class Names:
    """The rules of one model, which may be on the meta device."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter

        rules = get_model_conversion_mapping(model)
        self._model = model
        self._state: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self._renamings = [rule for rule in rules if not isinstance(rule, WeightConverter)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]

    def parts(self, held: dict[str, Entry], source: Path) -> list[Part]:
        """Every tensor of a checkpoint as a part of the model, but those that transformers leaves out.

        Raises `ModelError` if the model lacks a tensor, the checkpoint holds another one, or a shape or a rule is not understood.
        """
        from transformers.core_model_loading import dot_natural_key

        found: dict[str, list[Part]] = {}
        extra = []
        for name in sorted(held, key=dot_natural_key):
            target, pattern = self.target_of(name)
            if target in self._state:
                stack = found.setdefault(target, [])
                stack.append(Part(held[name], target, pattern, sum(part.pattern == pattern for part in stack)))
            elif not self._is_left_out(target):
                extra.append(name)
        present = {id(self._state[target]) for target in found}
        missing = [name for name, tensor in self._state.items() if id(tensor) not in present]
        shapes = [name for name, parts in found.items() if self._shape(parts, source) != tuple(self._state[name].shape)]
        for what, names in (("lacks", missing), ("also holds", extra), ("has another shape for", shapes)):
            if names:
                raise self._refused(source, f"it {what} '{names[0]}' ({len(names)} such names)")
        return [part for parts in found.values() for part in parts]

    def left_out(self, held: dict[str, Entry]) -> list[str]:
        """Tensors of a checkpoint that have no place in the model; those that models compute themselves (masks, tables of positions) apart."""
        extra = [name for name in held if self.target_of(name)[0] not in self._state]
        return [
            name for name in extra if not re.search(_COMPUTED, name) and not (name.endswith("attn.bias") and len(held[name].shape) == 4)
        ]

    def target_of(self, name: str) -> tuple[str, str | None]:
        """The model's name for a checkpoint's name, and the rule that fuses it; as `convert_and_load_state_dict_in_model` finds them."""
        from transformers.core_model_loading import rename_source_key

        prefix = self._model.base_model_prefix
        target, pattern = rename_source_key(name, self._renamings, self._converters, prefix, self._state)
        if target not in self._state and name in self._state:
            target, pattern = rename_source_key(name, [], [], prefix, self._state)
        return target, pattern

    def renumbered(self, part: Part, target: str, old: int, new: int) -> str | None:
        """The checkpoint's name for the same part of another block: the one number in it that moves its target there, if there is one."""
        pieces = part.entry.name.split(".")
        for place, piece in enumerate(pieces):
            if piece == str(old):
                name = ".".join([*pieces[:place], str(new), *pieces[place + 1 :]])
                if self.target_of(name) == (target, part.pattern):
                    return name
        return None

    def _shape(self, parts: list[Part], source: Path) -> tuple[int, ...]:
        """The shape that the parts of one tensor make together; () if they do not fit."""
        pattern = parts[0].pattern
        if pattern is None:
            return parts[0].entry.shape if len(parts) == 1 else ()
        rule = next(rule for rule in self._converters if pattern in rule.source_patterns)
        names = [type(operation).__name__ for operation in rule.operations]
        dims = [getattr(operation, "dim", None) for operation in rule.operations]
        if (names, dims) not in (([_STACK], [0]), ([_STACK, _JOIN], [0, 1])) or len(rule.target_patterns) != 1:
            raise self._refused(
                source, f"the tensor '{parts[0].target}' is made of '{parts[0].entry.name}' by {', '.join(names)}, which is not undone here"
            )
        stacks = [[part for part in parts if part.pattern == kind] for kind in rule.source_patterns]
        shapes = [{part.entry.shape for part in stack} for stack in stacks]
        if len({len(stack) for stack in stacks}) != 1 or any(len(kinds) != 1 for kinds in shapes):
            return ()
        each = [kinds.pop() for kinds in shapes]
        rest = {shape[1:] for shape in each}
        return (len(stacks[0]), sum(shape[0] for shape in each), *rest.pop()) if len(rest) == 1 else ()

    def _is_left_out(self, target: str) -> bool:
        """What transformers ignores in old checkpoints: buffers that are computed, and what the model's class names."""
        ignored = [*(getattr(self._model, "_keys_to_ignore_on_load_unexpected", None) or ()), r"rotary_emb\.inv_freq"]
        return any(re.search(pattern, target) for pattern in ignored) or self._predicts_more(target)

    def _predicts_more(self, target: str) -> bool:
        """Layers of multi-token prediction, which are numbered on behind the blocks or stand under a name of their own."""
        number = re.search(r"(?:^|\.)layers\.(\d+)\.", target)
        depth = getattr(self._model.config.get_text_config(decoder=True), "num_hidden_layers", 0)
        return bool(re.search(r"(?:^|\.)mtp\.", target)) or (number is not None and int(number[1]) >= depth)

    def _refused(self, source: Path, what: str) -> ModelError:
        return ModelError(
            f"The checkpoint '{source}' cannot be rewritten tensor by tensor: next to {type(self._model).__name__} {what}. "
            f"What transformers renames or fuses while it loads is followed as far as it can be undone; {UNQUANTISED}."
        )


def assembled(parts: list[Part]) -> Tensor:
    """The values of one tensor of the model, from its parts; for a stack of one kind."""
    if parts[0].pattern is None:
        return parts[0].entry.read().clone()
    assert len({part.pattern for part in parts}) == 1, parts[0].target
    return torch.stack([part.entry.read() for part in parts])
