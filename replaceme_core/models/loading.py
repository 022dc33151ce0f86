"""ModelSection -> ModelHandle: from the shipped demo, a local folder, a GGUF file or a Hugging Face id; never pickled weights.

`weigh` counts from the configuration alone, before a byte of weights is read. Remote code is never run.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.errors import ModelError
from replaceme_core.guard import guarded
from replaceme_core.handle import widest_side
from replaceme_core.models import fingerprints, quantised
from replaceme_core.models.architecture import families, linearity, modality
from replaceme_core.models.checkpoints import checkpoint_files, left_out, stored_shapes
from replaceme_core.models.checkpoints.opened import opened
from replaceme_core.models.checkpoints.sources import explain, gguf_of
from replaceme_core.models.checkpoints.stored_shapes import Counts
from replaceme_core.plans.plan import ModelSection
from replaceme_core.progress import SILENT, Progress
from replaceme_core.storage import gguf_file
from replaceme_core.storage.shipped import DEMO

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Weights(Counts):
    """What a checkpoint or its configuration promises of the weights. `dtype` is the one that the section holds them in, or that of the checkpoint."""

    bytes_by_dtype: dict[str, int]
    weights_bytes: int
    """as the section holds them: in its dtype, or quantised"""
    left_out: str
    """what the checkpoint may hold that this model has no place for, in words; empty: nothing"""

    @property
    def merge(self) -> str:
        return self.family.merge

    @property
    def reason(self) -> str:
        return self.family.reason


@guarded
def weigh(section: ModelSection) -> Weights:
    """Counts without reading a weight: from the checkpoint's headers where they tell all, else of the model built without memory (meta device)."""
    stored = _stored(section)
    if stored is not None:
        return _of_headers(section, stored)
    section = as_stored(section)
    config = opened(section, weights=False).config
    try:
        return _weighed(section, config)
    except Exception as error:  # impossible sizes fail anywhere in the constructor
        raise explain(section, error) from error


def _stored(section: ModelSection) -> Counts | None:
    """What the headers of a file or a local folder tell; None also where the section asks for more than its own dtype."""
    if section.quantisation is not None:
        return None
    file = gguf_of(section)
    if file is not None:
        return stored_shapes.read_gguf(gguf_file.read(file))
    folder = DEMO / "model" if section.path == "demo" else Path(section.path).expanduser()
    return stored_shapes.read(folder) if folder.is_dir() else None


def _of_headers(section: ModelSection, stored: Counts) -> Weights:
    own = section.path == "demo" or "dtype" in section.model_fields_set
    dtype = section.dtype if own else stored.dtype
    sizes = {name: stored.n_parameters * size for name, size in _BYTES.items()}
    return Weights(**vars(stored) | {"dtype": dtype}, bytes_by_dtype=sizes, weights_bytes=sizes[dtype], left_out="")


def _weighed(section: ModelSection, config: Any) -> Weights:
    family = families.find(config)
    text = families.counted(config, family)
    with torch.device("meta"):
        model = modality.of(family).build(config)
    family = linearity.expected(model, family)
    blocks, n_parameters = (
        model.get_submodule(family.blocks) if family.blocks else torch.nn.Module(),
        sum(p.numel() for p in model.parameters()),
    )
    sizes = {dtype: n_parameters * size for dtype, size in _BYTES.items()}
    return Weights(
        architecture=type(model).__name__,
        family=family,
        n_blocks=text.num_hidden_layers,
        width=text.hidden_size,
        n_parameters=n_parameters,
        block_parameters=sum(p.numel() for p in blocks.parameters()) // text.num_hidden_layers,
        widest=widest_side(blocks, text.hidden_size),
        dtype=section.dtype,
        bytes_by_dtype=sizes,
        weights_bytes=quantised.held_bytes(model, section, sizes),
        left_out="; ".join(filter(None, (left_out.by_configuration(model, config), _adapter_beside(section)))),
    )


@guarded
def load(section: ModelSection, progress: Progress = SILENT) -> ModelHandle:
    """Loads model and tokenizer. A family that cannot be pruned still loads: its handle's family says why.

    A model that is quantised or spread over devices comes with the folder of its checkpoint, which is what can be merged into.
    """
    device = resolve_device(section.device)
    held = section.quantisation or section.dtype
    needed = f"to hold '{section.path}' in {held} on {device}", memory.HOLD_LESS, lambda: _sizes(section)
    with memory.told(*needed):
        source = opened(section)
    placement = quantised.placement(section, device)
    inputs = modality.of(families.find(source.config))
    source.fetch(progress)
    progress.update(0, 3, "steps", "reading the tokenizer")
    tokenizer = source.processor(inputs)
    progress.update(1, 3, "steps", "reading the weights")
    quantised.require_widths(source.config, section, device)
    with memory.told(*needed):
        model = source.model(inputs, placement, progress)
        progress.update(2, 3, "steps", f"moving the model to {device}")
        model = model.eval().requires_grad_(False)
        model = model if placement else model.to(device)
        if getattr(tokenizer, "pad_token_id", 0) is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
        name = f"{source.name} in {section.quantisation}" if section.quantisation else source.name
        handle = make_handle(name, model, tokenizer, families.find(source.config), section.revision)  # a first pass repacks 4-bit weights
        if inputs is modality.TEXT:
            linearity.require_causal(model, handle.family)
        handle = replace(handle, family=linearity.confirm(model, handle.family), origin=source.origin, file_sha256=source.sha256)
    progress.update(3, 3, "steps", "model ready")
    return replace(handle, checkpoint=source.folder() if placement else None)


def as_stored(section: ModelSection) -> ModelSection:
    """The section with the dtype that the checkpoint is stored in, unless it names one itself. The demo is held in float32, as measured."""
    if section.path == "demo" or "dtype" in section.model_fields_set:
        return section
    return section.model_copy(update={"dtype": opened(section, weights=False).dtype})


def _adapter_beside(section: ModelSection) -> str:
    folder = Path(section.path).expanduser()
    held = (folder / checkpoint_files.ADAPTER).is_file() and (folder / "config.json").is_file()
    return "nothing of the adapter that lies beside the model: it is merged into the weights when they are read" if held else ""


def _sizes(section: ModelSection) -> str:
    """What the weights take, for the sentence on memory that ran out. What is free is not named: the failed step gave its part back."""
    return f"the weights take {memory.size(weigh(section).weights_bytes)}"


def make_handle(
    name: str, model: Any, tokenizer: Any, family: families.Family, revision: str | None = None, kin: ModelHandle | None = None
) -> ModelHandle:
    """A handle on a model that is in memory already. `kin`: one whose model shares tensors with it, which then are not read again."""
    text = families.counted(model.config, family)
    first = next(model.parameters())
    fingerprint, digests = fingerprints.of(model, kin.digests if kin else None)
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
        fingerprint=fingerprint,
        revision=revision,
        digests=digests,
    )


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
