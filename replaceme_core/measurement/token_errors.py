"""Which held-out tokens a fit rebuilds badly: the relative error of single tokens, in place of the mean that a report gives.

    errors = token_errors.stored(measurement, transform)                 # from the pass's token sample, without the model
    errors = token_errors.measured(handle, calibration, transform)       # runs the model; for refits and several spans

The error of a token is |stream - target|^2 / |target|^2, the stream that the cut model has there and the target that the
original has: 0 is perfect, 1 as bad as an empty stream.
"""

from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, ModelHandle
from replaceme_core.calibration.batches import inputs_of
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError, NumericsError
from replaceme_core.models.running import capture
from replaceme_core.models.running.divergence import WAY_OUT
from replaceme_core.progress import SILENT, Progress

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class TokenErrors:
    """One row per held-out token."""

    sequence: Int[Tensor, " tokens"]
    """its sequence in the calibration set"""
    position: Int[Tensor, " tokens"]
    """its place in that sequence"""
    fitted: Float64[Tensor, " tokens"]
    removed: Float64[Tensor, " tokens"]
    """removed without a transform, at the same place"""
    boundary: int
    """where the two streams are compared"""

    @property
    def n_tokens(self) -> int:
        return len(self.fitted)


def needs_the_model(transform: LinearTransform) -> bool:
    """Whether the stored tokens do not tell: weights were solved anew, or there are several spans."""
    return bool(transform.weights) or bool(transform.others)


def stored(measurement: Measurement, transform: LinearTransform) -> TokenErrors:
    """The errors of one transform on the stored held-out tokens. Raises `InputError` where that needs the model."""
    sample, span = measurement.sample, transform.span
    if needs_the_model(transform) or sample.origin is None:
        raise InputError("The stored tokens do not tell what this fit does to them; run the model on them ('measured').")
    start, end = sample.boundaries[span.start].double(), sample.boundaries[span.end].double()
    rebuilt = start
    if transform.matrix is not None:
        written = sample.writers[span.carrier].double()
        rebuilt = start - written + written @ transform.matrix
    sequence, position = sample.origin.unbind(1)
    return TokenErrors(sequence, position, _relative(rebuilt, end), _relative(start, end), span.end)


def measured(
    handle: ModelHandle, calibration: CalibrationSet, transform: LinearTransform, n_sequences: int = 40, progress: Progress = SILENT
) -> TokenErrors:
    """The errors on the first held-out sequences, from the untouched model with the fit put in by hooks.

    The streams are compared where the last span ends, or at the last boundary if blocks behind it were solved anew.
    """
    cut, last = transform.cut, max((int(name.partition(".")[0]) for name in transform.weights), default=0)
    boundary = handle.n_blocks if last >= cut.spans[-1].end else cut.spans[-1].end
    chosen = list(islice((index for index, out in enumerate(calibration.heldout) if out), n_sequences))
    parts: list[tuple[Tensor, ...]] = []
    for number, index in enumerate(chosen):
        progress.update(number, len(chosen), "sequences", "error of every token")
        ids, mask = inputs_of(calibration, [index])
        with handle.borrow() as model:
            place = (model, handle.family, ids.to(model.device), mask.to(model.device), boundary, ())
            end = capture.read_states(*place).boundaries[-1]
            with capture.simulated(model, handle.family, cut, transform.matrix, transform.weights):
                fitted = capture.read_states(*place).boundaries[-1]
            with capture.simulated(model, handle.family, cut, None):
                removed = capture.read_states(*place).boundaries[-1]
        rows = [state.flatten(0, 1).cpu().double() for state in (fitted, removed, end)]
        skipped = 1 if calibration.skip_first else 0
        position = torch.arange(skipped, len(rows[0]))
        errors = (_relative(row[skipped:], rows[2][skipped:]) for row in rows[:2])
        parts.append((torch.full_like(position, index), position, *errors))
    sequence, position, fitted, removed = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return TokenErrors(sequence, position, fitted, removed, boundary)


def _relative(stream: Float64[Tensor, "tokens width"], target: Float64[Tensor, "tokens width"]) -> Float64[Tensor, " tokens"]:
    errors = (stream - target).square().sum(1) / target.square().sum(1).clamp_min(_TINY)
    if not errors.isfinite().all():
        raise NumericsError(f"The stream of the pruned model is not finite (NaN or infinity), so that its tokens have no error. {WAY_OUT}")
    return errors
