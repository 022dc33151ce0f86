"""The one calibration pass: distances, norms, moments and a bounded token sample, from every sequence read once.

Padding is dropped, the LM head skipped, sums are fp64. Only the sums and the sample outlive a batch, so memory does not
grow with the number of calibration tokens (`python -m benchmarks.calibration_pass memory` shows it).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import Measurement, ModelHandle, Points, Span, TokenSample, Weighting
from replaceme_core.calibration.batches import inputs_of, stretches
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.distribution import ALONE, Group
from replaceme_core.errors import NumericsError
from replaceme_core.measurement import moments
from replaceme_core.measurement.budget import DEFAULT_BUDGET, Keep, plan_keep
from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import require_mergeable
from replaceme_core.models.running import capture
from replaceme_core.models.running.limits import require_readable
from replaceme_core.models.running.precision import exact_device
from replaceme_core.plans.plan import KeepChoice
from replaceme_core.progress import SILENT, Progress

_LESS = f"a smaller memory budget (budget_gib) or shorter sequences (max_length); or, for the weights, {memory.HOLD_LESS}"


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
    budget_bytes: int = DEFAULT_BUDGET,
    spans: list[Span] | None = None,
    progress: Progress = SILENT,
    group: Group = ALONE,
    keep: KeepChoice = "auto",
    weightings: Sequence[Weighting] = moments.WEIGHTINGS,
    watch: Watch | None = None,
) -> Measurement:
    """Runs the pass on a borrowed model; a group of processes shares the batches and ends with the same measurement.

    `spans` names what can be fitted afterwards; without it `keep` decides, within the budget (see `plan_keep`). A pass for one
    method only needs its token weights (`budget.weightings_of`): half the sums.
    The set is read in its own order, watched or not, so that the figures are the same to the last bit. Where a watched
    pass is ended early, the measurement is that of the first sequences, `calibration.beginning(...)`.
    Raises `NumericsError` where activations are not finite.
    """
    assert watch is None or group.size == 1, "a pass that processes share is not watched"
    require_mergeable(handle.family)
    if not calibration.positions:
        require_readable(handle, calibration.sequences)
    group.require_same(f"{calibration.fingerprint} on {handle.fingerprint}", "calibration tokens and model")
    kept = plan_keep(handle.n_blocks, handle.width, budget_bytes, spans, keep, weightings)
    parts = list(stretches(calibration, kept.positions))
    if group.size > 1:  # the same batches as alone, dealt out
        parts = [[batch for part in parts for batch in part]]
    n_batches, chosen = sum(map(len, parts)), list[list[int]]()
    began = time.perf_counter()
    with memory.told("for the calibration pass", _LESS, lambda: f"beside the weights it keeps {memory.size(kept.n_bytes)}"):
        sums = _Sums(handle, calibration, kept, weightings)
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
        sums.unite(group)
    padded = sum(len(batch) * max(calibration.lengths[i] for i in batch) for batch in chosen)
    return replace(
        sums.measured(began),
        moments=sums.moments.result(),
        sample=sums.token_sample(heldout=True),
        train_sample=sums.token_sample(heldout=False),
        padding_share=1 - sums.distances.n_tokens / padded,
    )


class _Sums:
    """Everything that the pass adds up, batch by batch, on the model's device where that has fp64 and holds the whole model."""

    def __init__(self, handle: ModelHandle, calibration: CalibrationSet, keep: Keep, weightings: Sequence[Weighting]) -> None:
        self._handle, self._calibration = handle, calibration
        self._device = _device(handle)
        self._keep = keep
        self.distances = moments.DistanceSums(handle.n_blocks + 1, modality.of(handle.family).summary)
        self.moments = moments.MomentSums(keep.spans, handle.width, self._device, weightings)
        self._picked = {True: _pick(calibration, keep.sample_tokens, True), False: _pick(calibration, keep.train_tokens, False)}
        n_points = len(keep.boundaries) + len(keep.carriers)
        self._samples = {part: _Store(n_points, picked, handle.width) for part, picked in self._picked.items()}

    def add(self, batch: list[int]) -> None:
        """One forward pass of the sequences numbered in `batch`."""
        ids, mask = inputs_of(self._calibration, batch)
        real = mask.bool().flatten().nonzero().squeeze(1)
        picked = {part: real[torch.cat([picks[i] for i in batch])] for part, picks in self._picked.items()}
        with self._handle.borrow() as model:
            states = capture.read_states(
                model,
                self._handle.family,
                ids.to(model.device),
                mask.to(model.device),
                writers=self._keep.carriers,
            )
        for part, positions in picked.items():
            kept = [*(states.boundaries[i] for i in self._keep.boundaries), *(states.writers[i] for i in self._keep.carriers)]
            self._samples[part].add([state.flatten(0, 1)[positions.to(state.device)] for state in kept], self._origin(batch, part))
        boundaries = [self._rows(state, real) for state in states.boundaries]
        writers = {block: self._rows(written, real) for block, written in states.writers.items()}
        lengths = mask.sum(1)
        self.distances.update(boundaries, lengths.tolist())
        _require_finite(self.distances.norms(), batch)
        heldout = torch.tensor([self._calibration.heldout[i] for i in batch]).repeat_interleave(lengths)
        first = lengths.cumsum(0) - lengths if self._calibration.skip_first else lengths[:0]
        self.moments.update(boundaries, writers, heldout, first)

    def _origin(self, batch: list[int], part: bool) -> Tensor:
        """[tokens, 2]: sequence and place of the tokens of one batch that are stored."""
        places = [self._picked[part][index].nonzero().squeeze(1) for index in batch]
        return torch.cat([torch.stack([torch.full_like(own, index), own], 1) for index, own in zip(batch, places, strict=True)])

    def _rows(self, state: Tensor, real: Tensor) -> Tensor:
        """[tokens, width] on the device of the sums. Padding is dropped in place, so that no second copy of a batch is made."""
        flat = state.flatten(0, 1).to(self._device)
        if len(real) < len(flat):
            flat[: len(real)] = flat[real.to(self._device)]
        return flat[: len(real)]

    @property
    def can_end(self) -> bool:
        """Whether tokens of both parts were read, and some stored where tokens are stored."""
        n_read = self.distances.n_sequences
        stored = all(store.n_filled for part, store in self._samples.items() if any(map(torch.any, self._picked[part])))
        return set(self._calibration.heldout[:n_read]) == {True, False} and stored

    def measured(self, began: float) -> Measurement:
        """What is known of the sequences that were read, without moments and stored tokens. `began`: by `time.perf_counter`."""
        n_sequences = self.distances.n_sequences
        whole = n_sequences == len(self._calibration.sequences)
        read = zip(self._calibration.lengths[:n_sequences], self._calibration.heldout[:n_sequences], strict=True)
        named = self._calibration.beginning(n_sequences) if whole or self.can_end else self._calibration
        empty = TokenSample(Points(), Points())
        return Measurement(
            model_fingerprint=self._handle.fingerprint,
            calibration_name=named.name,
            calibration_fingerprint=named.fingerprint,
            distances={"all": self.distances.matrix("all"), "last": self.distances.matrix("last")},
            norms=self.distances.norms(),
            lengths=self.distances.lengths(),
            moments=moments.KeptMoments(),
            sample=empty,
            train_sample=empty,
            n_tokens=self.distances.n_tokens,
            n_heldout_tokens=sum(n for n, out in read if out),
            padding_share=0.0,
            seconds=time.perf_counter() - began,
            kept=self._keep.words,
        )

    def unite(self, group: Group) -> None:
        """Adds up what all processes have seen."""
        self.distances.unite(group)
        self.moments.unite(group)
        for store in self._samples.values():
            store.unite(group)

    def token_sample(self, heldout: bool) -> TokenSample:
        points, origin = self._samples[heldout].points()
        cut = len(self._keep.boundaries)
        boundaries, writers = zip(self._keep.boundaries, points[:cut], strict=True), zip(self._keep.carriers, points[cut:], strict=True)
        return TokenSample(Points(boundaries), Points(writers), origin)


class _Store:
    """Stored tokens in memory that is taken once: [points, tokens, width], float32 on the CPU; boundaries, then writers."""

    def __init__(self, n_points: int, picked: list[Tensor], width: int) -> None:
        self._values = torch.empty(n_points, int(sum(picks.sum() for picks in picked)), width)
        self._origin = torch.empty(self._values.shape[1], 2, dtype=torch.long)
        self._filled = 0

    def add(self, states: list[Tensor], origin: Tensor) -> None:
        """The chosen tokens of one batch, [tokens, width] at every point, and where they stand."""
        until = self._filled + len(origin)
        for point, state in zip(self._values, states, strict=True):
            point[self._filled : until] = state
        self._origin[self._filled : until] = origin
        self._filled = until

    def unite(self, group: Group) -> None:
        """The tokens of all processes."""
        if group.size > 1:
            self._values = torch.cat(group.gather(self._values[:, : self._filled].clone()), 1)
            self._origin = torch.cat(group.gather(self._origin[: self._filled].clone()))
            self._filled = self._values.shape[1]

    @property
    def n_filled(self) -> int:
        """Tokens that are stored."""
        return self._filled

    def points(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The stored tokens at every point, and where they stand."""
        return self._values[:, : self._filled].unbind(0), self._origin[: self._filled]


def _device(handle: ModelHandle) -> torch.device:
    """Where the sums are: on the CPU for a device without fp64, and where a model is spread over devices, each of which is full."""
    with handle.borrow() as model:
        spread = len(set(getattr(model, "hf_device_map", {}).values())) > 1
        return torch.device("cpu") if spread else exact_device(model.device)


def _pick(calibration: CalibrationSet, limit: int, part: bool) -> list[Tensor]:
    """For each sequence, which of its tokens are stored: those of one part only, `limit` in all, drawn evenly."""
    lengths = [n if out == part else 0 for n, out in zip(calibration.lengths, calibration.heldout, strict=True)]
    chosen = torch.zeros(sum(lengths), dtype=torch.bool)
    chosen[torch.randperm(sum(lengths), generator=torch.Generator().manual_seed(0))[:limit]] = True
    parts = chosen.split(lengths)
    if calibration.skip_first:
        for own in parts:
            own[:1] = False
    return [
        own if out == part else torch.zeros(n, dtype=torch.bool)
        for own, n, out in zip(parts, calibration.lengths, calibration.heldout, strict=True)
    ]


def _require_finite(norms: Tensor, batch: list[int]) -> None:
    """`norms` are sums that a single value that is not finite spoils."""
    finite = norms.isfinite()
    if not finite.all():
        boundary = int((~finite).nonzero()[0])
        raise NumericsError(
            f"The activations at boundary {boundary} are not finite (NaN or infinity) in the batch of sequences {batch[0]} to {batch[-1]}. "
            "Load the model in float32 or bfloat16 instead of float16; if they stay, its weights are damaged."
        )
