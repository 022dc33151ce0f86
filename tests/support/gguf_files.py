"""GGUF files of tiny models, written with the `gguf` package the way llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def write_gguf(
    folder: Path,
    path: Path,
    kind: str = "F16",
    split: int = 0,
    entries: dict[str, str | int | float] | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """The llama in `folder` as a GGUF file: matrices in `kind`, the rest in F32; `split`: tensors of one file. Returns the (first) file."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    for key, value in (entries or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    _add_vocabulary(writer, folder, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = value.numpy()
        if "q_proj" in name or "k_proj" in name:
            data = _interleaved(data, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        stem, _, ending = name.rpartition(".")
        _add(writer, f"{names.get_name(stem)}.{ending}", data, kind if data.ndim > 1 else "F32")
    for name, data in (extra or {}).items():
        _add(writer, name, data, "F32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))[0] if split else path


def _add(writer: gguf.GGUFWriter, name: str, data: np.ndarray, kind: str) -> None:
    chosen = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(data), chosen), raw_dtype=chosen)


def _interleaved(data: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in llama.cpp's order: the two halves of a head's rotary pairs side by side."""
    return data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def _add_vocabulary(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    import json

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = [""] * size
    for token, index in model["vocab"].items():
        tokens[index] = token
    tokens = [token or f"<unused{index}>" for index, token in enumerate(tokens)]
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if index in special else gguf.TokenType.NORMAL for index in range(size)])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
