"""What a checkpoint weighs, from its own headers: names and sizes of the stored tensors beside config.json or the entries of a GGUF file.

transformers, which would build the model without memory and count, takes seconds to import. This takes milliseconds, and answers only where
there is no doubt: a plain text model of a family of the table, not quantised by another program, every block alike and complete, its
vocabulary as wide as the configuration says. `None` is every other case; then the model is built. Tests hold both counts side by side.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from replaceme_core.errors import ModelError
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.architecture.family_table import FAMILIES
from replaceme_core.models.checkpoints.left_out import PREDICTION
from replaceme_core.storage import tensor_files
from replaceme_core.storage.gguf_file import GgufFile
from replaceme_core.storage.tensor_files import INDEX, SINGLE

_ODD = ("quantization_config", "auto_map", "text_config", "vision_config", "is_encoder_decoder", "sub_configs", *PREDICTION)
"""entries of a configuration that say more than a plain text model has"""
_COUNTS = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads")
_GGUF_COUNTS = {"num_hidden_layers": "block_count", "hidden_size": "embedding_length"}
_GGUF_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_GGUF_KINDS = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
_HEAD, _DTYPES = "lm_head.weight", ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Counts:
    """What a model weighs, and what its configuration says of that."""

    architecture: str
    family: Family
    n_blocks: int
    width: int
    n_parameters: int
    block_parameters: int
    """parameters of one block, on average"""
    widest: int
    """the largest side of a weight in the blocks"""
    dtype: str
    """of the stored weights"""


def read(folder: Path) -> Counts | None:
    """Of a folder that save_pretrained wrote; None where only the model itself can tell."""
    config = _plain_config(folder)
    if config is None or not _is_plain(folder):
        return None
    family = next((row for row in FAMILIES if config["model_type"] in row.model_types), None)
    if family is None or family.merge == "refused" or family.inputs != "text" or family.written or len(family.writers) != 1:
        return None
    try:
        shapes = {name: entry.shape for name, entry in tensor_files.entries(folder).items()}
    except (ModelError, MemoryError):  # damaged, or no room to map the file: the configuration is asked
        return None
    return _counted(config, replace(family, name=config["model_type"]), shapes)


def read_gguf(file: GgufFile) -> Counts | None:
    """The same of a GGUF file with the architecture and the types of weights that most have."""
    entries, named = file.entries, file.architecture
    odd = any("rope.scaling" in key or "expert" in key for key in entries) or "rope_freqs.weight" in file.tensors
    counts = {key: entries.get(f"{named}.{name}") for key, name in _GGUF_COUNTS.items()}
    if named not in _GGUF_CLASSES or odd or not set(file.kinds) <= _GGUF_KINDS or not all(type(count) is int for count in counts.values()):
        return None
    tensors = {name: tensor.shape for name, tensor in file.tensors.items()}
    if "token_embd.weight" not in tensors:
        return None
    family = next(row for row in FAMILIES if named in row.model_types)
    names = {"token_embd.weight": "embedding", "output.weight": _HEAD}
    shapes = {names.get(name, re.sub(r"^blk\.(\d+)\.", rf"{family.blocks}.\1.", name)): shape for name, shape in tensors.items()}
    shapes = {name.replace(".ffn_down.", f".{family.writers[0]}."): shape for name, shape in shapes.items()}
    config = counts | {"architectures": [_GGUF_CLASSES[named]], "vocab_size": tensors["token_embd.weight"][0], "dtype": file.dtype}
    return _counted(config | {"tie_word_embeddings": _HEAD not in shapes}, replace(family, name=named), shapes)


def _plain_config(folder: Path) -> dict[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = config["architectures"]
        plain = len(named) == 1 and named[0].endswith("ForCausalLM") and not any(config.get(key) for key in _ODD)
        numbers = all(type(config[key]) is int and config[key] > 0 for key in _COUNTS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return config if plain and numbers and type(config.get("model_type")) is str else None


def _is_plain(folder: Path) -> bool:
    """One checkpoint of safetensors with nothing beside it that becomes part of the model."""
    one = (folder / SINGLE).is_file() != (folder / INDEX).is_file()
    return one and not (folder / "adapter_config.json").exists() and not (folder / "adapter_model.safetensors").exists()


def _counted(config: Mapping[str, Any], family: Family, shapes: Mapping[str, tuple[int, ...]]) -> Counts | None:
    n_blocks, width = config["num_hidden_layers"], config["hidden_size"]
    blocks = [_within(f"{family.blocks}.{number}.", shapes) for number in range(n_blocks)]
    beyond = _within(f"{family.blocks}.{n_blocks}.", shapes)
    writer = f"{family.writers[0]}.weight"
    if beyond or any(block != blocks[0] for block in blocks) or width not in blocks[0].get(writer, ()):
        return None
    vocabulary = (config["vocab_size"], width)
    embeddings = [name for name, shape in shapes.items() if shape == vocabulary and name != _HEAD]
    tied = config.get("tie_word_embeddings")
    if len(embeddings) != 1 or tied is not (_HEAD not in shapes) or shapes.get(_HEAD, vocabulary) != vocabulary:
        return None
    if any("inv_freq" in name or name.endswith(("attn.bias", "masked_bias")) for name in shapes):  # buffers that old programs stored
        return None
    stored = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return Counts(
        architecture=config["architectures"][0],
        family=family,
        n_blocks=n_blocks,
        width=width,
        n_parameters=sum(map(prod, shapes.values())),
        block_parameters=sum(map(prod, blocks[0].values())),
        widest=max(max(shape[-2:]) for shape in blocks[0].values() if len(shape) > 1),
        dtype=stored if stored in _DTYPES else "float32",
    )


def _within(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
