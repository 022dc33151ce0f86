"""What tells models apart: one short text for all that decides what a model computes.

Every bit of every parameter and buffer, the configuration and the settings of generation, without names and paths. Results are
kept by it: two models with one fingerprint give the same scores. It is the same on every device and in every process.
"""

import hashlib
import json
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from replaceme_core.models.quantised import stored

Digests = dict[int, tuple["weakref.ref[Tensor]", int, bytes]]
"""by id of a tensor: the tensor itself, its version (torch counts what is written into it), and the hash of its values"""
_AT_ONCE = 2**24
"""values that are brought to the CPU at a time"""
_NAMES = {
    "_name_or_path", "name_or_path", "_commit_hash", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id",
    "finetuning_task", "_from_model_config",
}  # fmt: skip
"""entries of configurations that say where a model is from or what it is called; dtypes are those of the tensors"""
_MOVING = ("dynamic", "longrope")
"""kinds of rotary positions whose table changes with the length of the last text; what it is made of stays beside it"""
_SCALES = ("absmax", "code", "offset")
"""tensors of bitsandbytes' quantisation state: the same 4-bit codes mean other weights under other scales"""


def of(model: nn.Module, known: Digests | None = None) -> tuple[str, Digests]:
    """The fingerprint, and the hash of every tensor for the next model that shares some: its `known`, which are not read again."""
    whole = hashlib.sha256(text([type(model).__name__, settings(getattr(model, "config", None))]))
    whole.update(text(settings(getattr(model, "generation_config", None))))
    digests: Digests = {}
    for name, tensor in tensors(model):
        digest = _known(tensor, known or {})
        if digest is None:
            digest = _digest(stored(model, name, tensor))
        if not tensor.is_meta:
            digests[id(tensor)] = (weakref.ref(tensor), tensor._version, digest)
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode() + digest)
    for name, scale in _scales(model):
        whole.update(name.encode() + _digest(scale))
    return whole.hexdigest()[:16], digests


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, each once; of a table that changes while the model runs, what it is made of."""
    yield from model.named_parameters()
    modules = dict(model.named_modules())
    for name, buffer in model.named_buffers():
        owner, _, leaf = name.rpartition(".")
        kinds = getattr(modules[owner], "rope_type", "")
        kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
        moves = leaf.endswith("inv_freq") and any(kind in str(each) for each in kinds for kind in _MOVING)
        if not moves or leaf.endswith("original_inv_freq"):
            yield name, buffer


def _scales(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What bitsandbytes keeps beside a packed weight: of 4 bits the scales and, where these are packed too, theirs; of 8 bits one a row."""
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        for level in (state, getattr(state, "state2", None)):
            for entry in _SCALES:
                if isinstance(scale := getattr(level, entry, None), Tensor):
                    yield f"{name} {entry}", scale
        if isinstance(scale := getattr(parameter, "SCB", None), Tensor):
            yield f"{name} SCB", scale


def _known(tensor: Tensor, known: Digests) -> bytes | None:
    """The hash of a tensor that was read before and has not been written into since."""
    found = known.get(id(tensor))
    return found[2] if found is not None and found[0]() is tensor and found[1] == tensor._version else None


def _digest(tensor: Tensor) -> bytes:
    """SHA-256 of the values, bit by bit, a piece at a time on the CPU: nothing is summed, so that order, device and threads cannot matter."""
    digest = hashlib.sha256()
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _AT_ONCE):
        digest.update(flat[start : start + _AT_ONCE].cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.digest()


def settings(config: Any) -> Any:
    """A configuration as plain data, without names and paths."""
    return None if config is None else _without_names(config.to_dict())


def _without_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_names(each) for key, each in value.items() if key not in _NAMES}
    return [_without_names(each) for each in value] if isinstance(value, list | tuple) else value


def text(data: Any) -> bytes:
    """Plain data as JSON that is the same for equal data."""
    return json.dumps(data, sort_keys=True, default=str).encode()
