"""Where a model is: the shipped demo, a local folder, a GGUF file, or a Hugging Face id; and what to say when it is not there.

Only safetensors and GGUF are read, and no code of a checkpoint is ever run.
"""

import json
import os
import re
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from replaceme_core.errors import ModelError, quoted
from replaceme_core.models.checkpoints import smollm2
from replaceme_core.models.checkpoints.checkpoint_files import arranged
from replaceme_core.plans.plan import ModelSection
from replaceme_core.storage import gguf_file
from replaceme_core.storage.shipped import DEMO
from replaceme_core.storage.tensor_files import INDEX

_POINTER = b"version https://git-lfs"
_HUB_TIMEOUT = 3.0
"""seconds the hub has to answer before only cached models are considered"""

_OWN_CODE = "needs code of its own (trust_remote_code), which is never run here; choose a model that transformers knows"
_HUB = {
    "GatedRepoError": "is gated: accept its terms on its page of the hub, and set the environment variable HF_TOKEN",
    "RevisionNotFoundError": "was not found: the hub has the model, but not this revision; choose a branch, a tag or a commit of it",
    "RepositoryNotFoundError": "was not found on the hub, and there is no such local folder; check the spelling, "
    "and set the environment variable HF_TOKEN if it is private",
}
"""what the hub's client raised -> what is said of the model"""


def gguf_of(section: ModelSection) -> Path | None:
    """The GGUF file that a section means: by its name, as the only one of a folder without another checkpoint, or as `smollm2`."""
    if section.path == smollm2.NAME:
        return smollm2.packaged()
    path = Path(section.path).expanduser()
    if path.is_dir():
        return None if _holds_checkpoint(path) else gguf_file.in_folder(path)
    if not gguf_file.is_gguf(path):
        return None
    if not path.is_file():
        raise ModelError(
            f"The file '{section.path}' does not exist; check the path. A GGUF file on the hub is downloaded first (hf download OWNER/NAME FILE)."
        )
    return path


def locate(section: ModelSection, weights: bool = True) -> tuple[str, dict[str, Any]]:
    """What transformers is asked for, and with which options. Raises `ModelError` for what cannot be there.

    Without `weights` a folder with a configuration is enough.
    """
    options: dict[str, Any] = {"trust_remote_code": False}
    if section.path == "demo":
        if not (DEMO / "model").is_dir():
            raise ModelError(f"The demo model is not beside the library ('{DEMO}'); install the wheel, or clone the repository.")
        return str(DEMO / "model"), options
    if section.path == smollm2.NAME:
        section = section.model_copy(update={"path": smollm2.HUB})
    folder = Path(section.path).expanduser()
    if folder.is_dir():
        _require_checkpoint(folder, weights)
        return str(folder), options
    if folder.is_absolute() or section.path.startswith((".", "~")) or section.path.count("/") > 1:
        raise ModelError(f"The folder '{section.path}' does not exist; check the path.")
    options |= {"revision": section.revision, "token": os.environ.get("HF_TOKEN")}
    if not _hub_answers():
        if not _is_cached(section):
            offline = "the demo model works offline"
            if section.path == smollm2.HUB:
                offline = f"`{smollm2.INSTALL}` brings this model once (92 MB), and it works offline from then on"
            raise ModelError(
                f"{_where(section)} was not found: there is no such local folder, it is not in the cache, and the hub does not answer. "
                f"Check the spelling and the network; {offline}."
            )
        options["local_files_only"] = True
    return section.path, options


def explain(section: ModelSection, error: Exception) -> ModelError:
    """One sentence with the way out for what transformers raised."""
    from transformers import __version__

    if isinstance(error, ModelError):
        return error
    text = quoted(error, sys.maxsize)
    low = text.lower()
    where = _where(section)
    kinds = {type(each).__name__ for each in _chain(error)}
    for kind, sentence in _HUB.items():
        if kind in kinds:
            return ModelError(f"{where} {sentence}.")
    if "SafetensorError" in kinds:
        return ModelError(f"The weights of {where} are damaged or cut off ({text}); copy or fetch the checkpoint again.")
    if "unrecognized configuration class" in low:
        return ModelError(f"{where} is not a causal language model; choose a decoder model (see `python -m replaceme_core families`).")
    if needs_code(error):
        return ModelError(f"{where} {_OWN_CODE}.")
    unknown = re.search(r"has model type `(.+?)` but transformers does not recognize", text, re.IGNORECASE)
    if unknown:
        return ModelError(
            f"{where} has the architecture '{unknown[1]}', which the installed transformers ({__version__}) does not know; "
            "choose another model, or install a transformers that knows it."
        )
    if "unrecognized model in" in low:
        return ModelError(f"The config.json of {where} names no architecture (model_type); fetch it again, or choose another model.")
    if "not a valid json file" in low:
        return ModelError(f"The config.json of {where} is damaged: it is not JSON. Fetch it again.")
    if "ImportError" in kinds:
        way = "Install it, or choose another model."
        if "quanti" in low:
            way = (
                "A checkpoint that was saved quantised is not needed here: choose the unquantised one, and hold it in 4 or 8 bits "
                "(quantisation: nf4 or int8)."
            )
        return ModelError(f"{where} needs a package that is not installed ({quoted(error)}). {way}")
    if "safetensors" in low and "connect" not in low:
        return ModelError(
            f"{where} has no safetensors weights; pickled weights can run code and are not read. Choose a converted checkpoint."
        )
    if "not a valid model identifier" in low:
        return ModelError(f"{where} {_HUB['RepositoryNotFoundError']}.")
    return ModelError(f"{where} cannot be loaded ({type(error).__name__}): {quoted(error)}")


def needs_code(error: Exception) -> bool:
    """Whether transformers asked for leave to run a checkpoint's own code."""
    return any(sign in str(error).lower() for sign in ("trust_remote_code", "custom code"))


def explain_tokenizer(section: ModelSection, error: Exception) -> ModelError:
    """The same for its tokenizer."""
    if needs_code(error):
        return ModelError(f"The tokenizer of {_where(section)} {_OWN_CODE}.")
    return ModelError(
        f"'{section.path}' has no tokenizer that can be read; put tokenizer.json and tokenizer_config.json beside the weights."
    )


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


def require_cached(section: ModelSection, path: str, options: dict[str, Any]) -> Path:
    """The snapshot in the cache, with all of its weights. Raises `ModelError` where an earlier download was not finished."""
    folder = checkpoint_folder(path, options)
    try:
        _require_checkpoint(folder, weights=True)
    except ModelError as error:
        raise ModelError(
            f"{_where(section)} is in the cache only in part, and the hub does not answer: {str(error).rstrip('.')}. Connect once and load it again."
        ) from error
    return folder


def _holds_checkpoint(folder: Path) -> bool:
    """Whether a folder is one that save_pretrained wrote, whatever else lies in it."""
    return (folder / "config.json").is_file() and (any(folder.glob("*.safetensors")) or not any(map(gguf_file.is_gguf, folder.iterdir())))


def _require_checkpoint(folder: Path, weights: bool) -> None:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(f"The folder '{folder}' holds an adapter, not a model; merge it into its base model (peft), and save that.")
        raise ModelError(f"The folder '{folder}' has no config.json; choose the folder that save_pretrained wrote.")
    if not weights:
        return
    _require_shards(folder)
    if any(folder.glob("*.safetensors")):
        arranged(folder)
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ModelError(
            f"'{folder}' holds only pickled weights (.bin), which can run code when they are read; "
            "convert them once with save_pretrained(..., safe_serialization=True) and load the result."
        )
    raise ModelError(f"The folder '{folder}' has a config.json but no .safetensors weights; copy the weights beside it.")


def _require_shards(folder: Path) -> None:
    """A `ModelError` if the index names a file that is not there, or a file is a pointer that Git LFS has not filled."""
    try:
        named = (
            set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()) if (folder / INDEX).is_file() else set()
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"The index of the weights in '{folder}' is damaged ({INDEX}); fetch it again.") from error
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise ModelError(f"The folder '{folder}' lacks {len(missing)} of {len(named)} files of weights ({missing[0]}); copy or fetch them.")
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise ModelError(f"'{path}' is a pointer of Git LFS, not the weights; run `git lfs pull` in its folder.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
