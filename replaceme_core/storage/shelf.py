"""Small results that took long to make, on the disk: found again after a restart, whole or not there at all, bounded in size.

One thing is one safetensors file, named by what it was made of: its tensors, and all else as JSON in the header, with a hash over both. A
file that is cut off or changed is removed and counts as never made. Together they take a tenth of what the passes may
(`REPLACEME_STORE_GIB`); those that were not used for longest go first.
"""

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.errors import InputError, quoted
from replaceme_core.storage.cache import cache_folder

_logger = logging.getLogger(__name__)
LIMIT = "REPLACEME_STORE_GIB"
"""environment variable: what all passes may take on the disk together, in GiB; half of what would be free without them if unset"""
KINDS = ("fits", "variants")
_SHARE = 10
"""of what the passes may take, one part of so many is for what lies here: many small things, which no pass pushes out"""
_ENTRY, _ENDING = "replaceme", ".safetensors"
_ABANDONED = 3600.0
"""seconds after which a file that nobody gave its name is what a killed process left"""


def limit(free: int) -> int:
    """What the passes may take together, in bytes, where so many would be free without them. Raises `InputError`."""
    given = os.environ.get(LIMIT)
    try:
        return int(float(given) * 2**30) if given else free // 2
    except (ValueError, OverflowError):
        raise InputError(f"{LIMIT} is '{given}', which is no number of GiB; set it to one, such as 20, or leave it out.") from None


def put(kind: str, key: str, tensors: Mapping[str, Tensor], said: dict[str, Any]) -> bool:
    """Keeps the tensors, and what is plain data; False where there is no room, or the disk says no: then it is made again another time."""
    from safetensors.torch import save_file

    values = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text, path = json.dumps(said), _path(kind, key)
    partly = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _make_room(sum(each.numel() * each.element_size() for each in values.values())):
            return False
        header = {_ENTRY: json.dumps({"said": text, "hash": _hash(values, text)})}
        save_file(values or {"": torch.zeros(0)}, partly, metadata=header)
        partly.replace(path)
    except Exception as error:  # of the disk, through whatever library writes to it
        _logger.warning("%s could not be kept (%s); it is made again another time", path, quoted(error))
        with suppress(OSError):
            partly.unlink(missing_ok=True)
        return False
    return True


def get(kind: str, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What was kept under that name; None where nothing is, or nothing whole."""
    from safetensors import safe_open

    path = _path(kind, key)
    try:
        if not path.is_file():
            return None
        with safe_open(path, "pt") as opened:
            header = json.loads(opened.metadata()[_ENTRY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys() if name}  # noqa: SIM118  not a dictionary
        if header["hash"] != _hash(tensors, header["said"]):
            raise ValueError("its content is not what was written")
        os.utime(path)
        return tensors, json.loads(header["said"])
    except Exception as error:  # whatever a damaged file raises in the library that reads it
        _logger.warning("%s is damaged (%s) and is made again", path, quoted(error))
        remove(kind, key)
        return None


def keys(kind: str, beginning: str = "") -> list[str]:
    """The names of what is kept, the oldest first."""
    found = [path for path in _files(kind) if path.name.startswith(beginning)]
    return [path.name.removesuffix(_ENDING) for path in sorted(found, key=_used)]


def remove(kind: str, key: str) -> None:
    with suppress(OSError):
        _path(kind, key).unlink(missing_ok=True)


def held(kind: str) -> tuple[int, int]:
    """How many there are, and their bytes on the disk."""
    sizes = [_size(path) for path in _files(kind)]
    return len(sizes), sum(sizes)


def clear() -> None:
    """Removes all of every kind."""
    for kind in KINDS:
        for key in keys(kind):
            remove(kind, key)


def room() -> int:
    """Bytes that all kinds may take together."""
    place = cache_folder()
    parent = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free + sum(held(kind)[1] for kind in KINDS)
    return min(free, limit(free) // _SHARE)


def _make_room(n_bytes: int) -> bool:
    """Removes what was not used for longest until so many bytes fit; nothing is removed where they never would."""
    _sweep()
    most = room()
    if n_bytes > most:
        return False
    oldest_first = sorted((path for kind in KINDS for path in _files(kind)), key=_used)
    taken = sum(map(_size, oldest_first))
    for path in oldest_first:
        if taken + n_bytes <= most:
            break
        taken -= _size(path)
        path.unlink(missing_ok=True)
    return True


def _sweep() -> None:
    """Removes what killed processes left half written."""
    for kind in KINDS:
        for path in _folder(kind).glob(".*"):
            if time.time() - _used(path) > _ABANDONED:
                path.unlink(missing_ok=True)


def _folder(kind: str) -> Path:
    return cache_folder() / kind


def _path(kind: str, key: str) -> Path:
    return _folder(kind) / f"{key}{_ENDING}"


def _files(kind: str) -> list[Path]:
    """Those that are whole; what is being written has a hidden name."""
    place = _folder(kind)
    return [path for path in place.glob(f"*{_ENDING}") if not path.name.startswith(".")] if place.is_dir() else []


def _used(path: Path) -> float:
    """When it was made or found last; at once where another process has removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _hash(tensors: Mapping[str, Tensor], text: str) -> str:
    whole = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
