"""The intact and the pruned residual stream side by side, carried through the blocks one at a time.

Every sequence keeps its stream at the present boundary, in the model's dtype, and how the blocks were called; a block is then
run on its own, as often as a fit needs it. The original is borrowed for one batch at a time; a cut copy needs no lock. Memory: `stream_bytes`
for each calibration token, said before it is taken; whatever else is made of a stream is made for one batch at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import NumericsError
from replaceme_core.measurement import past_passes
from replaceme_core.measurement.activation_store import ActivationStore
from replaceme_core.models.running import capture, resume
from replaceme_core.progress import Progress
from replaceme_core.refit.sums import ROWS

_POSITIONS = 4096
_TRIED = 8
"""tokens that two ways to the same calls are tried on"""
_STREAMS = 5
"""intact, pruned, what a block makes of it, that of another try, and where all begin; both ends of every span come to that"""


def stream_bytes(width: int, itemsize: int, n_spans: int = 1) -> int:
    """Bytes that one calibration token takes."""
    return (_STREAMS + 2 * n_spans) * width * itemsize


def batch_bytes(width: int, widest: int, n_tokens: int) -> int:
    """Bytes of what is made while a block runs on one batch: eight states and two inner ones, and three pieces of these in fp64."""
    return 4 * min(_POSITIONS, n_tokens) * (8 * width + 2 * widest) + 3 * 8 * min(ROWS, n_tokens) * widest


@dataclass(eq=False)
class StreamBatch:
    """Sequences of similar length: [batch, length, width] states on the CPU."""

    sequences: list[int]
    """in the calibration set"""
    real: Bool[Tensor, "batch length"]
    """positions that count: no padding, and no first token if the calibration set leaves it out"""
    heldout: Bool[Tensor, " batch"]
    calls: list[capture.Call]
    at: dict[int, Tensor]
    """the intact stream at the boundaries that were asked for"""
    intact: Tensor
    pruned: Tensor

    def part(self, heldout: bool) -> Bool[Tensor, "batch length"]:
        """Which positions are real tokens of the train or the held-out part."""
        return self.real & (self.heldout == heldout).unsqueeze(1)


Targets = Callable[[StreamBatch], Float[Tensor, "batch length width"]]
"""what the stream of a batch is to be"""


class Streams:
    """Both streams of a whole calibration set, at one boundary of the original model."""

    def __init__(
        self,
        handle: ModelHandle,
        calibration: CalibrationSet,
        start: int,
        boundaries: set[int],
        stop: int,
        progress: Progress,
        store: ActivationStore | None = None,
    ) -> None:
        """Reads the intact one at `start`, where both begin, and at other `boundaries`; blocks behind `stop` are not run.

        From the `store`, if it is of this model and set and holds these boundaries, so that no block is run for it at all.
        """
        self.handle = handle
        self.batches: list[StreamBatch] = []
        wanted = {start, *boundaries}
        self._store, beside = _readable(store, handle, calibration, wanted, stop)
        chosen = list(batches(calibration.lengths, _POSITIONS))
        for number, batch in enumerate(chosen, start=1):
            inputs, mask = inputs_of(calibration, batch)
            with handle.borrow() as model:
                self.device: torch.device = model.device
                inputs, mask = inputs.to(model.device), mask.to(model.device)
                if self._store is not None and beside is not None:
                    calls = resume.calls_alone(model, handle.family, inputs, mask, stop, beside)
                    at = {boundary: self._store.sequences_at(boundary, batch, inputs.shape[1]) for boundary in sorted(wanted)}
                else:
                    calls, found = capture.read_calls(model, handle.family, inputs, mask, wanted, stop)
                    at = {boundary: state.cpu() for boundary, state in found.items()}
            _require_finite(at)
            heldout = torch.tensor([calibration.heldout[i] for i in batch])
            real = mask.bool().cpu()
            if calibration.skip_first:
                real[:, 0] = False
            self.batches.append(StreamBatch(batch, real, heldout, calls, at, at[start], at[start]))
            progress.update(number, len(chosen), "batches", "reading the intact model")

    def back_to(self, boundary: int, pruned: list[Tensor] | None = None) -> None:
        """Both streams back to a boundary that was read; `pruned` of each batch is what the intact one is, if nothing is said."""
        for number, batch in enumerate(self.batches):
            batch.intact = batch.at[boundary]
            batch.pruned = pruned[number] if pruned else batch.intact

    def run(self, batch: StreamBatch, block: nn.Module, number: int, stream: Tensor) -> Float[Tensor, "batch length width"]:
        """The output of a block that the original calls as block `number`, on the model's device."""
        return batch.calls[number].run(block, stream.to(self.device))

    def advance_intact(self, blocks: Sequence[nn.Module], start: int, stop: int) -> None:
        """The intact stream from one boundary to another through the blocks of the original; a boundary that was read is taken as it was."""
        stored = self._store if self._store is not None and stop in self._store.layout.boundaries else None
        with torch.no_grad():
            for batch in self.batches:
                if stored is not None:
                    batch.intact = batch.at[stop] if stop in batch.at else stored.sequences_at(stop, batch.sequences, batch.real.shape[1])
                    continue
                for number in range(start, stop) if stop not in batch.at else ():
                    with self.handle.borrow():  # others may have hooks on the original's blocks
                        batch.intact = self.run(batch, blocks[number], number, batch.intact).cpu()
                batch.intact = batch.at.get(stop, batch.intact)

    def outputs(self, block: nn.Module, number: int) -> list[Tensor]:
        """What one kept block makes of the pruned stream, batch by batch, on the CPU."""
        with torch.no_grad():
            return [self.run(batch, block, number, batch.pruned).cpu() for batch in self.batches]

    def advance_pruned(self, outputs: list[Tensor]) -> None:
        """The pruned stream on to what a block made of it."""
        for batch, output in zip(self.batches, outputs, strict=True):
            batch.pruned = output


def _readable(
    store: ActivationStore | None, handle: ModelHandle, calibration: CalibrationSet, boundaries: set[int], stop: int
) -> tuple[ActivationStore | None, resume.Beside | None]:
    """The store if the intact stream can be read from it, and what its blocks hand on beside the stream; else nothing."""
    if store is None or calibration.positions or not boundaries <= set(store.layout.boundaries):
        return None, None
    if store.layout.dtype != handle.dtype or store.key != past_passes.key_of(handle.fingerprint, calibration):
        return None, None
    with handle.borrow() as model:
        beside = resume.calls_alike(model, handle.family, calibration.sequences[0][None, :_TRIED].to(model.device), stop)
    return (None, None) if beside is None else (store, beside)


def _require_finite(at: dict[int, Tensor]) -> None:
    for boundary, state in at.items():
        if not state.isfinite().all():
            raise NumericsError(
                f"The activations at boundary {boundary} are not finite (NaN or infinity). "
                "Load the model in float32 or bfloat16 instead of float16; if they stay, its weights are damaged."
            )
