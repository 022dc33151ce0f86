"""A checkpoint that was found, before it is read: configuration, tokenizer and weights, out of a folder, the hub or a GGUF file alike."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from replaceme_core import memory
from replaceme_core.errors import ModelError, ReplaceMeError
from replaceme_core.models import quantised
from replaceme_core.models.architecture import families, modality
from replaceme_core.models.checkpoints import checkpoint_files, download, gguf, left_out, saved_quantised, smollm2
from replaceme_core.models.checkpoints.quiet import one_bar
from replaceme_core.models.checkpoints.sources import (
    checkpoint_folder,
    explain,
    explain_tokenizer,
    gguf_of,
    locate,
    require_cached,
    unwrapped,
)
from replaceme_core.plans.plan import ModelSection
from replaceme_core.progress import Progress
from replaceme_core.storage import gguf_file
from replaceme_core.storage.tensor_files import INDEX, SINGLE

_DTYPES = ("float32", "bfloat16", "float16")


class Opened(Protocol):
    """What loading and the preflight ask a checkpoint."""

    @property
    def config(self) -> Any:
        """transformers' configuration."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def origin(self) -> str:
        """Where it comes from and what became of it on the way, for people; empty where the path says it all."""

    @property
    def dtype(self) -> str:
        """Of the stored weights."""

    @property
    def sha256(self) -> str | None:
        """Of the file, where the checkpoint is one."""

    def fetch(self, progress: Progress) -> None:
        """Bring its files onto this machine, where they are not."""

    def processor(self, inputs: modality.Modality) -> Any:
        """The tokenizer, or the reader of images."""

    def model(self, inputs: modality.Modality, placement: dict[str, Any], progress: Progress) -> Any:
        """The model with all of its weights."""

    def folder(self) -> Path:
        """The folder of the weights, which can be merged into on disk."""


def opened(section: ModelSection, weights: bool = True) -> Opened:
    """The checkpoint that a section names. Raises `ModelError` for what is not there or is unsuitable.

    Without `weights` a folder with a configuration is enough.
    """
    file = gguf_of(section)
    return _Gguf(section, file) if file else _Checkpoint(section, weights)


@dataclass(frozen=True)
class _Checkpoint:
    """A folder that save_pretrained wrote, here or on the hub."""

    section: ModelSection
    weights: bool
    _told: list[str] = field(default_factory=list)
    _fetched: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        _ = self.config

    @property
    def name(self) -> str:
        path = self.section.path
        if path in ("demo", smollm2.NAME):
            return "demo model" if path == "demo" else Path(smollm2.HUB).name
        return Path(path).name or path

    @property
    def origin(self) -> str:
        """After the model was read: also what of its checkpoint was left out."""
        if self.section.path == smollm2.NAME:
            return smollm2.origin()
        return "; ".join(self._told)

    sha256 = None

    @property
    def _located(self) -> tuple[str, dict[str, Any]]:
        return self._fetched[-1] if self._fetched else self._named

    @cached_property
    def _named(self) -> tuple[str, dict[str, Any]]:
        return locate(self.section, self.weights)

    def fetch(self, progress: Progress) -> None:
        path, options = self._located
        if Path(path).is_dir():
            return
        here = require_cached(self.section, path, options) if options.get("local_files_only") else self._downloaded(path, options, progress)
        both = (here / SINGLE).exists() and (here / INDEX).exists()  # another program fetched both; transformers takes the first
        self._fetched.append((path, options | {"local_files_only": True}) if both else (str(here), {"trust_remote_code": False}))

    @cached_property
    def config(self) -> Any:
        from transformers import AutoConfig

        path, options = self._located
        try:
            config = AutoConfig.from_pretrained(path, **options)
            families.require_causal(config, f"'{self.section.path}'")
            saved_quantised.require_plain(self.section, config)
        except Exception as error:  # transformers raises many kinds, with no common base; what is odd in a configuration fails anywhere
            raise explain(self.section, error) from error
        return config

    def _downloaded(self, path: str, options: dict[str, Any], progress: Progress) -> Path:
        try:
            return download.fetched(path, options, progress)
        except ReplaceMeError:
            raise
        except Exception as error:  # the hub's client raises kinds of its own, and those of the libraries below it
            if download.is_away(error):
                return require_cached(self.section, path, options | {"local_files_only": True})
            raise explain(self.section, error) from error

    @property
    def dtype(self) -> str:
        for config in (self.config, self.config.get_text_config(decoder=True)):
            named = str(getattr(config, "dtype", None)).removeprefix("torch.")
            if named in _DTYPES:
                return named
        return "float32"

    def processor(self, inputs: modality.Modality) -> Any:
        path, options = self._located
        try:
            return inputs.read_processor(path, options)
        except ModelError:
            raise
        except Exception as error:  # every tokenizer library raises its own kinds
            raise explain_tokenizer(self.section, error) from error

    def model(self, inputs: modality.Modality, placement: dict[str, Any], progress: Progress) -> Any:  # noqa: ARG002
        path, options = self._located
        kind = inputs.model_class(self.config)
        local = Path(path).is_dir()
        files = checkpoint_files.arranged(Path(path)) if local else None
        if placement:
            self._require_plain_files(files)
        plain, said = saved_quantised.read_options(self.config, self.folder()) if self._is_quantised else ({}, "")
        options = options | plain | placement | (files.options if files else {})
        options |= {"dtype": getattr(torch, self.section.dtype), "use_safetensors": True, "output_loading_info": True}
        with files.readable() if files else nullcontext(path) as place:
            model = _whole(self.section, lambda: kind.from_pretrained(str(place), **options))
        model, attached = checkpoint_files.merged(model)
        if self._is_quantised:
            model = saved_quantised.plain(self.section, model)
        odd = files.said if files else ""
        if said or odd or attached:
            checkpoint_files.forget_how_it_lay(model)
        beside = "" if said or odd else left_out.by_name(model, self.folder())
        self._told.extend(filter(None, (said, odd, attached, beside)))
        return model

    @property
    def _is_quantised(self) -> bool:
        return saved_quantised.method_of(self.config) is not None

    def _require_plain_files(self, files: checkpoint_files.Arrangement | None) -> None:
        """A `ModelError` for what is to be held quantised or spread, and so merged on disk, but is not read as it lies there."""
        if files and (files.said or (files.folder / checkpoint_files.ADAPTER).is_file()):
            odd = files.said or "a model with an adapter beside it"
            raise ModelError(
                f"'{self.section.path}' is {odd}: nothing is merged into that on disk, so it cannot be held quantised or spread over devices. Load it as it "
                "is on one device, or save it once with save_pretrained."
            )

    def folder(self) -> Path:
        return checkpoint_folder(*self._located)


@dataclass(frozen=True)
class _Gguf:
    """A GGUF file, dequantised when it is read."""

    section: ModelSection
    path: Path

    def __post_init__(self) -> None:
        quantised.require_whole_file(self.section)
        _ = self.config

    @property
    def name(self) -> str:
        return self.file.title

    @property
    def origin(self) -> str:
        place = smollm2.origin() if self.section.path == smollm2.NAME else "a GGUF file"
        if self.file.is_quantised:
            return f"{place}: weights that were stored as {self.file.stored_as}, dequantised; what that rounding lost stays lost"
        return f"{place}: weights that were stored as {self.file.stored_as}"

    @property
    def dtype(self) -> str:
        return self.file.dtype

    @property
    def sha256(self) -> str:
        return self.file.sha256

    @cached_property
    def file(self) -> gguf_file.GgufFile:
        return gguf_file.read(self.path)

    @cached_property
    def config(self) -> Any:
        try:
            return gguf.read_config(self.file)
        except Exception as error:
            raise explain(self.section, error) from error

    def fetch(self, progress: Progress) -> None:
        """It is here."""

    def processor(self, inputs: modality.Modality) -> Any:  # noqa: ARG002
        try:
            return gguf.read_tokenizer(self.file)
        except Exception as error:
            raise ModelError(
                f"'{self.section.path}' has no tokenizer that can be read ({error}); choose the model's safetensors checkpoint."
            ) from error

    def model(self, inputs: modality.Modality, placement: dict[str, Any], progress: Progress) -> Any:  # noqa: ARG002
        def report(number: int, total: int) -> None:
            progress.update(1 + number / total, 3, "steps", f"reading the weights, {number} of {total} tensors")

        return _whole(self.section, lambda: gguf.read_model(self.file, self.config, self.section.dtype, report))

    def folder(self) -> Path:
        raise ModelError(f"'{self.section.path}' is a file that is dequantised when it is read; nothing is merged into it on disk.")


def _whole(section: ModelSection, read: Any) -> Any:
    """The model that was read with all of its weights; an error of the memory passes as it is."""
    try:
        with one_bar():
            model, info = read()
    except Exception as error:  # transformers raises many kinds, with no common base
        said = unwrapped(error)
        raise (said if memory.is_short(said) else explain(section, said)) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        names = ", ".join(sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))[:3])
        raise ModelError(f"The weights of '{section.path}' are incomplete (missing: {names}); fetch or save the checkpoint again.")
    return model
