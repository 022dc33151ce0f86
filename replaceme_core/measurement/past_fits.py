"""Fits that were made before: found again after a restart, so that none that takes its time is made twice.

A fit is known by all that it depends on: the model's weights, the calibration set, the cut, the settings, and this version of the
program. What is worth keeping are refits, which run the model, and what took longer than reading it back; see `storage.shelf` for where.
"""

import hashlib
import logging
import time
from collections.abc import Callable

from replaceme_core import __version__
from replaceme_core.artifacts import Cut, LinearTransform, Measurement, ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import quoted
from replaceme_core.measurement import past_passes
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import REFIT, MethodSection
from replaceme_core.progress import Progress
from replaceme_core.storage import shelf
from replaceme_core.storage.transform_record import put_together, taken_apart

_logger = logging.getLogger(__name__)
KIND = "fits"
_FORMAT = 3
"""one more whenever a fit changes for the same settings, so that older ones are made again"""
WORTH = 0.3
"""seconds from which a fit that is no refit is kept; what is faster is made again as fast as it is read"""


def key_of(handle: ModelHandle, calibration: CalibrationSet, cut: Cut, method: MethodSection) -> str:
    """The name under which a fit is kept."""
    of = f"{_FORMAT} {__version__} {past_passes.key_of(handle.fingerprint, calibration)} {cut} {method.model_dump_json()}"
    return hashlib.sha256(of.encode()).hexdigest()[:24]


def found_or_made(
    handle: ModelHandle,
    calibration: CalibrationSet,
    measurement: Measurement | None,
    cut: Cut,
    method: MethodSection,
    make: Callable[[], LinearTransform],
    progress: Progress,
) -> LinearTransform:
    """The transform of an earlier session, to the last bit, or what `make` returns, which is kept if it took its time.

    Only where the measurement is this set's own and this process has all of it: figures of a part are nobody else's. Nor are those of a
    model with hooks, which may be another one than its fingerprint says. What reads moments alone asks nothing of the model, which may be lent out.
    """
    runs_the_model = method.name in REFIT or len(cut.spans) > 1
    if (measurement is not None and not _belongs(measurement, handle, calibration)) or (runs_the_model and _hooked(handle)):
        return make()
    key = key_of(handle, calibration, cut, method)
    known = find(key, handle)
    if known is not None:
        progress.update(1, 1, "fits", "fitting: this fit was made before and is found again")
        return known
    began = time.monotonic()
    transform = make()
    if (_read_all(transform, calibration) or not runs_the_model) and (method.name in REFIT or time.monotonic() - began >= WORTH):
        shelf.put(KIND, key, *taken_apart(transform))
    return transform


def _read_all(transform: LinearTransform, calibration: CalibrationSet) -> bool:
    """Whether a fit that ran the model read the whole set: one that had memory for a part of it is made again, with what memory there is then."""
    left_out = len(calibration.sequences) if calibration.skip_first else 0
    return transform.report.n_tokens + transform.report.n_heldout_tokens >= calibration.n_tokens - left_out


def find(key: str, handle: ModelHandle) -> LinearTransform | None:
    """One that was kept; what does not read like one is removed."""
    kept = shelf.get(KIND, key)
    if kept is None:
        return None
    try:
        return put_together(*kept, device="cpu" if handle.device == "meta" else handle.device)
    except Exception as error:  # written by a program that knew other parts
        _logger.warning("the fit %s cannot be read (%s) and is made again", key, quoted(error))
        shelf.remove(KIND, key)
        return None


def _belongs(measurement: Measurement, handle: ModelHandle, calibration: CalibrationSet) -> bool:
    own = (measurement.model_fingerprint, measurement.calibration_fingerprint, measurement.n_tokens)
    return bool(measurement.store and measurement.store.key) and own == (handle.fingerprint, calibration.fingerprint, calibration.n_tokens)


def _hooked(handle: ModelHandle) -> bool:
    with handle.borrow() as model:
        return capture.is_hooked(model)
