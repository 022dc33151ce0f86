"""Which files of a folder are the checkpoint, and what became of it on the way: shards whose index is missing, names with a prefix, an adapter beside.

Each says what it is. What is complete is read as it is meant, through a folder of links with the index that was missing; nothing is
written beside somebody's weights. What could mean two things is refused.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replaceme_core.errors import ModelError
from replaceme_core.storage import tensor_files
from replaceme_core.storage.tensor_files import INDEX, SINGLE

ADAPTER = "adapter_config.json"
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors$")
_PREFIXES = {
    "base_model.model.": "a peft wrapper",
    "_orig_mod.": "torch.compile",
    "module.": "a wrapper for several devices (DataParallel)",
}
"""what training programs leave before the name of every tensor -> which"""
_UNMERGED = (".lora_", ".base_layer.")


@dataclass(frozen=True)
class Arrangement:
    """How a local folder is to be read."""

    folder: Path
    shards: tuple[str, ...] = ()
    """files of a sharded checkpoint without an index; empty: transformers finds the files by itself"""
    prefix: str = ""
    """before the name of every tensor"""

    @property
    def said(self) -> str:
        """For people; empty for a plain checkpoint."""
        found = [f"{len(self.shards)} shards without an index"] if self.shards else []
        found += [f"names that begin with '{self.prefix}' ({_whose(self.prefix)})"] if self.prefix else []
        return f"a checkpoint of {' and '.join(found)}, read as it is meant" if found else ""

    @property
    def options(self) -> dict[str, Any]:
        """Of `from_pretrained`."""
        return {"key_mapping": {f"^{re.escape(self.prefix)}": ""}} if self.prefix else {}

    @contextmanager
    def readable(self) -> Iterator[Path]:
        """A folder that transformers can read: itself, or one of links that lives as long as this block."""
        if not self.shards:
            yield self.folder
            return
        with tempfile.TemporaryDirectory(prefix="replaceme-") as links:
            for path in self.folder.iterdir():
                (Path(links) / path.name).symlink_to(path.resolve())
            names = {entry.name: entry.file.name for shard in self.shards for entry in tensor_files.entries_of(self.folder / shard)}
            (Path(links) / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}), encoding="utf-8")
            yield Path(links)


def arranged(folder: Path) -> Arrangement:
    """How to read a folder with safetensors in it. Raises `ModelError` where it holds two checkpoints, or a part of one."""
    names = {path.name for path in folder.glob("*.safetensors")}
    if SINGLE in names and (folder / INDEX).is_file():
        raise ModelError(
            f"The folder '{folder}' holds two checkpoints, {SINGLE} and the shards of {INDEX}, and which one is meant is not said; move one of them away."
        )
    shards = () if SINGLE in names or (folder / INDEX).is_file() else _shards(folder, names)
    held = [entry.name for file in (shards or _files(folder)) for entry in tensor_files.entries_of(folder / file)]
    prefix = _prefix(held)
    if prefix and any(mark in name for name in held for mark in _UNMERGED):
        raise ModelError(
            f"The weights in '{folder}' are those of a peft model with its adapter still apart ('{held[0]}'); load them there, merge_and_unload(), and "
            "save that."
        )
    return Arrangement(folder, shards, prefix)


def _files(folder: Path) -> list[str]:
    if not (folder / INDEX).is_file():
        return [SINGLE]
    return sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))


def _shards(folder: Path, names: set[str]) -> tuple[str, ...]:
    """All shards of the one checkpoint that lies there without an index."""
    found = [match for name in sorted(names) if (match := _SHARD.match(name))]
    kinds = {(match["stem"], match["total"]) for match in found}
    if len(kinds) != 1:
        held = f"the shards of {len(kinds)} checkpoints" if kinds else ", ".join(sorted(names)[:3])
        raise ModelError(
            f"The folder '{folder}' has no {SINGLE} and no {INDEX}; it holds {held}. Name the file of the weights {SINGLE}, or fetch the index, too."
        )
    total = int(found[0]["total"])
    if len(found) < total:
        raise ModelError(
            f"The folder '{folder}' lacks {total - len(found)} of {total} files of weights, and their index ({INDEX}); copy or fetch them."
        )
    return tuple(match[0] for match in found)


def _prefix(names: list[str]) -> str:
    """What stands before the name of every tensor, of one wrapper in another too."""
    prefix = ""
    while names:
        more = next((each for each in _PREFIXES if all(name.startswith(prefix + each) for name in names)), None)
        if more is None:
            break
        prefix += more
    return prefix


def _whose(prefix: str) -> str:
    return " in ".join(who for each, who in _PREFIXES.items() if each in prefix)


def merged(model: Any) -> tuple[Any, str]:
    """The model with the adapter that transformers attached merged into its weights (peft), and a sentence on it if there was one."""
    if not getattr(model, "_hf_peft_config_loaded", False):
        return model, ""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            plain = module.get_base_layer()
        elif isinstance(module, AuxiliaryTrainingWrapper):
            plain = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
        else:
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, plain)
    model._hf_peft_config_loaded = False
    if hasattr(model, "peft_config"):
        del model.peft_config
    return (
        model,
        f"a model with an adapter beside it ({ADAPTER}), merged into its weights; without the adapter's files the model alone is read",
    )


def forget_how_it_lay(model: Any) -> None:
    """transformers writes a model the way it was read: with prefixes, as an adapter, quantised. What is written here is a plain checkpoint."""
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
