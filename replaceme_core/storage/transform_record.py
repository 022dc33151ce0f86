"""A transform with all that is known of it, as tensors and plain data and back: to the last bit, unlike the file of an export."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from replaceme_core.artifacts import FitReport, LinearTransform, RefitStep, Span

_MATRIX, _WEIGHT, _SLOPE, _OFFSET = "matrix", "weight.", "slope.", "offset."


def taken_apart(transform: LinearTransform) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Its tensors, each in its own dtype, and the rest."""
    tensors = {} if transform.matrix is None else {_MATRIX: transform.matrix}
    tensors |= {_WEIGHT + name: value for name, value in transform.weights.items()}
    for block, (slope, offset) in transform.stand_ins.items():
        tensors |= {f"{_SLOPE}{block}": slope, f"{_OFFSET}{block}": offset}
    said = {
        "spans": [[span.start, span.end] for span in (transform.span, *transform.others)],
        "method": transform.method,
        "report": asdict(transform.report),
        "settings": transform.settings,
        "steps": [asdict(step) for step in transform.steps],
        "lookaheads": list(transform.lookaheads.items()),
        "weights": list(transform.weights),
    }
    return tensors, said


def put_together(tensors: dict[str, Tensor], said: dict[str, Any], device: str = "cpu") -> LinearTransform:
    """The same transform, with new weights on `device`. Raises whatever the parts raise that are not those of `taken_apart`."""
    first, *others = (Span(*pair) for pair in said["spans"])
    report = said["report"] | {name: tuple(said["report"].get(name, ())) for name in ("notes", "remarks")}
    numbers = [int(name.removeprefix(_SLOPE)) for name in tensors if name.startswith(_SLOPE)]
    return LinearTransform(
        first,
        said["method"],
        tensors.get(_MATRIX),
        FitReport(**report),
        said["settings"],
        weights={name: tensors[_WEIGHT + name].to(device) for name in said["weights"]},
        steps=tuple(RefitStep(**step) for step in said["steps"]),
        lookaheads={int(number): error for number, error in said["lookaheads"]},
        others=tuple(others),
        stand_ins={number: (tensors[f"{_SLOPE}{number}"], tensors[f"{_OFFSET}{number}"]) for number in numbers},
    )
