"""Live results: fits, ridge paths, the error layer and singular values, kept as long as their measurement is."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, DistanceMatrix, LinearTransform, Measurement, Span
    from replaceme_core.plans.plan import MethodSection
    from replaceme_core.progress import Progress
    from replaceme_core.solvers import RidgePoint

_KEPT = 24
_MISSING = object()


def _cached(state: Studio, key: Hashable, make: Callable[[], Any]) -> Any:
    """The value under `key`, made now if need be; those unused for longest go when there are many."""
    value = state.caches.pop(key, _MISSING)
    if value is _MISSING:
        value = make()
    while len(state.caches) >= _KEPT:
        state.caches.pop(next(iter(state.caches)))
    state.caches[key] = value
    return value


def remembered(state: Studio, key: Hashable, make: Callable[[], Any]) -> Any:
    """A result of another module that belongs to the present measurement, made once."""
    return _cached(state, key, make)


def measured(state: Studio) -> "Measurement":
    if state.measurement is None:
        raise RuntimeError("asked for a measurement before there is one")
    return state.measurement


def can_fit(state: Studio, span: "Span") -> bool:
    """True if the pass kept the moments of this span."""
    return span in set(measured(state).spans())


def transform(state: Studio, span: "Span | Cut", method: "MethodSection", progress: "Progress | None" = None) -> "LinearTransform":
    """The fitted transform; milliseconds for a live method of one span, which does not touch the model. The others run it."""
    from replaceme_core import pipeline
    from replaceme_core.progress import SILENT

    def make() -> "LinearTransform":
        resident, calibration, section = state.resident, state.calibration, state.calibration_section
        if resident is None or calibration is None or section is None:
            raise RuntimeError("asked for a fit without a model and its calibration set")
        return pipeline.fit(resident.handle, calibration, measured(state), span, method, section.budget_bytes, progress or SILENT)

    return _cached(state, ("fit", span, method), make)


def ranking(state: Studio, length: int) -> "tuple[DistanceMatrix, str]":
    """What the chosen criterion says of the spans of this length, and a note if it fell back on the distance."""
    from replaceme_core.selection import criteria

    def make() -> "tuple[DistanceMatrix, str]":
        return criteria.rank(measured(state), length, state.criterion, structure=structures(state)[0])

    return _cached(state, ("ranking", state.criterion, length), make)


def is_refit(method: "MethodSection") -> bool:
    from replaceme_core.plans.plan import REFIT

    return method.name in REFIT


def methods(state: Studio) -> list[str]:
    """The methods that follow a slider and merge into the current model, the recommended one first."""
    from replaceme_core import solvers
    from replaceme_core.plans.plan import LEAST_SQUARES

    if structures(state) == ["diagonal"]:
        return list(LEAST_SQUARES)
    return [name for name, info in solvers.METHODS.items() if name != "drop" and info.live]


def structures(state: Studio) -> list[str]:
    """The structures of T that merge into the current model."""
    from replaceme_core import solvers

    resident = state.resident
    if resident is not None and resident.handle.family.merge == "diagonal" and not state.method.separate:
        return ["diagonal"]
    return list(solvers.STRUCTURES)


def width(state: Studio) -> int:
    """Rows of T."""
    return measured(state).sample.width


def closed_form(state: Studio) -> "MethodSection":
    """Least squares of the chosen kind, the most general T that merges: for what must be instant."""
    from replaceme_core.plans.plan import LEAST_SQUARES, MethodSection

    name = state.method.name if state.method.name in LEAST_SQUARES else LEAST_SQUARES[0]
    return MethodSection.parse({"name": name, "structure": structures(state)[0]})


def is_fitted(state: Studio, span: "Span | Cut", method: "MethodSection") -> bool:
    return ("fit", span, method) in state.caches


def ridge_path(state: Studio, span: "Span", method: "MethodSection") -> "list[RidgePoint]":
    """Train and held-out error along the ridges; empty for a method without a path."""
    from replaceme_core import solvers

    free = method.model_copy(update={"ridge": None})
    return _cached(state, ("path", span, free), lambda: solvers.ridge_path(measured(state), span, free))


def layer(state: Studio, name: str) -> np.ndarray | None:
    """[start, end] values of a layer of the matrix; None for the errors of all fits before `compute_errors` has made them."""
    if name != "error":
        from ui.parts.heatmap import layer_values  # it imports altair and pandas, which a cold first page does not wait for

        return layer_values(measured(state), name)
    key = ("error", closed_form(state))
    return _cached(state, key, lambda: None) if key in state.caches else None


def compute_errors(state: Studio, progress: "Progress") -> None:
    """The held-out error after the fit of every span that the pass kept, for `layer`: a fit for each of them."""
    from replaceme_core import solvers

    measurement, method = measured(state), closed_form(state)
    values = solvers.error_map(measurement, method, progress).numpy()
    if state.measurement is measurement:
        _cached(state, ("error", method), lambda: values)


def singular_values(state: Studio, fitted: "LinearTransform") -> np.ndarray:
    """Of the transform, descending."""
    matrix = fitted.matrix
    if matrix is None:
        raise RuntimeError("plain removal has no matrix")
    key = ("singular", fitted.span, tuple(sorted(fitted.settings.items())))
    return _cached(state, key, lambda: np.linalg.svd(matrix.numpy(), compute_uv=False))
