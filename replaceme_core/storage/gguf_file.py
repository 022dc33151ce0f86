"""GGUF files read strictly: the header of one file or of all its splits, and where the values of each tensor lie.

The header is read here and not by `gguf.GGUFReader`, which makes an object of every entry of the vocabulary: 5.5 s for the 98,000 tokens
and merges of a 135M model where this takes a twentieth of a second. It is as strict with a damaged file as a person needs: every length is
checked against the file before it is believed, and the values have to be there.

The format (little-endian): "GGUF", version, number of tensors, number of entries; the entries (key, type, value); the tensors (name, sides
with the fastest first, type, offset); the values, aligned. Names of types and bytes of a block come from the `gguf` package.
"""

import hashlib
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from replaceme_core.errors import ModelError

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
_MOST_SIDES = 8
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float32"}
"""types that hold numbers, not blocks of them -> the dtype that they are held in"""
_AGAIN = "it is damaged or was not fetched completely; fetch it again"


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: where its values lie and how they are stored."""

    name: str
    file: Path
    shape: tuple[int, ...]
    """as torch counts the sides: slowest first"""
    kind: str
    """in the words of the format, for example Q4_1"""
    offset: int
    n_bytes: int

    def raw(self) -> Any:
        """The bytes as they lie in the file, mapped: a numpy array of uint8."""
        import numpy as np

        return np.memmap(self.file, np.uint8, "r", self.offset, (self.n_bytes,))


@dataclass(frozen=True)
class GgufFile:
    """The header of a file, or of all files of a split one. No values are read."""

    files: tuple[Path, ...]
    entries: dict[str, Any]
    """key -> value; of lists of texts only how many they are (the vocabulary is read by the tokenizer)"""
    tensors: dict[str, GgufTensor]
    short: bytes
    """a small GGUF file with the same entries but the tokenizer's lists, and with the names of the tensors: all that a configuration needs"""

    @property
    def architecture(self) -> str:
        return str(self.entries["general.architecture"])

    @property
    def first(self) -> Path:
        """The file with the entries; of a split one the first."""
        return self.files[0]

    @property
    def title(self) -> str:
        """The name without its ending, and without the number of a split."""
        found = _SPLIT.match(self.first.name)
        return found["stem"] if found else self.first.stem

    @property
    def kinds(self) -> dict[str, int]:
        """Types of tensors -> number of values, the most first."""
        counted: dict[str, int] = {}
        for tensor in self.tensors.values():
            counted[tensor.kind] = counted.get(tensor.kind, 0) + prod(tensor.shape)
        return dict(sorted(counted.items(), key=lambda item: -item[1]))

    @property
    def stored_as(self) -> str:
        """The type of most of the values in the matrices of the blocks, for example Q4_1."""
        blocks = [tensor for tensor in self.tensors.values() if tensor.name.startswith("blk.") and len(tensor.shape) > 1]
        kinds = [tensor.kind for tensor in blocks] or list(self.kinds)
        return max(dict.fromkeys(kinds), key=kinds.count)

    @property
    def is_quantised(self) -> bool:
        return self.stored_as not in _PLAIN

    @property
    def dtype(self) -> str:
        """The torch dtype that holds the values: the file's own if they are plain numbers, float32 for what was quantised."""
        return _PLAIN.get(self.stored_as, "float32")

    @cached_property
    def sha256(self) -> str:
        """Of the bytes of all files, in order. Reads them whole."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
        return digest.hexdigest()

    def with_texts(self, *keys: str) -> dict[str, list[str]]:
        """The lists of texts under these keys, which `entries` only counts."""
        with self.first.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _Header(self.first, data, frozenset(keys)).entries
        return {key: found[key] for key in keys if isinstance(found.get(key), list)}


def is_gguf(path: str | Path) -> bool:
    """Whether a path names such a file, there or not."""
    return Path(path).suffix.lower() == ".gguf"


def in_folder(folder: Path) -> Path | None:
    """The one GGUF file of a folder, or the first of one split one; None if there is none. Raises `ModelError` for several."""
    found = sorted(path for path in folder.glob("*") if is_gguf(path) and path.is_file())
    sets = {_split_name(path) or path.name for path in found}
    if len(sets) > 1:
        raise ModelError(f"The folder '{folder}' holds {len(sets)} GGUF files ({', '.join(sorted(sets)[:3])}); name the one that is meant.")
    return found[0] if found else None


def read(path: str | Path) -> GgufFile:
    """The header of a file, with all others where it is one of several. Raises `ModelError` for what is missing, damaged or unknown."""
    files = _all_of(Path(path))
    headers = [_read_one(file) for file in files]
    entries = headers[0].entries
    tensors: dict[str, GgufTensor] = {}
    for file, header in zip(files, headers, strict=True):
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise ModelError(f"'{file}' holds the tensor '{tensor.name}' for a second time; {_AGAIN}.")
            tensors[tensor.name] = tensor
    if not isinstance(entries.get("general.architecture"), str):
        raise ModelError(f"'{files[0]}' names no architecture (general.architecture); choose another file.")
    promised = entries.get("split.tensors.count")
    if promised not in (None, 0, len(tensors)):
        raise ModelError(f"The {len(files)} files of '{files[0]}' hold {len(tensors)} tensors where {promised} belong; {_AGAIN}.")
    return GgufFile(tuple(files), entries, tensors, _short(headers[0].short_entries, list(tensors)))


def _split_name(path: Path) -> str | None:
    found = _SPLIT.match(path.name)
    return f"{found['stem']} in {int(found['count'])} files" if found else None


def _all_of(path: Path) -> list[Path]:
    """The file, or all files of the split one that it belongs to."""
    found = _SPLIT.match(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    files = [path.with_name(f"{found['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"'{path}' is one of {count} files, and {len(missing)} of them are not beside it ({missing[0]}); fetch them all.")
    return files


def _short(entries: list[bytes], names: list[str]) -> bytes:
    """A file with these entries as they are, and tensors of one number each that share one place."""
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(names), len(entries)), *entries]
    parts += [struct.pack("<Q", len(name.encode())) + name.encode() + struct.pack("<IQIQ", 1, 1, 0, 0) for name in names]
    return b"".join(parts) + bytes(1 << 16)  # enough for the alignment and the one number


def _read_one(path: Path) -> "_Header":
    try:
        size = path.stat().st_size
        if size < struct.calcsize("<4sIQQ"):
            raise ModelError(f"'{path}' has {size} bytes, too few for a GGUF file; {_AGAIN}.")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(path, data)
    except FileNotFoundError:
        raise ModelError(f"The file '{path}' does not exist; check the path.") from None
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read ({error.strerror or error}); check the path and its permissions.") from error
    except (struct.error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ModelError(f"The header of '{path}' makes no sense ({error}); {_AGAIN}.") from error


class _Header:
    """Everything before the values, read from left to right."""

    def __init__(self, path: Path, data: mmap.mmap, texts: frozenset[str] = frozenset()) -> None:
        self._path, self._data, self._place = path, data, 0
        self._texts = texts
        if data[:4] != b"GGUF":
            raise ModelError(f"'{path}' is not a GGUF file (it does not begin with the letters GGUF); choose another file.")
        _magic, version, n_tensors, n_entries = self._take("4sIQQ")
        if version not in (2, 3):
            why = "was written for machines of the other byte order" if version & 0xFFFF == 0 else f"is of version {version}"
            raise ModelError(f"'{path}' {why}; only little-endian GGUF of version 2 or 3 is read. Convert it, or fetch another file.")
        self.entries: dict[str, Any] = {}
        self.short_entries: list[bytes] = []
        for _ in range(self._count(n_entries, 13, "entries")):
            start, key = self._place, self._text()
            kind = self._take("I")[0]
            self.entries[key] = self._value(kind, key)
            if kind != _ARRAY or not key.startswith("tokenizer."):
                self.short_entries.append(data[start : self._place])
        found = [self._tensor() for _ in range(self._count(n_tensors, 25, "tensors"))]
        self.tensors = list(self._placed(found))

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self._data, self._place)
        self._place += struct.calcsize(f"<{layout}")
        return values

    def _count(self, number: int, least_bytes: int, what: str) -> int:
        """A number of things that are still to come, each of which takes so many bytes at least."""
        left = len(self._data) - self._place
        if number * least_bytes > left:
            raise ModelError(
                f"The header of '{self._path}' promises {number:,} {what}, more than its {left:,} further bytes hold; {_AGAIN}."
            )
        return int(number)

    def _text(self) -> str:
        length = self._count(self._take("Q")[0], 1, "letters")
        text = self._data[self._place : self._place + length]
        self._place += length
        return text.decode("utf-8")

    def _value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])[0]
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._list(key)
        raise ModelError(f"The header of '{self._path}' holds a value of the unknown type {kind} ({key}); {_AGAIN}.")

    def _list(self, key: str) -> Any:
        kind, number = self._take("IQ")
        if kind in _SCALARS:
            return list(self._take(f"{self._count(number, struct.calcsize(_SCALARS[kind]), 'values')}{_SCALARS[kind]}"))
        if kind != _STRING:
            raise ModelError(f"The header of '{self._path}' holds a list of the unknown type {kind} ({key}); {_AGAIN}.")
        number = self._count(number, 8, "texts")
        if key in self._texts:
            return [self._text() for _ in range(number)]
        for _ in range(number):
            self._place += 8 + struct.unpack_from("<Q", self._data, self._place)[0]
        return number

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """(name, shape, number of its type, offset in the values)"""
        name = self._text()
        n_sides = self._take("I")[0]
        if n_sides > _MOST_SIDES:
            raise ModelError(f"The header of '{self._path}' gives '{name}' {n_sides} sides; {_AGAIN}.")
        sides = self._take(f"{n_sides}Q")
        kind, offset = self._take("IQ")
        return name, tuple(reversed(sides)), kind, offset

    def _placed(self, found: list[tuple[str, tuple[int, ...], int, int]]) -> Iterator[GgufTensor]:
        """The tensors with their places in the file, which has to be long enough."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        alignment = self.entries.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 1:
            raise ModelError(f"The header of '{self._path}' aligns its values to {alignment} bytes; {_AGAIN}.")
        start = -(-self._place // alignment) * alignment
        names = {kind.value: kind for kind in GGMLQuantizationType}
        for name, shape, number, offset in found:
            if number not in names:
                raise ModelError(
                    f"'{self._path}' stores '{name}' in a type ({number}) that the installed gguf package does not know; "
                    "fetch the file in a common type (Q4_K_M, Q8_0, F16)."
                )
            per_block, block_bytes = GGML_QUANT_SIZES[names[number]]
            n_bytes = prod(shape) // per_block * block_bytes
            if (shape and shape[-1] % per_block) or start + offset + n_bytes > len(self._data):
                raise ModelError(f"'{self._path}' ends before the values of '{name}' do ({len(self._data):,} bytes); {_AGAIN}.")
            yield GgufTensor(name, self._path, shape, names[number].name, start + offset, n_bytes)
