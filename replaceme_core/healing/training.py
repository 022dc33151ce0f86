"""The training loop: AdamW on KL(original || pruned) per token, with a look at the held-out tokens every few steps.

Rate: linear warm-up, then a cosine to 0. Gradients are clipped. Order of the sequences and rate are functions of the step, so
that a checkpoint is the moving numbers, AdamW's sums and the curve so far.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import NumericsError
from replaceme_core.figures import number
from replaceme_core.healing import checkpoints, tokens
from replaceme_core.healing.healers import Healer
from replaceme_core.healing.state import State
from replaceme_core.healing_report import HealingPoint
from replaceme_core.models.running.divergence import divergences
from replaceme_core.plans.plan import HealingSection
from replaceme_core.progress import Progress

_WARM_UP = 0.1
_CLIP = 1.0
_DECAY = 0.01
"""of the update, so that it pulls toward the variant"""
_LOOKS = 20
WHAT = "healing (training)"


@dataclass(frozen=True, eq=False)
class Trained:
    """The curve; the healer holds the numbers of step `best`."""

    points: tuple[HealingPoint, ...]
    best: int
    seconds: float


def train(
    original: ModelHandle,
    healer: Healer,
    calibration: CalibrationSet,
    section: HealingSection,
    progress: Progress,
    folder: Path | None,
) -> Trained:
    """Trains, and leaves the healer with the numbers of the least held-out KL. Raises `NumericsError` when the loss is not finite."""
    run = _Run(original, healer, tokens.of(calibration, section), section, progress)
    state = State(healer.parameters, torch.optim.AdamW(healer.parameters, weight_decay=_DECAY))
    identity = checkpoints.identity(original, healer.started_from, calibration, section)
    if folder is not None:
        checkpoints.read(folder, identity, state)
    began = time.perf_counter() - state.seconds
    every = max(1, section.steps // _LOOKS)
    if not state.points:
        run.look(state, None)
    losses: list[float] = []
    while state.step < section.steps:
        losses.append(run.step(state))
        if state.step % every == 0 or state.step == section.steps:
            run.look(state, sum(losses) / len(losses))
            losses = []
            state.seconds = time.perf_counter() - began
            if folder is not None:
                checkpoints.write(folder, identity, state)
    progress.update(section.steps, section.steps, "steps", WHAT)
    with torch.no_grad():
        for parameter, value in zip(state.parameters, state.kept, strict=True):
            parameter.copy_(value)
    return Trained(tuple(state.points), state.best, time.perf_counter() - began)


class _Run:
    """One step, and one look, with both models borrowed in turn."""

    def __init__(self, original: ModelHandle, healer: Healer, data: tokens.Tokens, section: HealingSection, progress: Progress) -> None:
        self._original, self._healer, self._data, self._section, self._progress = original, healer, data, section, progress

    def step(self, state: State) -> float:
        """One update; returns the mean KL of its tokens before it."""
        self._tell(state)
        batch = self._data.batch(state.step)
        with torch.enable_grad():
            total = self._kl(batch, state)
            gradients = torch.autograd.grad(total, state.parameters)
        for parameter, found in zip(state.parameters, gradients, strict=True):
            parameter.grad = found / batch.n_counted
        if not math.isfinite(float(torch.nn.utils.clip_grad_norm_(state.parameters, _CLIP))):
            raise self._stopped(state)
        for group in state.optimiser.param_groups:
            group["lr"] = rate_at(state.step, self._section)
        state.optimiser.step()
        state.optimiser.zero_grad()
        state.step += 1
        state.n_tokens += batch.n_tokens
        return float(total.detach()) / batch.n_counted

    def look(self, state: State, train: float | None) -> None:
        """Adds a point to the curve, and keeps the numbers if the held-out KL is the least so far."""
        total = count = 0.0
        for batch in self._data.heldout:
            self._tell(state)
            with torch.no_grad():
                total += float(self._kl(batch, state))
            count += batch.n_counted
        if not state.points or total / count < min(point.heldout for point in state.points):
            state.best, state.kept = state.step, [parameter.detach().clone() for parameter in state.parameters]
        state.points.append(HealingPoint(state.step, state.n_tokens, train, total / count))

    def _kl(self, batch: tokens.TokenBatch, state: State) -> Tensor:
        """The sum of KL(original || pruned) over the counted positions; gradients flow to what moves."""
        with self._original.borrow() as model:
            ids, mask = batch.ids.to(model.device), batch.mask.to(model.device)
            with torch.no_grad():
                reference = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        try:
            return divergences(reference, self._healer.logits(ids, mask), batch.counted).sum()
        except NumericsError as error:
            raise self._stopped(state) from error

    def _tell(self, state: State) -> None:
        self._progress.update(state.step, self._section.steps, "steps", WHAT)

    def _stopped(self, state: State) -> NumericsError:
        return NumericsError(
            f"The loss or its gradient was not finite at step {state.step}, so the healing (training) stopped and nothing was changed. "
            f"Choose a lower rate (now {number(self._section.rate or 0, 6)}), or float32 or bfloat16 instead of float16."
        )


def rate_at(step: int, section: HealingSection) -> float:
    """The learning rate of step 0 ... steps-1."""
    warm = max(1, round(_WARM_UP * section.steps))
    falling = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, section.steps - warm)))
    return (section.rate or 0.0) * ((step + 1) / warm if step < warm else falling)
