"""Checkpoints whose weights were saved quantised: turned back into plain weights where transformers can, else refused before anything is read.

What rounding lost stays lost, and that is said. A transform merges into plain weights only, so none is held quantised a second time.
"""

from pathlib import Path
from typing import Any

from replaceme_core.errors import ModelError
from replaceme_core.plans.plan import ModelSection
from replaceme_core.storage import tensor_files

_BITS = "bitsandbytes"
_PACKED = (".absmax", ".quant_state.", ".SCB", ".quant_map", ".nested_")
"""parts of the names that bitsandbytes gives to what it keeps beside a packed weight"""
_CONFIGS = {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}
"""methods that transformers dequantises while it loads -> its class with that switch"""


def method_of(config: Any) -> str | None:
    """The method by its name in transformers; None for plain weights."""
    for each in (config, config.get_text_config(decoder=True)):
        found = getattr(each, "quantization_config", None)
        if found is not None:
            name = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
            return str(getattr(name, "value", name) or _BITS)
    return None


def require_plain(section: ModelSection, config: Any) -> None:
    """A `ModelError` before a byte of weights is read, for what cannot be turned back, or is asked for quantised once more."""
    method = method_of(config)
    if method is None:
        return
    if method not in (_BITS, *_CONFIGS):
        raise ModelError(
            f"'{section.path}' was saved quantised ({method}), and its weights are not turned back into plain ones here, so that nothing could be merged "
            "into them. Choose the unquantised checkpoint that it was made of, and hold that in 4 or 8 bits (quantisation: nf4 or int8)."
        )
    if section.quantisation or section.device == "spread":
        asked = f"in {section.quantisation}" if section.quantisation else "spread over devices"
        raise ModelError(
            f"'{section.path}' was saved quantised ({method}) and is turned back into plain weights whole, so it cannot be held {asked}. Leave that out, "
            "or choose the unquantised checkpoint."
        )


def read_options(config: Any, folder: Path) -> tuple[dict[str, Any], str]:
    """Options of `from_pretrained` that give plain weights or prepare them, and what to say of the checkpoint."""
    import transformers

    method = method_of(config)
    if method is None:
        return {}, ""
    if method in _CONFIGS:
        said = f"a checkpoint that was saved quantised ({method}), dequantised; what that rounding lost stays lost"
        return {"quantization_config": getattr(transformers, _CONFIGS[method])(dequantize=True)}, said
    if not any(part in name for name in tensor_files.entries(folder) for part in _PACKED):
        del config.quantization_config
        return {
            "config": config
        }, f"a checkpoint whose configuration speaks of {method} and whose weights are not quantised; read as they are"
    return {}, f"a checkpoint that was saved quantised ({method}), dequantised; what that rounding lost stays lost"


def plain(section: ModelSection, model: Any) -> Any:
    """The model with plain weights in the section's dtype, before its first pass (which repacks 4-bit weights)."""
    import torch

    dtype = getattr(torch, section.dtype)
    if getattr(model, "is_quantized", False):
        model = model.dequantize(dtype=dtype)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for parameter in model.parameters():  # buffers, such as the tables of positions, keep theirs
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model
