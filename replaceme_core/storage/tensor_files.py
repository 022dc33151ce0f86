"""Safetensors checkpoints tensor by tensor: what a folder holds, and a writer that never holds more than one tensor.

The format: eight bytes with the length of a JSON header, the header (name -> dtype, shape, offsets), the values.
"""

import json
import re
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from replaceme_core.errors import ModelError
from replaceme_core.storage.folders import writing

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""what the format calls the dtypes that a model is exported in"""
_WORDS = {short: name for name, short in NAMES.items()} | {"F64": "float64"}
_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    """in the words of the format, for example BF16"""

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * _SIZES.get(self.dtype, 1)

    @property
    def is_floating(self) -> bool:
        return self.dtype in _WORDS

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of a floating entry."""
        dtype: torch.dtype = getattr(torch, _WORDS[self.dtype])
        return dtype

    def read(self) -> Tensor:
        """The values, mapped from the file: they leave memory with the tensor."""
        from safetensors import safe_open

        with safe_open(self.file, "pt") as opened:
            values: Tensor = opened.get_tensor(self.name)
        return values


def entries(folder: Path) -> dict[str, Entry]:
    """Every tensor of a checkpoint folder, in one file or many. No values are read."""
    index = folder / INDEX
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else {SINGLE}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"The weights in '{folder}' are incomplete or damaged ({error}); copy or fetch the checkpoint again.") from error
    return {entry.name: entry for file in sorted(folder / name for name in names) for entry in entries_of(file)}


def entries_of(file: Path) -> list[Entry]:
    """Every tensor of one file. No values are read."""
    from safetensors import SafetensorError, safe_open

    found = []
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dictionary
                part = opened.get_slice(name)
                found.append(Entry(name, file, tuple(part.get_shape()), part.get_dtype()))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"The weights in '{file.parent}' are incomplete or damaged ({error}); copy or fetch the checkpoint again."
        ) from error
    return found


def write_shards(folder: Path, plan: list[Entry], max_shard_size: str, read: Callable[[Entry], Tensor]) -> list[str]:
    """Writes the planned tensors as `from_pretrained` expects them; returns the file names.

    `read` gives the values of one entry, in its dtype and shape; they are dropped before the next one is read.
    `max_shard_size` is for example 5GB; a larger tensor gets a file of its own.
    """
    shards = _shards(plan, _n_bytes(max_shard_size))
    names = [SINGLE] if len(shards) == 1 else [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write(folder / name, shard, read)
    if len(shards) > 1:
        weight_map = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        data = {"metadata": {"total_size": sum(entry.n_bytes for entry in plan)}, "weight_map": dict(sorted(weight_map.items()))}
        with writing(folder):
            (folder / INDEX).write_text(json.dumps(data, indent=2), encoding="utf-8")
    return names


def as_dtype(entry: Entry, dtype: str | None) -> Entry:
    """The same entry in another dtype (a torch name); integers stay as they are."""
    return entry if dtype is None or not entry.is_floating else replace(entry, dtype=NAMES[dtype])


def bit_equal(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors hold the same bytes (a NaN equals itself, -0 does not equal 0)."""
    return left.dtype == right.dtype and torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8))


def _shards(plan: list[Entry], limit: int) -> list[list[Entry]]:
    """In order, each shard as full as the limit allows; wide dtypes first within one, so that all values are aligned."""
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in plan:
        if shards[-1] and size + entry.n_bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.n_bytes
    return [sorted(shard, key=lambda entry: -_SIZES.get(entry.dtype, 1)) for shard in shards]


def _write(path: Path, shard: list[Entry], read: Callable[[Entry], Tensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in shard:
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, offset + entry.n_bytes]}
        offset += entry.n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with writing(path.parent):
        file = path.open("wb")
    with closing(file):
        with writing(path.parent):
            file.write(struct.pack("<Q", len(text)) + text)
        for entry in shard:
            values = read(entry).contiguous().reshape(-1).view(torch.uint8)  # an error of the source is none of the disk written to
            assert values.numel() == entry.n_bytes, entry
            with writing(path.parent):
                file.write(values.numpy().data)
        with writing(path.parent):
            file.flush()


def _n_bytes(size: str) -> int:
    found = re.fullmatch(r"([\d.]+)\s?([a-z]+)", size.lower())
    assert found, size
    return int(float(found[1]) * _UNITS[found[2].upper()])
