"""The header of a GGUF file: read as the `gguf` package reads it, and a sentence for every damage."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from replaceme_core.errors import ModelError
from replaceme_core.storage import gguf_file


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tensors of two types, and entries of every kind of value."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "Größe")
    writer.add_uint8("a.byte", 200)
    writer.add_int32("a.number", -5)
    writer.add_float64("a.fraction", 0.25)
    writer.add_bool("a.truth", True)
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("tokenizer.ggml.tokens", ["one", "two", "drei", "vier"])
    writer.add_array("tokenizer.ggml.token_type", [1, 1, 1, 3])
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(4, 3))
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("blk.0.ffn_down.weight", gguf.quantize(np.ones((2, 64), np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_entries_and_tensors_are_those_that_the_gguf_package_reads(path):
    found, theirs = gguf_file.read(path), gguf.GGUFReader(path)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            value = field.contents()
            assert found.entries[key] == (len(value) if value and isinstance(value, list) and isinstance(value[0], str) else value)
    assert found.with_texts("tokenizer.ggml.tokens") == {"tokenizer.ggml.tokens": ["one", "two", "drei", "vier"]}
    assert list(found.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        ours = found.tensors[tensor.name]
        assert (ours.kind, ours.offset, ours.n_bytes) == (tensor.tensor_type.name, tensor.data_offset, tensor.n_bytes)
        assert ours.shape == tuple(reversed(tensor.shape.tolist()))
        assert ours.raw().tobytes() == tensor.data.tobytes()
    assert (found.architecture, found.stored_as, found.dtype, found.title) == ("llama", "Q8_0", "float32", "small")
    assert found.kinds == {"Q8_0": 128, "F32": 12}


def test_the_short_file_has_every_entry_but_the_lists_of_the_tokenizer(path, tmp_path):
    found = gguf_file.read(path)
    (tmp_path / "short.gguf").write_bytes(found.short)
    short = gguf.GGUFReader(tmp_path / "short.gguf")
    assert {key for key in short.fields if not key.startswith("GGUF.")} == {
        key for key in found.entries if not key.startswith("tokenizer.ggml.tok")
    }
    assert [tensor.name for tensor in short.tensors] == list(found.tensors)


def damaged(path: Path, folder: Path, change) -> Path:
    data = bytearray(path.read_bytes())
    changed = change(data)
    out = folder / "damaged.gguf"
    out.write_bytes(data if changed is None else changed)
    return out


def poke(place: int, layout: str, value: int):
    def change(data: bytearray) -> None:
        struct.pack_into(layout, data, place, value)

    return change


DAMAGE = {
    "empty": (lambda _data: b"", "has 0 bytes, too few for a GGUF file"),
    "cut in the counts": (lambda data: data[:20], "has 20 bytes, too few"),
    "another file": (lambda data: b"PK\x03\x04" + data[4:], "does not begin with the letters GGUF"),
    "version 1": (poke(4, "<I", 1), "is of version 1; only little-endian GGUF of version 2 or 3"),
    "other byte order": (poke(4, ">I", 3), "was written for machines of the other byte order"),
    "too many tensors": (poke(8, "<Q", 1 << 60), "promises 1,152,921,504,606,846,976 tensors, more than"),
    "too many entries": (poke(16, "<Q", 1 << 60), "promises 1,152,921,504,606,846,976 entries"),
    "a key without end": (poke(24, "<Q", 1 << 62), "promises 4,611,686,018,427,387,904 letters"),
    "an unknown kind of value": (poke(24 + 8 + 20, "<I", 77), "a value of the unknown type 77"),
    "letters that are none": (lambda data: data.replace("Größe".encode(), b"Gr\xff\xff\xff\xff\xff"[:7]), "makes no sense"),
    "no values": (lambda data: data[: len(data) - 200], "ends before the values of"),
    "an unknown type": (lambda data: _retyped(data, 4711), r"in a type \(4711\) that the installed gguf package does not know"),
    "no architecture": (lambda data: data.replace(b"general.architecture", b"general.brchitecture"), "names no architecture"),
    "a tensor twice": (lambda data: data.replace(b"\x15\0\0\0\0\0\0\0blk.0.ffn_down.weight", b"\x11\0\0\0\0\0\0\0token_embd.weight"), None),
}


def _retyped(data: bytearray, number: int) -> bytearray:
    place = data.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16
    struct.pack_into("<I", data, place, number)
    return data


@pytest.mark.parametrize("case", list(DAMAGE))
def test_damage_is_one_sentence_that_names_the_file(path, tmp_path, case):
    change, sentence = DAMAGE[case]
    with pytest.raises(ModelError, match=sentence) as error:
        gguf_file.read(damaged(path, tmp_path, change))
    assert "damaged.gguf" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_cut_and_no_changed_byte_of_the_header_raises_anything_else(path, tmp_path):
    """Every place of the header, cut there and with three other bytes: a header that reads, or a `ModelError`."""
    whole = path.read_bytes()
    end = min(tensor.offset for tensor in gguf_file.read(path).tensors.values())
    refused = 0
    for place in range(end):
        versions = [whole[:place]] + [whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :] for flip in (0x01, 0x80, 0xFF)]
        for data in versions:
            (tmp_path / "odd.gguf").write_bytes(data)
            try:
                gguf_file.read(tmp_path / "odd.gguf")
            except ModelError:
                refused += 1
    assert refused > end


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="does not exist; check the path"):
        gguf_file.read(tmp_path / "none.gguf")
    with pytest.raises(ModelError, match="cannot be read"):
        gguf_file.read(tmp_path)
