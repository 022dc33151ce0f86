"""The proof that an exported folder is the model in memory: it is read back by transformers itself, on the CPU, and compared.

It shows that (1) `from_pretrained` finds every tensor in the files, once, and no other, (2) every parameter and buffer that it makes of
them is bit for bit the one in memory, in the exported dtype, (3) the configuration and the settings of generation say the same, and
(4) the tree of modules that it builds gives the same outputs. For (4) that tree is given the tensors in memory, which by (2) are its
own, so that the device holds the weights once. It is left out where it says nothing: under another dtype, and for a model that is
spread over devices.

Memory: the files are mapped, so that a tensor takes memory while it is compared. What transformers fuses while it loads (experts) it
makes in main memory, or on the disk beside the folder where main memory is too small for the model.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from replaceme_core import memory
from replaceme_core.artifacts import Proof, Variant
from replaceme_core.errors import ProofError, quoted
from replaceme_core.models import fingerprints
from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.checkpoints.quiet import one_bar
from replaceme_core.models.checkpoints.sources import unwrapped
from replaceme_core.models.quantised import stored
from replaceme_core.models.running.precision import exact
from replaceme_core.storage.tensor_files import bit_equal, entries

_PROBE = (1, 16)
_TOLERANCE = 1e-5
"""largest relative difference (Frobenius) of outputs"""
_ROOM = 1.2
"""times the model's size: free main memory that a reload may count on"""


def prove_reload(variant: Variant, folder: Path, dtype: torch.dtype) -> Proof:
    """The exported folder against the variant's model; see above. `error` is that of the outputs, 0 where they are not compared."""
    family = variant.handle.family
    inputs = modality.of(family)
    with variant.handle.borrow() as model, tempfile.TemporaryDirectory(dir=folder, prefix=".reload") as beside:
        reloaded, info = _read(inputs.model_class(model.config), folder, dtype, _where(variant, dtype, beside))
        wrong = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]]
        same_dtype = dtype == getattr(torch, variant.handle.dtype)
        wrong += _twice(model, folder)
        wrong += differences(model, reloaded, None if same_dtype else dtype)
        devices = {parameter.device for parameter in model.parameters()}
        whole = same_dtype and len(devices) == 1 and torch.device("meta") not in devices
        error = _output_error(model, reloaded, family) if whole and not wrong else 0.0
    said = "all tensors and settings equal" + ("" if same_dtype else f" as {str(dtype).removeprefix('torch.')}")
    said += f", {inputs.compared} equal" if whole else ""
    detail = f"{said}, no missing or unexpected key" if not wrong else f"differs: {', '.join(wrong[:3])}"
    return Proof("reload = memory", not wrong and error <= _TOLERANCE, error, _TOLERANCE, detail)


def _read(kind: Any, folder: Path, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model and transformers' report on it. Raises `ProofError` where transformers refuses the files."""
    try:
        with one_bar():
            reloaded, info = kind.from_pretrained(folder, dtype=dtype, trust_remote_code=False, output_loading_info=True, **options)
    except OSError:
        raise
    except Exception as error:
        said = unwrapped(error)
        if memory.is_short(said):
            raise
        raise ProofError(
            f"The exported folder failed the proof 'reload = memory': it cannot be read back ({quoted(said)}). "
            "It is not kept; report the model's family if it stays."
        ) from error
    return reloaded, info


def differences(model: nn.Module, reloaded: nn.Module, dtype: torch.dtype | None) -> list[str]:
    """Names of the tensors and settings that are not the same, bit by bit, one tensor at a time.

    `dtype`: what the tensors were rounded to when they were written, if it is another one; transformers may hold some wider. Buffers that
    are not written (gemma's embed_scale) are made anew in the dtype of the one read back, so they are compared in the coarser of the two.
    """
    own, found = (dict(fingerprints.tensors(each)) for each in (model, reloaded))
    saved = model.state_dict().keys()
    wrong = sorted(own.keys() ^ found.keys())
    for name in own.keys() & found.keys():
        expected, read = stored(model, name, own[name]).cpu(), stored(reloaded, name, found[name])
        if dtype is not None and expected.is_floating_point():
            rounded = dtype if name in saved else _coarser(expected.dtype, read.dtype)
            expected = expected.to(rounded).to(read.dtype)
            read = read if name in saved else read.to(rounded).to(read.dtype)
        if not bit_equal(read.cpu(), expected):
            wrong.append(name)
    for entry in ("config", "generation_config"):
        ours, theirs = (fingerprints.settings(getattr(each, entry, None)) or {} for each in (model, reloaded))
        wrong += [f"{entry}.{key}" for key in sorted(ours.keys() | theirs.keys()) if _plain(ours.get(key)) != _plain(theirs.get(key))]
    return wrong


def _coarser(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The dtype of the larger rounding."""
    return max(one, other, key=lambda dtype: torch.finfo(dtype).eps)


def place_of(tensor: Tensor) -> tuple[Any, ...]:
    """Where the values are in memory: the same for the names of one tied tensor, and for no others."""
    if tensor.is_meta or not tensor.numel():
        return (id(tensor),)
    return tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _twice(model: nn.Module, folder: Path) -> list[str]:
    """Names in the files of what another name there is already, as a tied embedding that was rounded under each of its names."""
    written, state = entries(folder), model.state_dict()
    names = [name for name in state if name in written]
    counts = Counter(place_of(state[name]) for name in names)
    return [f"{name} (written twice)" for name in names if counts[place_of(state[name])] > 1]


def _plain(value: Any) -> str:
    return fingerprints.text(value).decode()


def _where(variant: Variant, dtype: torch.dtype, beside: str) -> dict[str, Any]:
    """Options that keep a reload out of a main memory that is too small for the model."""
    import psutil

    needed = variant.handle.n_parameters * dtype.itemsize
    if psutil.virtual_memory().available >= _ROOM * needed:
        return {}
    return {"device_map": {"": "disk"}, "offload_folder": beside}


def _output_error(model: Any, reloaded: Any, family: Family) -> float:
    """Relative difference of the two models' outputs on random tokens or images; the reloaded one has equal tensors, and gets the model's."""
    _lend(model, reloaded)
    inputs = modality.of(family)
    probe = inputs.probe(model, family, _PROBE)
    with torch.no_grad():
        expected, found = (exact(inputs.outputs(each, family, probe)) for each in (model, reloaded))
    return float((expected - found).norm() / expected.norm())


def _lend(model: Any, reloaded: Any) -> None:
    """Puts the model's parameters into the other tree, and moves its own buffers beside them."""
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(reloaded, recurse=True)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        _set(reloaded, name, parameter)
    for name, buffer in list(reloaded.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        reloaded.get_submodule(owner)._buffers[leaf] = buffer.to(model.device)


def _set(tree: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(tree.get_submodule(owner), leaf, value)
