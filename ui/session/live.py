"""Live results: fits, ridge paths and singular values, kept as long as their measurement is."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import streamlit as st

from replaceme_core.errors import Cancelled
from ui.session.state import Lifetime, Slot, Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, LinearTransform, Measurement, Span
    from replaceme_core.plans.plan import MethodSection
    from replaceme_core.progress import Progress
    from replaceme_core.solvers import RidgePoint

_KEPT = 24
LONG = 3.0
"""seconds that a page may stand still behind a spinner; a fit that is expected to take longer is a job"""
_MISSING = object()


@dataclass(eq=False)
class LiveResults(Slot):
    """What was worked out of the present measurement, the newest last."""

    lifetime: ClassVar[Lifetime] = "measurement"
    held: dict[Hashable, Any] = field(default_factory=dict)


def remembered(state: Studio, key: Hashable, make: Callable[[], Any]) -> Any:
    """The value under `key`, made now if need be; those unused for longest go when there are many."""
    held = state.slot(LiveResults).held
    value = held.pop(key, _MISSING)
    if value is _MISSING:
        value = make()
    while len(held) >= _KEPT:
        held.pop(next(iter(held)))
    held[key] = value
    return value


def is_remembered(state: Studio, key: Hashable) -> bool:
    return key in state.slot(LiveResults).held


def measured(state: Studio) -> "Measurement":
    if state.measurement is None:
        raise RuntimeError("asked for a measurement before there is one")
    return state.measurement


def shown(state: Studio) -> "Measurement":
    """What the distances are read from: the pass that is under way as far as it has come, else the one that was made."""
    if state.shown is None:
        raise Cancelled("The pass was stopped before it had read enough to show.")
    return state.shown


def can_fit(state: Studio, span: "Span") -> bool:
    """False where the disk could not take what a fit reads."""
    return (span, "uniform") in measured(state).moments


def transform(state: Studio, span: "Span | Cut", method: "MethodSection", progress: "Progress | None" = None) -> "LinearTransform":
    """The fitted transform; milliseconds for a live method of one span, which does not touch the model. The others run it."""
    from replaceme_core import pipeline
    from replaceme_core.progress import SILENT

    def make() -> "LinearTransform":
        resident, calibration, section = state.resident, state.calibration, state.calibration_section
        if resident is None or calibration is None or section is None:
            raise RuntimeError("asked for a fit without a model and its calibration set")
        return pipeline.fit(resident.handle, calibration, measured(state), span, method, progress or SILENT)

    return remembered(state, ("fit", span, method), make)


def expected_seconds(state: Studio, span: "Span | Cut", method: "MethodSection") -> float:
    """How long a live fit would hold the page, from width, tokens and the speed of this machine; 0 where it is there already."""
    from replaceme_core.solvers import cost

    resident = state.resident
    if resident is None or is_at_hand(state, span, method):
        return 0.0
    return cost.seconds(width(state), measured(state).n_tokens, method, resident.handle.device)


def width(state: Studio) -> int:
    """Rows of T."""
    return measured(state).sample.width


def is_fitted(state: Studio, span: "Span | Cut", method: "MethodSection") -> bool:
    return is_remembered(state, ("fit", span, method))


def is_at_hand(state: Studio, span: "Span | Cut", method: "MethodSection") -> bool:
    """Whether it need not be made: by this session, or by an earlier one (see `measurement.past_fits`)."""
    from replaceme_core.artifacts import Cut
    from replaceme_core.measurement import past_fits

    if is_fitted(state, span, method):
        return True
    resident, calibration = state.resident, state.calibration
    if resident is None or calibration is None:
        return False
    cut = span if isinstance(span, Cut) else Cut((span,))
    return past_fits.find(past_fits.key_of(resident.handle, calibration, cut, method), resident.handle) is not None


def fitting(state: Studio, span: "Span | Cut", method: "MethodSection") -> AbstractContextManager[None]:
    """A spinner around what `transform` will take its time for: at real size the first look at a span reads it from the disk and sums it.

    It has a place of its own, so that what stands behind it stays where it is and is not drawn anew.
    """
    place = st.empty()
    return nullcontext() if is_fitted(state, span, method) else _spinning(place)


@contextmanager
def _spinning(place: Any) -> Iterator[None]:
    with place, st.spinner("Fitting …", show_time=True):
        yield


def ridge_path(state: Studio, span: "Span", method: "MethodSection") -> "list[RidgePoint]":
    """Train and held-out error along the ridges; empty for a method without a path."""
    from replaceme_core import solvers

    free = method.model_copy(update={"ridge": None})
    return remembered(state, ("path", span, free), lambda: solvers.ridge_path(measured(state), span, free))


def has_path(state: Studio, span: "Span", method: "MethodSection") -> bool:
    """Whether `ridge_path` is there, or is made while a page waits."""
    from replaceme_core.solvers import cost

    resident, free = state.resident, method.model_copy(update={"ridge": None})
    if is_remembered(state, ("path", span, free)) or resident is None:
        return True
    return cost.seconds(width(state), measured(state).n_tokens, free, resident.handle.device) <= LONG


def singular_values(state: Studio, fitted: "LinearTransform") -> np.ndarray:
    """Of the transform, descending."""
    matrix = fitted.matrix
    if matrix is None:
        raise RuntimeError("blocks removed without a transform have no matrix")
    key = ("singular", fitted.span, tuple(sorted(fitted.settings.items())))
    return remembered(state, key, lambda: np.linalg.svd(matrix.numpy(), compute_uv=False))
