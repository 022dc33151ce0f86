"""The training loop: AdamW on KL(original || pruned) per token, with a look at the held-out tokens every few steps.

Rate: linear warm-up, then a cosine to 0. Gradients are clipped. Order of the sequences and rate are functions of the step, so
that a checkpoint is the moving numbers, AdamW's sums and the curve so far.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import NumericsError
from replaceme_core.healing import checkpoints, tokens
from replaceme_core.healing.divergence import divergence
from replaceme_core.healing.healers import Healer
from replaceme_core.healing_report import HealingPoint
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


@dataclass(eq=False)
class State:
    """Everything that the next step depends on, and the best so far."""

    parameters: list[nn.Parameter]
    optimiser: torch.optim.AdamW
    step: int = 0
    n_tokens: int = 0
    points: list[HealingPoint] = field(default_factory=list)
    best: int = 0
    kept: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """All of it that is a tensor, by number of the parameter and name."""
        found: dict[str, Tensor] = {}
        for number, parameter in enumerate(self.parameters):
            found |= {f"{number}.value": parameter.detach(), f"{number}.kept": self.kept[number]}
            found |= {f"{number}.{name}": value for name, value in self.optimiser.state[parameter].items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        self.kept = []
        for number, parameter in enumerate(self.parameters):
            own = {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == str(number)}
            with torch.no_grad():
                parameter.copy_(own.pop("value"))
            self.kept.append(own.pop("kept").to(parameter.device))
            self.optimiser.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in own.items()}


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
            reference, own = self._both(batch)
            total, gradient = divergence(reference, own.detach(), batch.counted, True)
            loss = total / batch.n_counted
            self._require_finite(loss, state)
            gradients = torch.autograd.grad(own, state.parameters, gradient)
        for parameter, found in zip(state.parameters, gradients, strict=True):
            parameter.grad = found / batch.n_counted
        norm = float(torch.nn.utils.clip_grad_norm_(state.parameters, _CLIP))
        self._require_finite(norm, state)
        for group in state.optimiser.param_groups:
            group["lr"] = rate_at(state.step, self._section)
        state.optimiser.step()
        state.optimiser.zero_grad()
        state.step += 1
        state.n_tokens += batch.n_tokens
        return loss

    def look(self, state: State, train: float | None) -> None:
        """Adds a point to the curve, and keeps the numbers if the held-out KL is the least so far."""
        total = count = 0.0
        for batch in self._data.heldout:
            self._tell(state)
            with torch.no_grad():
                total += divergence(*self._both(batch), batch.counted, False)[0]
            count += batch.n_counted
        self._require_finite(total, state)
        if not state.points or total / count < min(point.heldout for point in state.points):
            state.best, state.kept = state.step, [parameter.detach().clone() for parameter in state.parameters]
        state.points.append(HealingPoint(state.step, state.n_tokens, train, total / count))

    def _both(self, batch: tokens.Batch) -> tuple[Tensor, Tensor]:
        """Logits of the original, without a graph, and of the pruned model."""
        with self._original.borrow() as model:
            ids, mask = batch.ids.to(model.device), batch.mask.to(model.device)
            with torch.no_grad():
                reference = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return reference, self._healer.logits(ids, mask)

    def _tell(self, state: State) -> None:
        self._progress.update(state.step, self._section.steps, "steps", WHAT)

    def _require_finite(self, value: float, state: State) -> None:
        if not math.isfinite(value):
            raise NumericsError(
                f"The loss or its gradient was not finite at step {state.step}, so the healing (training) stopped and nothing was changed. "
                f"Choose a lower rate (now {self._section.rate:.1e}), or float32 or bfloat16 instead of float16."
            )


def rate_at(step: int, section: HealingSection) -> float:
    """The learning rate of step 0 ... steps-1."""
    warm = max(1, round(_WARM_UP * section.steps))
    falling = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, section.steps - warm)))
    return (section.rate or 0.0) * ((step + 1) / warm if step < warm else falling)
