"""The text that KL and perplexity are measured on: the demo's own held-out documents, else the held-out part of the calibration set."""

from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.comparison.compare import heldout_sequences

_DEMO = "demo"


def heldout_text(handle: ModelHandle, path: str, calibration: CalibrationSet, n_tokens: int = 4096, whole: bool = False) -> list[Tensor]:
    """About `n_tokens` of held-out text for a model that was loaded from `path`.

    `whole`: of a calibration set all that was held out, however much it is.
    """
    if path == _DEMO:
        return heldout_sequences(handle, n_tokens)
    return heldout_part(calibration, None if whole else n_tokens)


def heldout_part(calibration: CalibrationSet, n_tokens: int | None = None) -> list[Tensor]:
    """The first held-out sequences of a calibration set, as many as `n_tokens` need; all of them without a number."""
    chosen, count = [], 0
    for sequence in (row for row, out in zip(calibration.sequences, calibration.heldout, strict=True) if out):
        if n_tokens is not None and count >= n_tokens:
            break
        chosen.append(sequence)
        count += len(sequence)
    return chosen
