"""Models held in less memory for the calibration pass: 4-bit NF4, 8-bit, or spread over devices. Nothing is merged into them.

Their weights in memory are not those of the checkpoint (rounded by bitsandbytes, or offloaded), so a transform that was
measured on them is merged into the checkpoint itself (`checkpoint.py`).
"""

from typing import Any

import torch
from torch import Tensor, nn

from replaceme_core import extras
from replaceme_core.errors import ModelError
from replaceme_core.plans.plan import ModelSection

_BYTES_PER_VALUE = {"nf4": 0.52, "int8": 1.0}
"""with the scales of the groups of 64 (quantised once more) in nf4, and of the rows in int8"""
_OUT, _IN = 32, 64
"""what the widths of a 4-bit layer must be multiples of where the CPU repacks it"""


def placement(section: ModelSection, device: str) -> dict[str, Any]:
    """The options of `from_pretrained` that quantise and place; empty for a plain model on one device."""
    options: dict[str, Any] = {}
    if section.device == "spread":
        options["device_map"] = "auto"
    elif section.quantisation:
        options["device_map"] = {"": device}
    if section.quantisation:
        extras.require("quantised")
        options["quantization_config"] = _bits_and_bytes(section.quantisation)
    return options


def require_whole_file(section: ModelSection) -> None:
    """A `ModelError` for a GGUF file that is to be held quantised or spread: the merge into it on disk is not possible."""
    if section.quantisation or section.device == "spread":
        asked = f"in {section.quantisation}" if section.quantisation else "spread over devices"
        raise ModelError(
            f"'{section.path}' cannot be held {asked}: a GGUF file is dequantised whole, and nothing is merged into it on disk. Hold it as it is "
            "(bfloat16 needs half of float32), or choose the model's safetensors checkpoint."
        )


def require_widths(config: Any, section: ModelSection, device: str) -> None:
    """A `ModelError` for a model whose 4-bit layers the CPU cannot compute, before a byte of weights is read."""
    if section.quantisation != "nf4" or device != "cpu":
        return
    model = on_meta(config)
    for name, layer in _linears(model):
        if layer.out_features % _OUT or layer.in_features % _IN:
            raise ModelError(
                f"'{section.path}' cannot run in 4 bits on a CPU: its layer {name} is {layer.in_features} wide at its input and "
                f"{layer.out_features} at its output, which must be multiples of {_IN} and {_OUT}. Choose int8, or no quantisation."
            )


def held_bytes(model: Any, section: ModelSection, bytes_by_dtype: dict[str, int]) -> int:
    """Bytes of the weights of a meta model as the section holds them."""
    if section.quantisation is None:
        return bytes_by_dtype[section.dtype]
    values = sum(layer.weight.numel() for _name, layer in _linears(model))
    size = bytes_by_dtype[section.dtype] / max(1, sum(p.numel() for p in model.parameters()))
    return int(bytes_by_dtype[section.dtype] - values * (size - _BYTES_PER_VALUE[section.quantisation]))


def on_meta(config: Any) -> Any:
    """The model of a configuration, without memory."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval().requires_grad_(False)


def is_whole(model: Any) -> bool:
    """Whether the tensors in memory are the weights of the model: neither quantised nor offloaded."""
    return not getattr(model, "is_quantized", False) and not any(p.is_meta for p in model.parameters())


def require_whole(model: Any, name: str) -> None:
    """A `ModelError` for a model that nothing can be merged into, with the way to its checkpoint."""
    if not is_whole(model):
        raise ModelError(
            f"'{name}' is held quantised or offloaded for the calibration pass, so nothing is merged into it in memory. Merge the transform "
            "into its checkpoint (`export.export_merged`, or the commands fit and run), or load the model unquantised."
        )


def stored(model: Any, name: str, tensor: Tensor) -> Tensor:
    """A parameter's values: those in memory, or those that accelerate keeps elsewhere for a parameter that it offloaded."""
    if not tensor.is_meta:
        return tensor.detach()
    parent, _, leaf = name.rpartition(".")
    hook = getattr(model.get_submodule(parent), "_hf_hook", None)
    values = getattr(hook, "weights_map", None)
    return tensor if values is None else values[leaf]


def _bits_and_bytes(kind: str) -> Any:
    """bitsandbytes leaves the output head, and what is tied to it, in the dtype of the model."""
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )


def _linears(model: Any) -> list[tuple[str, Any]]:
    """The linear layers that bitsandbytes replaces: all but the output head."""
    head = model.get_output_embeddings()
    return [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear and module is not head]
