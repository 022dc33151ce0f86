"""Where a model is: the shipped demo, a local folder, or a Hugging Face id; and what to say when it is not there.

Only safetensors are read, and no code of a checkpoint is ever run.
"""

import os
import socket
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from replaceme_core.calibration import DEMO
from replaceme_core.errors import ModelError
from replaceme_core.plan import ModelSection

_HUB_TIMEOUT = 3.0
"""seconds the hub has to answer before only cached models are considered"""

_LONGEST = 300
"""characters of a library's message that are passed on"""


def locate(section: ModelSection, weights: bool = True) -> tuple[str, dict[str, Any]]:
    """What transformers is asked for, and with which options. Raises `ModelError` for what cannot be there.

    Without `weights` a folder with a configuration is enough.
    """
    options: dict[str, Any] = {"trust_remote_code": False}
    if section.path == "demo":
        return str(DEMO / "model"), options
    folder = Path(section.path).expanduser()
    if folder.is_dir():
        _require_checkpoint(folder, weights)
        return str(folder), options
    if folder.is_absolute() or section.path.startswith((".", "~")) or section.path.count("/") > 1:
        raise ModelError(f"The folder '{section.path}' does not exist; check the path.")
    options |= {"revision": section.revision, "token": os.environ.get("HF_TOKEN")}
    if not _hub_answers():
        if not _is_cached(section):
            raise ModelError(
                f"{_where(section)} was not found: there is no such local folder, it is not in the cache, and the hub does not answer. "
                "Check the spelling and the network; the demo model works offline."
            )
        options["local_files_only"] = True
    return section.path, options


def explain(section: ModelSection, error: Exception) -> ModelError:
    """One sentence with the way out for what transformers raised."""
    from safetensors import SafetensorError

    if isinstance(error, ModelError):
        return error
    text = " ".join(str(error).split())
    low = text.lower()
    where = _where(section)
    if isinstance(error, SafetensorError):
        return ModelError(f"The weights of {where} are damaged or cut off ({text}); copy or fetch the checkpoint again.")
    if "unrecognized configuration class" in low:
        return ModelError(f"{where} is not a causal language model; choose a decoder model (see `python -m replaceme_core families`).")
    if "gated" in low or "401" in low:
        return ModelError(f"{where} is gated or private: accept its terms on the hub and set the environment variable HF_TOKEN.")
    if "trust_remote_code" in low or "custom code" in low:
        return ModelError(
            f"{where} needs code of its own (trust_remote_code), which is never run here; choose a model that transformers knows."
        )
    if "safetensors" in low and "connect" not in low:
        return ModelError(
            f"{where} has no safetensors weights; pickled weights can run code and are not read. Choose a converted checkpoint."
        )
    if "not a valid model identifier" in low or "404" in low:
        return ModelError(f"{where} was not found on the hub, and there is no such local folder; check the spelling.")
    return ModelError(f"{where} cannot be loaded ({type(error).__name__}): {text[:_LONGEST]}")


def unwrapped(error: Exception) -> Exception:
    """The first error of those that transformers collects while it fuses tensors, before it raises one that names none; else itself."""
    for frame, _line in traceback.walk_tb(error.__traceback__):
        errors = getattr(frame.f_locals.get("loading_info"), "conversion_errors", None)
        if errors:
            return RuntimeError(" ".join(next(iter(errors.values())).strip().splitlines()[-2:]))
    return error


def checkpoint_folder(path: str, options: dict[str, Any]) -> Path:
    """The folder with the weights of what `locate` found, after it was loaded: itself, or the snapshot in the cache."""
    from transformers.utils import cached_file

    if Path(path).is_dir():
        return Path(path)
    kept = {key: options[key] for key in ("revision", "token", "local_files_only") if key in options}
    return Path(str(cached_file(path, "config.json", **kept))).parent


def _require_checkpoint(folder: Path, weights: bool) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"The folder '{folder}' has no config.json; choose the folder that save_pretrained wrote.")
    if not weights or any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ModelError(
            f"'{folder}' holds only pickled weights (.bin), which can run code when they are read; "
            "convert them once with save_pretrained(..., safe_serialization=True) and load the result."
        )
    raise ModelError(f"The folder '{folder}' has a config.json but no .safetensors weights; copy the weights beside it.")


def _hub_answers() -> bool:
    """Whether the hub can be reached at all, within seconds; behind a proxy the question is left to the client."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    address = urlparse(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=_HUB_TIMEOUT):
            return True
    except OSError:
        return False


def _is_cached(section: ModelSection) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(section.path, "config.json", revision=section.revision), str)
    except HFValidationError as error:
        raise ModelError(f"'{section.path}' is neither a folder nor a valid Hugging Face id (owner/name); check the spelling.") from error


def _where(section: ModelSection) -> str:
    return f"'{section.path}'" + (f" at revision '{section.revision}'" if section.revision else "")
