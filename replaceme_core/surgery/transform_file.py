"""A fitted transform as one safetensors file that says what it is of: written with every export, and applied to a model later.

The tensors are `transform` ([width, width], fp64, acting on rows) or the new weights of a refit, named by block and path. The
header holds the cut, the method and the original's facts as one entry of JSON, so that equal fits give equal bytes.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import Cut, FitReport, LinearTransform, ModelHandle, Span
from replaceme_core.errors import InputError

NAME = "transform.safetensors"
_ENTRY = "replaceme"
_FIGURES = ("train_error", "heldout_error", "removal_error", "heldout_cosine", "removal_cosine", "condition", "ridge")
"""of a report, that are null in JSON where they are not finite"""


def save(transform: LinearTransform, path: Path, original: dict[str, Any]) -> None:
    """Nothing is written where blocks are removed without a transform: there are no tensors. `original` is what `facts` says of the model it was fitted on."""
    from safetensors.torch import save_file

    tensors = dict(transform.weights) if transform.matrix is None else {"transform": transform.matrix}
    if not tensors:
        return
    said = {"format": 1, "cut": transform.cut.plain(), "method": transform.method, "settings": transform.settings, "original": original}
    partly = path.with_name(f".{path.name}.{os.getpid()}")  # a folder that is completed later holds the whole file or the old one
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partly, metadata={_ENTRY: json.dumps(said, sort_keys=True)})
    partly.replace(path)


def says_ours(path: Path) -> bool:
    """Whether a file has our header. Reads no tensor and raises nothing."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return _ENTRY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def facts(handle: ModelHandle, n_removed: int = 0) -> dict[str, Any]:
    """What a model must have in common with the one that a transform was fitted on; `n_removed` blocks are missing in a pruned one."""
    return {"family": handle.family.name, "n_blocks": handle.n_blocks + n_removed, "width": handle.width}


def find(source: str | Path) -> Path:
    """The file of a transform: itself, or that of an export or run folder. Raises `InputError`."""
    path = Path(source)
    candidates = [path] if path.is_file() else [path / NAME, path / "model" / NAME]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(f"'{source}' holds no {NAME}; give such a file, or the folder of a run or an export ('drop' has none).")


def read(source: str | Path, cut: Cut | None = None) -> tuple[LinearTransform, dict[str, Any]]:
    """The transform of a file or folder, and the original's facts. `cut` names the spans of a file from elsewhere, without our header.

    Raises `InputError` for what is no transform, and for one that was trained after the cut (its file is not all of it).
    """
    path = find(source)
    tensors, said = _opened(path)
    if said is None and cut is None:
        raise InputError(f"'{path}' does not say which blocks it stands in for; name them (--span START:END).")
    said = said or {"cut": cut.plain() if cut else {}, "method": "from a file", "settings": {}, "original": {}}
    try:
        spans = [Span(said["cut"]["start"], said["cut"]["end"]), *(Span(*pair) for pair in said["cut"].get("more", []))]
        first, *others = spans
        matrix = tensors.get("transform")
        if matrix is not None and (matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.is_floating_point()):
            raise InputError(f"The tensor 'transform' of '{path}' is {tuple(matrix.shape)}; a transform is a square matrix.")
        transform = LinearTransform(
            first,
            str(said["method"]),
            None if matrix is None else matrix.double(),
            _report(path),
            dict(said["settings"]),
            weights={} if matrix is not None else tensors,
            others=tuple(others),
        )
        return transform, dict(said["original"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"The header of '{path}' is damaged ({error}); fit the transform again.") from error


def require_fitting(transform: LinearTransform, original: dict[str, Any], handle: ModelHandle) -> None:
    """An `InputError` for a transform of another model: what differs, in words."""
    own = facts(handle)
    wrong = [f"{key} {value} (the transform: {original[key]})" for key, value in own.items() if original.get(key, value) != value]
    if transform.matrix is not None and len(transform.matrix) != handle.width:
        wrong.append(f"width {handle.width} (the matrix: {len(transform.matrix)})")
    if wrong:
        raise InputError(f"The transform was fitted on another model: '{handle.name}' has {', '.join(wrong)}. Choose that model.")
    transform.cut.check(handle.n_blocks)
    with handle.borrow() as model:
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for name, value in transform.weights.items():
        if shapes.get(f"{handle.family.blocks}.{name}") != tuple(value.shape):
            raise InputError(
                f"The transform's tensor '{name}' has no place of its shape in '{handle.name}'. Choose the model it was fitted on."
            )


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            text = (file.metadata() or {}).get(_ENTRY)
        said = None if text is None else json.loads(text)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"'{path}' is no readable safetensors file ({error}).") from error
    if not tensors or any(not bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise InputError(f"'{path}' holds no tensor, or numbers that are not finite; fit the transform again.")
    return tensors, said if isinstance(said, dict) else None


def _report(path: Path) -> FitReport:
    """The report of the fit that lies beside; unknown figures where there is none."""
    try:
        data = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
        figures: dict[str, Any] = dict(data["report"])
        figures |= {key: math.nan for key in _FIGURES if figures[key] is None}
        figures |= {name: tuple(figures[name]) for name in ("notes", "remarks") if name in figures}
        report = FitReport(**figures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        unknown: dict[str, Any] = dict.fromkeys(_FIGURES, math.nan)
        notes = ("The report of the fit did not lie beside the transform.",)
        return FitReport(n_tokens=0, n_heldout_tokens=0, unknowns=0, rank=0, seconds=0.0, notes=notes, **unknown)
    healing = data.get("healing") or {}
    if healing.get("kind") == "lora" and healing.get("best"):
        raise InputError(f"'{path.parent}' was trained after the cut (healing), so its transform is not all of it; take its model folder.")
    return report
