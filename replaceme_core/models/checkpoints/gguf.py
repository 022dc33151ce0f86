"""A model out of a GGUF file, as a plain model of transformers: configuration, tokenizer with chat template, dequantised weights.

Each step is transformers' own - its reading of the configuration, its dequantisation, its names and its reordering of the weights - put
together here because its `from_pretrained(gguf_file=...)` reads the header of a 135M model five times (30 s), cannot read split files, drops
what it does not know without a word, and gives a model that refuses to be saved. Tests hold both side by side.
"""

import math
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.errors import ModelError
from replaceme_core.storage.gguf_file import GgufFile, GgufTensor

_ROPE_FREQUENCIES = "rope_freqs.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""with a factor, what Llama 3.1 and later divide their rotary frequencies by; the file has only the result"""
_CLOSE = 1e-4


def require_readable(file: GgufFile) -> None:
    """A `ModelError` for an architecture or a type of weights that cannot be read, from the header alone."""
    from transformers.integrations.gguf.utils import is_gguf_arch_supported
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = {name.replace("_", "") for name in GGUF_SUPPORTED_ARCHITECTURES}
    if not is_gguf_arch_supported(file.architecture) and file.architecture.replace("_", "").replace("-", "") not in known:
        raise ModelError(
            f"'{file.first.name}' holds the architecture '{file.architecture}', which transformers cannot read out of GGUF; "
            f"it reads {', '.join(sorted(GGUF_SUPPORTED_ARCHITECTURES))}. Choose the model's safetensors checkpoint."
        )
    for kind in file.kinds:
        if not _can_dequantise(kind):
            raise ModelError(
                f"'{file.first.name}' stores weights as {kind}, which cannot be dequantised here; choose a file in a common type "
                "(Q4_K_M, Q8_0, F16) or the model's safetensors checkpoint."
            )


def read_config(file: GgufFile) -> Any:
    """The transformers configuration. Raises `ModelError` for positions that transformers would read wrongly."""
    from transformers import AutoConfig
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

    require_readable(file)
    if file.architecture in GGUF_CONFIG_ARCHS:
        config = AutoConfig.from_pretrained(file.first.parent, gguf_file=file.first.name, trust_remote_code=False)
    else:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "short.gguf").write_bytes(file.short)
            config = AutoConfig.from_pretrained(folder, gguf_file="short.gguf", trust_remote_code=False)
    _forget_name(config)
    config.dtype = getattr(torch, file.dtype)
    if "token_embd.weight" in file.tensors:
        config.vocab_size = file.tensors["token_embd.weight"].shape[0]
    for name, tensors in (("attention_bias", ("attn_q.bias", "attn_output.bias")), ("mlp_bias", ("ffn_down.bias",))):
        if hasattr(config, name) and all(f"blk.0.{tensor}" in file.tensors for tensor in tensors):
            setattr(config, name, True)
    _set_positions(file, config)
    return config


def read_tokenizer(file: GgufFile) -> Any:
    """The tokenizer with its special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(file.first.parent, gguf_file=file.first.name, trust_remote_code=False)


def read_model(file: GgufFile, config: Any, dtype: str, report: Callable[[int, int], None]) -> tuple[Any, dict[str, Any]]:
    """A plain model of transformers and its report on loading; `report` is told how many of how many tensors are read.

    Raises `ModelError` for a tensor that would be left out.
    """
    from transformers import AutoModelForCausalLM
    from transformers.integrations.gguf.utils import is_gguf_arch_supported

    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if is_gguf_arch_supported(file.architecture):
        tensors = _through_transformers(file, type(skeleton), dtype)
    else:
        tensors = _read_tensors(file, skeleton, getattr(torch, dtype), report)
    model, info = type(skeleton).from_pretrained(
        None, config=config, state_dict=tensors, dtype=getattr(torch, dtype), trust_remote_code=False, output_loading_info=True
    )
    _forget_name(model.config)
    return model, info


def _forget_name(config: Any) -> None:
    """The file's own title stands where transformers keeps the place a model was read from; an export would repeat it."""
    config.__dict__.pop("_model_name_or_path", None)
    config.name_or_path = ""


def _read_tensors(file: GgufFile, skeleton: Any, dtype: torch.dtype, report: Callable[[int, int], None]) -> dict[str, Tensor]:
    """The weights by the model's names, in its order of rows and columns."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    settings = skeleton.config.to_dict()
    processor = TENSOR_PROCESSORS.get(file.architecture, TensorProcessor)(config=settings)
    names = _names(skeleton, processor)
    found: dict[str, Tensor] = {}
    left = []
    for number, tensor in enumerate(file.tensors.values(), start=1):
        before = len(found)
        made = processor.process(
            weights=values(tensor).numpy(),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters={"config": settings, "tensors": found},
        )
        if made.name in names:
            found[names[made.name]] = torch.from_numpy(made.weights).to(dtype).contiguous()
        elif made.name is not None and len(found) == before and tensor.name != _ROPE_FREQUENCIES:
            left.append(tensor.name)
        report(number, len(file.tensors))
    if left:
        raise ModelError(
            f"'{file.first.name}' holds {len(left)} tensors that transformers' {type(skeleton).__name__} has no place for ({left[0]}), so the "
            "model would not be the one in the file. Choose the model's safetensors checkpoint."
        )
    return found


def _names(skeleton: Any, processor: Any) -> dict[str, str]:
    """GGUF's names of tensors -> the model's, as transformers pairs them.

    It asks the `gguf` package for the same table of names once for every module of the model, 65 ms each; the table is made once here.
    """
    import gguf
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    made = gguf.get_tensor_name_map
    try:
        gguf.get_tensor_name_map = cache(made)
        names: dict[str, str] = get_gguf_hf_weights_map(skeleton, processor)
    finally:
        gguf.get_tensor_name_map = made
    return names


def _through_transformers(file: GgufFile, kind: Any, dtype: str) -> dict[str, Tensor]:
    """The architectures that transformers reads by its newer route: one file, all of it by transformers."""
    from transformers import GgufConfig

    if len(file.files) > 1:
        raise ModelError(
            f"'{file.first.name}' is one of {len(file.files)} files, and '{file.architecture}' is read from a single one; "
            "join them (llama-gguf-split --merge)."
        )
    model = kind.from_pretrained(
        file.first.parent,
        gguf_file=file.first.name,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    tensors: dict[str, Tensor] = model.state_dict()
    return tensors


def values(tensor: GgufTensor) -> Tensor:
    """Dequantised, in float32: by transformers' torch code, and for the types that it lacks by the `gguf` package; both give the same bits."""
    from gguf import GGMLQuantizationType, dequantize
    from transformers.integrations.gguf.dequant import GGML_BLOCK
    from transformers.integrations.gguf.dequant import dequantize as in_torch

    kind = GGMLQuantizationType[tensor.kind]
    raw = tensor.raw()
    if kind.value in GGML_BLOCK:
        whole: Tensor = in_torch(torch.from_numpy(raw.copy()), kind.value)
        return whole.reshape(tensor.shape)
    if tensor.kind == "F64":
        return torch.from_numpy(raw.copy()).view(torch.float64).float().reshape(tensor.shape)
    found = dequantize(raw.reshape(*tensor.shape[:-1], -1), kind)
    return torch.from_numpy(found.copy()).reshape(tensor.shape)


def _can_dequantise(kind: str) -> bool:
    """Tried on one block of zeros."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    if kind == "F64":
        return True
    number = GGMLQuantizationType[kind]
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[number][1]), np.uint8), number)
    except NotImplementedError:
        return False
    return True


def _set_positions(file: GgufFile, config: Any) -> None:
    """Scaled rotary positions, which transformers does not read out of a file of the llama kind: a model would be silently wrong without."""
    key = f"{file.architecture}.rope.scaling"
    kind = file.entries.get(f"{key}.type", "none")
    if _ROPE_FREQUENCIES in file.tensors:
        divided = values(file.tensors[_ROPE_FREQUENCIES]).double()
        config.rope_parameters = _divided(divided, config)
    elif kind in ("linear", "yarn"):
        scaled = {"rope_type": kind, "factor": float(file.entries.get(f"{key}.factor", 1.0))}
        original = file.entries.get(f"{key}.original_context_length")
        config.rope_parameters = {
            **config.rope_parameters,
            **scaled,
            **({"original_max_position_embeddings": original} if original else {}),
        }
    elif kind != "none" and config.rope_parameters.get("rope_type", "default") == "default":
        raise ModelError(
            f"'{file.first.name}' scales its positions by '{kind}', which is not read out of GGUF; choose the model's safetensors checkpoint."
        )


def _divided(divisors: Tensor, config: Any) -> dict[str, Any]:
    """The rotary parameters for frequencies that are divided by these numbers: Llama 3's rule where it gives them, else the numbers."""
    theta = config.rope_parameters["rope_theta"]
    factor = float(divisors.max())
    if torch.allclose(divisors, _llama3(len(divisors), theta, factor), rtol=_CLOSE, atol=0):
        return {"rope_type": "llama3", "rope_theta": theta, "factor": factor, **_LLAMA3}
    numbers = divisors.tolist()
    return {
        "rope_type": "longrope", "rope_theta": theta, "short_factor": numbers, "long_factor": numbers, "attention_factor": 1.0,
        "original_max_position_embeddings": config.max_position_embeddings,
    }  # fmt: skip


def _llama3(n: int, theta: float, factor: float) -> Tensor:
    """What the `n` rotary frequencies of Llama 3.1 are divided by: nothing for the fast ones, `factor` for the slow, a mixture between."""
    lengths = 2 * math.pi * theta ** (torch.arange(n, dtype=torch.float64) / n)
    original, low, high = _LLAMA3["original_max_position_embeddings"], _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    smooth = ((original / lengths - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)
