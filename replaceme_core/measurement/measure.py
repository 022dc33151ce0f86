"""The one calibration pass: distances and norms, and the activation store from which any span can be fitted, each sequence read once.

Padding is dropped, the LM head skipped, sums are fp64. What is kept of single tokens is on the disk, so memory does not
grow with the number of calibration tokens (`python -m benchmarks.calibration_pass memory` shows it).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import DistanceMatrix, Measurement, ModelHandle, Moments, Positions, Span, TokenSample
from replaceme_core.calibration.batches import inputs_of, stretches
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.distribution import ALONE, Group
from replaceme_core.errors import NumericsError
from replaceme_core.measurement import needs, past_passes
from replaceme_core.measurement.activation_store import ActivationStore, Layout
from replaceme_core.measurement.distances import DistanceSums
from replaceme_core.measurement.moments import HeldMoments
from replaceme_core.measurement.past_passes import Found, Recorder
from replaceme_core.measurement.stored import StoredMoments, token_sample
from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import require_mergeable
from replaceme_core.models.running import capture
from replaceme_core.models.running.limits import require_readable
from replaceme_core.models.running.precision import exact_device
from replaceme_core.progress import SILENT, Progress

_LESS = f"shorter sequences (max_length); or, for the weights, {memory.HOLD_LESS}"


@dataclass(frozen=True)
class SoFar:
    """What a pass that is under way can show."""

    measurement: Measurement
    """of the sequences that were read: their distances and norms. Moments and stored tokens come with the end of the pass"""
    n_tokens: int
    """of the whole set"""
    can_end: bool
    """whether both parts were read, something to fit and something to check, so that the pass may end here"""


Watch = Callable[[SoFar], bool]
"""Is told of the pass after every stretch of it; its True ends the pass there, if it can end."""


def measure(
    handle: ModelHandle,
    calibration: CalibrationSet,
    spans: list[Span] | None = None,
    progress: Progress = SILENT,
    group: Group = ALONE,
    watch: Watch | None = None,
    again: bool = False,
    boundaries: Sequence[int] = (),
) -> Measurement:
    """Runs the pass on a borrowed model, or finds what an earlier one left (`again`: never); a group of processes shares the batches and
    ends with the same measurement.

    `spans` names what is to be fitted afterwards, so that only their points are stored (none: distances alone); None stores every point.
    `boundaries` are stored as well: what a refit goes through (`needs.boundaries_of`).
    The set is read in its own order, watched or not, so that the figures are the same to the last bit. Where a watched
    pass is ended early, the measurement is that of the first sequences, `calibration.beginning(...)`.
    Raises `NumericsError` where activations are not finite. A disk that cannot take the store costs the fits, not the distances:
    `Measurement.lacking` says so.
    """
    assert watch is None or group.size == 1, "a pass that processes share is not watched"
    require_mergeable(handle.family)
    if not calibration.positions:
        require_readable(handle, calibration.sequences)
    group.require_same(f"{calibration.fingerprint} on {handle.fingerprint}", "calibration tokens and model")
    for span in spans or ():
        span.check(handle.n_blocks)
    layout = Layout.of(handle.n_blocks, handle.width, handle.dtype, calibration.n_tokens, spans, boundaries)
    device, shared = _device(handle), group.size == 1 and not _hooked(handle)
    with memory.told("for the calibration pass", _LESS):
        found = past_passes.find(handle.fingerprint, calibration, layout) if shared and not again else None
        if found is not None:
            progress.update(calibration.n_tokens, calibration.n_tokens, "tokens", "calibration pass, made before")
    if found is not None and found.store is not None:
        return _measurement(handle, calibration, found, StoredMoments(found.store, device), found.store)
    with past_passes.recorder(layout, shared) as recorder:
        return _made(_Pass(handle, calibration, recorder, device), progress, group, watch)


def _made(sums: "_Pass", progress: Progress, group: Group, watch: Watch | None) -> Measurement:
    """Batch after batch, to the end or to where somebody has enough."""
    handle, calibration, began = sums.handle, sums.calibration, time.perf_counter()
    positions = needs.positions(handle.n_blocks, handle.width)
    parts = list(stretches(calibration, positions))
    if group.size > 1:  # the same batches as alone, dealt out
        parts = [[batch for part in parts for batch in part]]
    n_batches, chosen = sum(map(len, parts)), list[list[int]]()
    said = f"the states of one batch take {memory.size(needs.pass_bytes(handle.n_blocks, handle.width))}"
    with memory.told("for the calibration pass", _LESS, lambda: said):
        for part in parts:
            for number, batch in enumerate(group.mine(part), start=1):
                sums.add(batch)
                share = min(1.0, number * group.size / n_batches) if group.size > 1 else sums.distances.n_tokens / calibration.n_tokens
                progress.update(round(share * calibration.n_tokens), calibration.n_tokens, "tokens", "calibration pass")
            chosen += part
            if watch is not None and part is not parts[-1]:
                so_far = SoFar(sums.measured(began), calibration.n_tokens, sums.can_end)
                if watch(so_far) and so_far.can_end:
                    break
        sums.distances.unite(group)
    padded = sum(len(batch) * max(calibration.lengths[i] for i in batch) for batch in chosen)
    return sums.finished(began, 1 - sums.distances.n_tokens / padded, group)


class _Pass:
    """Everything that the pass adds up and stores, batch by batch, on the model's device where that has fp64 and holds the whole model."""

    def __init__(self, handle: ModelHandle, calibration: CalibrationSet, recorder: Recorder, device: torch.device) -> None:
        self.handle, self.calibration = handle, calibration
        self._recorder, self._device = recorder, device
        self.distances = DistanceSums(handle.n_blocks + 1, modality.of(handle.family).summary)
        self._order: list[int] = []
        """sequences, as they were read"""

    def add(self, batch: list[int]) -> None:
        """One forward pass of the sequences numbered in `batch`."""
        ids, mask = inputs_of(self.calibration, batch)
        real = mask.bool().flatten().nonzero().squeeze(1)
        with self.handle.borrow() as model:
            states = capture.read_states(
                model, self.handle.family, ids.to(model.device), mask.to(model.device), writers=self._recorder.writers
            )
        boundaries = [self._rows(state, real) for state in states.boundaries]
        self.distances.update(boundaries, mask.sum(1).tolist())
        _require_finite(self.distances.norms(), batch)
        self._recorder.add(boundaries, {block: self._rows(written, real) for block, written in states.writers.items()})
        self._order += batch

    def _rows(self, state: Tensor, real: Tensor) -> Tensor:
        """[tokens, width] on the device of the sums. Padding is dropped in place, so that no second copy of a batch is made."""
        flat = state.flatten(0, 1).to(self._device)
        if len(real) < len(flat):
            flat[: len(real)] = flat[real.to(self._device)]
        return flat[: len(real)]

    @property
    def can_end(self) -> bool:
        """Whether sequences of both parts were read."""
        return set(self.calibration.heldout[: self.distances.n_sequences]) == {True, False}

    def measured(self, began: float) -> Measurement:
        """What is known of the sequences that were read, without moments and stored tokens. `began`: by `time.perf_counter`."""
        return _measurement(self.handle, self._named(), self._found(began, 0.0), HeldMoments(), None)

    def finished(self, began: float, padding_share: float, group: Group) -> Measurement:
        """With all that can be fitted from it. The distances are those of all processes, the store is of this one's own tokens."""
        found, named = self._found(began, padding_share), self._named()
        store = self._recorder.finish(self.handle.fingerprint, named, self._order, vars(found))
        if store is None:
            lacking = self._recorder.lacking
            return replace(_measurement(self.handle, named, found, HeldMoments(why=lacking), None), lacking=lacking)
        return _measurement(self.handle, named, found, StoredMoments(store, self._device, group), store, group)

    def _named(self) -> CalibrationSet:
        """The set that was read: its beginning, where the pass was ended early and that is a set."""
        n_sequences = self.distances.n_sequences
        whole = n_sequences == len(self.calibration.sequences)
        return self.calibration.beginning(n_sequences) if whole or self.can_end else self.calibration

    def _found(self, began: float, padding_share: float) -> Found:
        sums = self.distances
        distances: dict[Positions, DistanceMatrix] = {"all": sums.matrix("all"), "last": sums.matrix("last")}
        return Found(distances, sums.norms(), sums.lengths(), padding_share, time.perf_counter() - began, None)


def _measurement(
    handle: ModelHandle,
    calibration: CalibrationSet,
    found: Found,
    moments: Moments,
    store: ActivationStore | None,
    group: Group = ALONE,
) -> Measurement:
    nothing = TokenSample({}, {})
    n_sequences = found.distances["all"].n_sequences
    return Measurement(
        model_fingerprint=handle.fingerprint,
        calibration_name=calibration.name,
        calibration_fingerprint=calibration.fingerprint,
        distances=found.distances,
        norms=found.norms,
        lengths=found.lengths,
        moments=moments,
        sample=token_sample(store, calibration, heldout=True, group=group) if store else nothing,
        train_sample=token_sample(store, calibration, heldout=False, group=group) if store else nothing,
        n_tokens=found.distances["all"].n_tokens,
        n_heldout_tokens=sum(n for n, out in zip(calibration.lengths[:n_sequences], calibration.heldout[:n_sequences], strict=True) if out),
        padding_share=found.padding_share,
        seconds=found.seconds,
        store=store if group.size == 1 else None,
    )


def _hooked(handle: ModelHandle) -> bool:
    """Whether hooks may make it another model than its fingerprint says, so that its passes are nobody else's."""
    with handle.borrow() as model:
        return capture.is_hooked(model)


def _device(handle: ModelHandle) -> torch.device:
    """Where the sums are: on the CPU for a device without fp64, and where a model is spread over devices, each of which is full."""
    with handle.borrow() as model:
        spread = len(set(getattr(model, "hf_device_map", {}).values())) > 1
        return torch.device("cpu") if spread else exact_device(model.device)


def _require_finite(norms: Tensor, batch: list[int]) -> None:
    """`norms` are sums that a single value that is not finite spoils."""
    finite = norms.isfinite()
    if not finite.all():
        boundary = int((~finite).nonzero()[0])
        raise NumericsError(
            f"The activations at boundary {boundary} are not finite (NaN or infinity) in the batch of sequences {batch[0]} to {batch[-1]}. "
            "Load the model in float32 or bfloat16 instead of float16; if they stay, its weights are damaged."
        )
