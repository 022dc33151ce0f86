"""One forward pass over a calibration set, batch by batch: the stream at every boundary, in fp64, without padding."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import NumericsError
from replaceme_core.models.running import capture
from replaceme_core.progress import SILENT, Progress

_POSITIONS = 4096


@dataclass(frozen=True, eq=False)
class TokenStates:
    """One batch of sequences of similar length, on the CPU."""

    boundaries: tuple[Float[Tensor, "batch length width"], ...]
    real: Bool[Tensor, "batch length"]
    """positions that are no padding"""
    heldout: Bool[Tensor, " batch"]

    def rows(self, boundary: int, heldout: bool | None = None) -> Float64[Tensor, "tokens width"]:
        """The real tokens at a boundary (-1: the last), of one part or of both."""
        own = self.real if heldout is None else self.real & (self.heldout == heldout).unsqueeze(1)
        return self.boundaries[boundary][own].double()


def passes(
    handle: ModelHandle, calibration: CalibrationSet, what: str, progress: Progress = SILENT, model: Any = None
) -> Iterator[TokenStates]:
    """The calibration set through the handle's model, or through `model`, a cut copy that nobody else has."""
    chosen = list(batches(calibration.lengths, _POSITIONS))
    for number, batch in enumerate(chosen, start=1):
        inputs, mask = inputs_of(calibration, batch)
        with handle.borrow() if model is None else nullcontext(model) as own:
            device = own.device
            found = capture.read_states(own, handle.family, inputs.to(device), mask.to(device), writers=())
        boundaries = tuple(state.cpu() for state in found.boundaries)
        if not boundaries[-1][mask.bool()].isfinite().all():
            raise NumericsError(
                "The activations after the last block are not finite (NaN or infinity). Load the model in float32 or bfloat16 instead of "
                "float16; if they stay, its weights are damaged."
            )
        progress.update(number, len(chosen), "batches", what)
        yield TokenStates(boundaries, mask.bool(), torch.tensor([calibration.heldout[i] for i in batch]))
