"""ModelSection -> ModelHandle: from the shipped demo, a local folder or a Hugging Face id; safetensors only.

`preflight` judges from the configuration alone, before a byte of weights is read. Remote code is never run.
"""

import hashlib
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.errors import ModelError
from replaceme_core.handle import widest_side
from replaceme_core.measurement.budget import DEFAULT_BUDGET, plan_keep
from replaceme_core.models import families, linearity, memory, modality, quantised
from replaceme_core.models.precision import exact_device
from replaceme_core.models.sources import checkpoint_folder, explain, explain_tokenizer, locate, unwrapped
from replaceme_core.plans.plan import ModelSection
from replaceme_core.progress import SILENT, Progress

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FINGERPRINT_VALUES = 4096


@dataclass(frozen=True)
class Preflight:
    """What the configuration promises, and whether this machine can hold it."""

    architecture: str
    family: families.Family
    n_blocks: int
    width: int
    n_parameters: int
    block_parameters: int
    """parameters of one block, on average"""
    widest: int
    """the largest side of a weight in the blocks"""
    bytes_by_dtype: dict[str, int]
    weights_bytes: int
    """as the section holds them: in its dtype, or quantised"""
    needed_bytes: int
    available_bytes: int
    fits: bool
    verdict: str

    @property
    def merge(self) -> str:
        return self.family.merge

    @property
    def reason(self) -> str:
        return self.family.reason


def preflight(section: ModelSection, budget_bytes: int = DEFAULT_BUDGET) -> Preflight:
    """Builds the model without memory (meta device) and compares its size, with a pass of that budget, with what is free."""
    device = resolve_device(section.device)
    config, _path, _options = _config(section, weights=False)
    family = families.find(config)
    text = families.counted(config, family)
    try:
        with torch.device("meta"):
            model = modality.of(family).build(config)
    except Exception as error:  # impossible sizes fail anywhere in the constructor
        raise explain(section, error) from error
    blocks, n_parameters = _blocks(model, family), sum(p.numel() for p in model.parameters())
    sizes = {dtype: n_parameters * size for dtype, size in _BYTES.items()}
    keep = plan_keep(text.num_hidden_layers, text.hidden_size, budget_bytes)
    held = quantised.held_bytes(model, section, sizes)
    needed, available = held + keep.n_bytes, available_bytes("spread" if section.device == "spread" else device)
    fits = needed <= available
    verdict = (
        f"needs about {_gib(needed)} in {section.quantisation or section.dtype}, calibration pass included; {_gib(available)} are free"
    )
    if not fits:
        verdict += " - too little: choose bfloat16, a quantisation, a smaller model, or a device with more memory"
    return Preflight(
        architecture=type(model).__name__,
        family=family,
        n_blocks=text.num_hidden_layers,
        width=text.hidden_size,
        n_parameters=n_parameters,
        block_parameters=sum(p.numel() for p in blocks.parameters()) // text.num_hidden_layers,
        widest=widest_side(blocks, text.hidden_size),
        bytes_by_dtype=sizes,
        weights_bytes=held,
        needed_bytes=needed,
        available_bytes=available,
        fits=fits,
        verdict=verdict,
    )


def load(section: ModelSection, progress: Progress = SILENT) -> ModelHandle:
    """Loads model and tokenizer. A family that cannot be pruned still loads: its handle's family says why.

    A model that is quantised or spread over devices comes with the folder of its checkpoint, which is what can be merged into.
    """
    device = resolve_device(section.device)
    config, path, options = _config(section)
    placement = quantised.placement(section, device)
    inputs = modality.of(families.find(config))
    progress.update(0, 3, "steps", "reading the tokenizer")
    try:
        tokenizer = inputs.read_processor(path, options)
    except ModelError:
        raise
    except Exception as error:  # every tokenizer library raises its own kinds
        raise explain_tokenizer(section, error) from error
    progress.update(1, 3, "steps", "reading the weights")
    quantised.require_widths(config, section, device)
    held = section.quantisation or section.dtype
    with memory.told(f"to hold '{section.path}' in {held} on {device}", memory.HOLD_LESS, lambda: _sizes(section)):
        model = _read_weights(section, inputs.model_class(config), path, options | placement)
        progress.update(2, 3, "steps", f"moving the model to {device}")
        model = model.eval().requires_grad_(False)
        model = model if placement else model.to(device)
        if getattr(tokenizer, "pad_token_id", 0) is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
        handle = make_handle(
            _name(section), model, tokenizer, families.find(config), section.revision
        )  # a first pass repacks 4-bit weights
        handle = replace(handle, family=linearity.confirm(model, handle.family))
    progress.update(3, 3, "steps", "model ready")
    return replace(handle, checkpoint=checkpoint_folder(path, options) if placement else None)


def _sizes(section: ModelSection) -> str:
    """What the weights take, for the sentence on memory that ran out. What is free is not named: the failed step gave its part back."""
    found = preflight(section)
    return f"the weights take {memory.size(found.weights_bytes)}, with the calibration pass {memory.size(found.needed_bytes)}"


def _read_weights(section: ModelSection, kind: Any, path: str, options: dict[str, Any]) -> Any:
    """The model with all of its weights; an error of the memory passes as it is."""
    try:
        model, info = kind.from_pretrained(
            path, **options, dtype=getattr(torch, section.dtype), use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds, with no common base
        said = unwrapped(error)
        raise (said if memory.is_short(said) else explain(section, said)) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        names = ", ".join(sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))[:3])
        raise ModelError(f"The weights of '{section.path}' are incomplete (missing: {names}); fetch or save the checkpoint again.")
    return model


def make_handle(name: str, model: Any, tokenizer: Any, family: families.Family, revision: str | None = None) -> ModelHandle:
    """A handle on a model that is in memory already."""
    text = families.counted(model.config, family)
    first = next(model.parameters())
    return ModelHandle(
        name=name,
        _model=model,
        tokenizer=tokenizer,
        family=family,
        n_blocks=text.num_hidden_layers,
        width=text.hidden_size,
        n_parameters=model.num_parameters() if getattr(model, "is_quantized", False) else sum(p.numel() for p in model.parameters()),
        dtype=str(first.dtype).removeprefix("torch."),
        device=str(first.device),
        fingerprint=fingerprint(model),
        revision=revision,
    )


def fingerprint(model: Any) -> str:
    """Names, shapes, dtypes, the sums and a strided sample of the values of every parameter, hashed.

    The fp64 sum and norm see every value, so that a single changed weight changes the fingerprint.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        tensor = quantised.stored(model, name, parameter)
        tensor = tensor if tensor.is_floating_point() else tensor.float()  # the packed codes of a quantised layer
        whole = tensor.to(exact_device(tensor.device))  # a sum in fp64 of numbers that stay as they are
        total, norm = whole.sum(dtype=torch.float64), torch.linalg.vector_norm(whole, dtype=torch.float64)
        digest.update(struct.pack("dd", float(total), float(norm)))
        digest.update(_strided(tensor).tobytes())
    return digest.hexdigest()[:16]


def resolve_device(device: str) -> str:
    """'auto' becomes CUDA, else MPS, else CPU, and so does 'spread' (its first device). Raises `ModelError` for a device that is not there."""
    if device not in ("auto", "spread"):
        try:
            kind = torch.device(device).type
        except RuntimeError:
            raise ModelError(f"The device '{device}' is not known; use auto, spread, cpu, cuda, cuda:0 or mps.") from None
        if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.backends.mps.is_available()):
            raise ModelError(f"This machine has no {kind.upper()} device that torch can use; choose auto or cpu.")
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def available_bytes(device: str) -> int:
    """Free memory of the device, in bytes; of all CUDA devices and the CPU together for 'spread'."""
    if device == "spread":
        return available_bytes("cpu") + sum(available_bytes(f"cuda:{i}") for i in range(torch.cuda.device_count()))
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def _config(section: ModelSection, weights: bool = True) -> tuple[Any, str, dict[str, Any]]:
    """The configuration, and the place and options to read the rest with."""
    from transformers import AutoConfig

    path, options = locate(section, weights)
    try:
        return AutoConfig.from_pretrained(path, **options), path, options
    except Exception as error:  # transformers raises many kinds, with no common base
        raise explain(section, error) from error


def _blocks(model: Any, family: families.Family) -> torch.nn.Module:
    path = families.placed(model, family).blocks if family.tower else linearity.find_blocks(model)
    return model.get_submodule(path) if path else torch.nn.Module()


def _name(section: ModelSection) -> str:
    name = "demo model" if section.path == "demo" else Path(section.path).name or section.path
    return f"{name} in {section.quantisation}" if section.quantisation else name


def _strided(tensor: Tensor) -> Any:
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // _FINGERPRINT_VALUES)
    return flat[::step].float().cpu().numpy()


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
