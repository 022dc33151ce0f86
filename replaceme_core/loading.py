"""ModelSection -> ModelHandle: from the shipped demo, a local folder or a Hugging Face id; safetensors only.

`preflight` judges from the configuration alone, before a byte of weights is read. Remote code is never run.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core import families
from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration import DEMO
from replaceme_core.errors import ModelError
from replaceme_core.plan import ModelSection
from replaceme_core.progress import SILENT, Progress

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FINGERPRINT_VALUES = 4096
_OVERHEAD = 1.2
"""memory of the calibration pass over that of the weights, roughly"""


@dataclass(frozen=True)
class Preflight:
    """What the configuration promises, and whether this machine can hold it."""

    architecture: str
    family: families.Family
    n_blocks: int
    width: int
    n_parameters: int
    bytes_by_dtype: dict[str, int]
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


def preflight(section: ModelSection) -> Preflight:
    """Builds the model without memory (meta device) and compares its size with what is free."""
    from transformers import AutoModelForCausalLM

    config = _config(section)
    text = config.get_text_config(decoder=True)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"'{section.path}' ({config.model_type}) is not a causal language model that transformers can build: {_first_line(error)}"
        ) from error
    n_parameters = sum(p.numel() for p in model.parameters())
    sizes = {dtype: n_parameters * size for dtype, size in _BYTES.items()}
    needed, available = int(sizes[section.dtype] * _OVERHEAD), available_bytes(resolve_device(section.device))
    fits = needed <= available
    verdict = f"needs about {_gib(needed)} in {section.dtype}; {_gib(available)} are free"
    if not fits:
        verdict += " - too little: choose bfloat16, a smaller model, or a device with more memory"
    return Preflight(
        architecture=type(model).__name__,
        family=families.find(config),
        n_blocks=text.num_hidden_layers,
        width=text.hidden_size,
        n_parameters=n_parameters,
        bytes_by_dtype=sizes,
        needed_bytes=needed,
        available_bytes=available,
        fits=fits,
        verdict=verdict,
    )


def load(section: ModelSection, progress: Progress = SILENT) -> ModelHandle:
    """Loads model and tokenizer. A family that cannot be pruned still loads: its handle's family says why."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = location(section)
    config = _config(section)
    device = resolve_device(section.device)
    progress.update(0, 3, "steps", "reading the tokenizer")
    options: dict[str, Any] = {"revision": section.revision, "trust_remote_code": False, "token": os.environ.get("HF_TOKEN")}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        progress.update(1, 3, "steps", "reading the weights")
        model, info = AutoModelForCausalLM.from_pretrained(
            path, **options, dtype=getattr(torch, section.dtype), use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError) as error:
        raise _explain(section, error) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        names = ", ".join(sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))[:3])
        raise ModelError(f"The weights of '{section.path}' are incomplete (missing: {names}); fetch or save the checkpoint again.")
    progress.update(2, 3, "steps", f"moving the model to {device}")
    try:
        model = model.to(device).eval().requires_grad_(False)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"'{section.path}' does not fit on {device} in {section.dtype}; choose bfloat16 or the CPU.") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    progress.update(3, 3, "steps", "model ready")
    return make_handle(_name(section), model, tokenizer, families.find(config), section.revision)


def make_handle(name: str, model: Any, tokenizer: Any, family: families.Family, revision: str | None = None) -> ModelHandle:
    """A handle on a model that is in memory already."""
    text = model.config.get_text_config(decoder=True)
    first = next(model.parameters())
    return ModelHandle(
        name=name,
        _model=model,
        tokenizer=tokenizer,
        family=family,
        n_blocks=text.num_hidden_layers,
        width=text.hidden_size,
        n_parameters=sum(p.numel() for p in model.parameters()),
        dtype=str(first.dtype).removeprefix("torch."),
        device=str(first.device),
        fingerprint=fingerprint(model),
        revision=revision,
    )


def fingerprint(model: Any) -> str:
    """Names, shapes, dtypes and a strided sample of the values of every parameter, hashed."""
    digest = hashlib.sha256()
    for name, tensor in model.named_parameters():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_strided(tensor).tobytes())
    return digest.hexdigest()[:16]


def location(section: ModelSection) -> str:
    """What transformers is asked for: the demo's folder, an existing folder, or a hub id."""
    if section.path == "demo":
        return str(DEMO / "model")
    folder = Path(section.path).expanduser()
    if folder.is_dir():
        _require_checkpoint(folder)
        return str(folder)
    if folder.is_absolute() or section.path.startswith((".", "~")) or section.path.count("/") > 1:
        raise ModelError(f"The folder '{section.path}' does not exist; check the path.")
    return section.path


def resolve_device(device: str) -> str:
    """'auto' becomes CUDA, else MPS, else CPU."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def available_bytes(device: str) -> int:
    """Free memory of the device, in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def _config(section: ModelSection) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            location(section), revision=section.revision, trust_remote_code=False, token=os.environ.get("HF_TOKEN")
        )
    except (OSError, ValueError, KeyError) as error:
        raise _explain(section, error) from error


def _require_checkpoint(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"The folder '{folder}' has no config.json; choose the folder that save_pretrained wrote.")
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ModelError(
            f"'{folder}' holds only pickled weights (.bin), which can run code when they are read; "
            "convert them once with save_pretrained(..., safe_serialization=True) and load the result."
        )
    raise ModelError(f"The folder '{folder}' has a config.json but no .safetensors weights; copy the weights beside it.")


def _explain(section: ModelSection, error: Exception) -> ModelError:
    """One sentence with the way out for what transformers raised."""
    text = str(error)
    where = f"'{section.path}'" + (f" at revision '{section.revision}'" if section.revision else "")
    if "gated" in text or "401" in text:
        return ModelError(f"{where} is gated or private: accept its terms on the hub and set the environment variable HF_TOKEN.")
    if "trust_remote_code" in text or "custom code" in text:
        return ModelError(
            f"{where} needs code of its own (trust_remote_code), which is never run here; choose a model that transformers knows."
        )
    if "safetensors" in text and Path(section.path).is_dir() is False and "connect" not in text.lower():
        return ModelError(
            f"{where} has no safetensors weights; pickled weights can run code and are not read. Choose a converted checkpoint."
        )
    if "connect" in text.lower() or "offline" in text.lower() or "resolve" in text.lower() or "couldn't" in text.lower():
        return ModelError(
            f"{where} was not found: there is no such local folder, and the hub did not answer. Check the spelling and the network; the demo model works offline."
        )
    return ModelError(f"{where} cannot be loaded: {_first_line(error)}")


def _name(section: ModelSection) -> str:
    return "demo model" if section.path == "demo" else Path(section.path).name or section.path


def _strided(tensor: Tensor) -> Any:
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // _FINGERPRINT_VALUES)
    return flat[::step].float().cpu().numpy()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
