"""LLM-Streamline (arXiv 2403.19135): the window that turns the stream least gives way to one block, which is trained. This is training.

The window H_s -> H_e with the highest mean cosine goes; a block of the same kind, which starts as the window's first one, learns to
give H_e for H_s by mean squared error. n blocks fewer are n + 1 in the window and the trained one in their place, so that the
result has the shapes of a plain cut, and before the first step it is one. AdamW; the weights of the least held-out error are
kept, which the paper does not do (it trains on far more text), and if no step lowers it the plain cut stays.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from replaceme_core import memory
from replaceme_core.baselines.interface import Choice, Request
from replaceme_core.errors import NumericsError
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.progress import Progress
from replaceme_core.refit.streams import StreamBatch, Streams

STEPS = 200
_LOOKS = 10
_RATE = 0.0128
"""highest learning rate times the square root of the width: Adam moves every number by about the rate"""


def choose(request: Request, steps: int = STEPS) -> Choice:
    """The window, and the weights of the block that was trained to take its place."""
    n = request.check(1).n_blocks
    distances = request.measured().distances["all"].values
    first = min(range(request.handle.n_blocks - n), key=lambda start: float(distances[start, start + n + 1]))
    last = first + n + 1
    with memory.told("to train a block", "fewer calibration tokens (max_tokens)"):
        streams = Streams(request.handle, request.calibration, first, {last}, last, request.progress)
        trained = train(streams, first, last, steps, request)
    figures = {"window": [first, last], "cosine": 1 - float(distances[first, last]), "loss": trained.points, "best_step": trained.best}
    notes = (
        () if trained.best else ("No step lowered the held-out error, so that nothing but the cut is left. Use more calibration tokens.",)
    )
    return Choice(tuple(range(first + 1, last)), trained.weights, figures=figures, notes=notes, spent=request.spent)


@dataclass(frozen=True, eq=False)
class Trained:
    weights: dict[str, Tensor]
    points: list[dict[str, float]]
    """step, train and held-out mean squared error"""
    best: int


def train(streams: Streams, first: int, last: int, steps: int, request: Request) -> Trained:
    """Moves all weights of block `first` until it gives the stream at `last` for the one at `first`; masters in float32."""
    with request.handle.borrow() as model:
        block = blocks_of(model, request.handle.family)[first]
        start = {name: value for name, value in block.named_parameters() if value.is_floating_point()}
    moving = {name: value.detach().float().clone().requires_grad_() for name, value in start.items()}

    def loss(batch: StreamBatch, part: bool) -> tuple[Tensor, int]:
        own = batch.part(part).to(streams.device)
        values = {name: value.to(start[name].dtype) for name, value in moving.items()}
        with request.handle.borrow():
            out = batch.calls[first].run(block, batch.at[first].to(streams.device), values)
        missed = out.float()[own] - batch.at[last].to(streams.device).float()[own]
        return missed.square().sum() / out.shape[-1], len(missed)

    def mean(part: bool) -> float:
        with torch.no_grad():
            parts = [loss(batch, part) for batch in streams.batches]
        return float(sum(value for value, _ in parts)) / max(1, sum(count for _, count in parts))

    points = [{"step": 0, "train": mean(False), "heldout": mean(True)}]
    best, kept = 0, {name: value.detach().clone() for name, value in moving.items()}
    optimiser = torch.optim.AdamW(list(moving.values()), lr=_RATE / request.handle.width**0.5, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / max(1, steps)))
    usable = [batch for batch in streams.batches if batch.part(False).any()]
    for step, number in enumerate(_order(len(usable), steps, request.seed), start=1):
        with torch.enable_grad():
            value, count = loss(usable[number], False)
            optimiser.zero_grad()
            (value / count).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        _tell(request.progress, step, steps)
        if step % max(1, steps // _LOOKS) == 0 or step == steps:
            points.append({"step": step, "train": mean(False), "heldout": mean(True)})
            if not math.isfinite(points[-1]["heldout"]):
                raise NumericsError("The training of the block gave numbers that are not finite; load the model in float32.")
            if points[-1]["heldout"] < min(point["heldout"] for point in points[:-1]):
                best, kept = step, {name: value.detach().clone() for name, value in moving.items()}
    weights = {f"{first}.{name}": value.to(start[name].dtype) for name, value in kept.items()} if best else {}
    return Trained(weights, points, best)


def _order(count: int, steps: int, seed: int) -> list[int]:
    """Batches in a new order every round."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(count, generator=generator).tolist() for _ in range(-(-steps // count))]
    return [number for each in rounds for number in each][:steps]


def _tell(progress: Progress, step: int, steps: int) -> None:
    progress.update(step, steps, "steps", "training the block (LLM-Streamline)")
