"""All weights of one block moved by L-BFGS (torch.optim) until its output is the target: gradient steps, but of one block only.

The loss is the mean over train tokens of |out - target|^2 / |target|^2. It is looked at on the held-out tokens every few
iterations; the weights with the least held-out loss are kept, and the descent ends when it rises.
"""

import torch
from torch import Tensor, nn

from replaceme_core.errors import NumericsError
from replaceme_core.refit.streams import StreamBatch, Streams, Targets

_CHUNK = 5
"""iterations between two looks at the held-out tokens"""
_HISTORY = 20
_LEAST_HISTORY = 3


def descend(streams: Streams, block: nn.Module, number: int, targets: Targets, iterations: int, budget_bytes: int) -> tuple[float, float]:
    """Moves the block's parameters in place of new ones; returns the held-out error before and after."""
    start = {name: parameter for name, parameter in block.named_parameters() if parameter.is_floating_point()}
    moving = {name: parameter.detach().float().clone().requires_grad_() for name, parameter in start.items()}
    count = {part: sum(int(batch.part(part).sum()) for batch in streams.batches) for part in (False, True)}

    def loss(batch: StreamBatch, part: bool) -> Tensor:
        own = batch.part(part).to(streams.device)
        values = {name: value.to(start[name].dtype) for name, value in moving.items()}
        out = batch.calls[number].run(block, batch.pruned.to(streams.device), values)
        goal = targets(batch).to(streams.device).float()[own]
        weight = 1 / goal.square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)
        return (weight * (out.float()[own] - goal).square().sum(-1)).sum() / max(1, count[part])

    def heldout() -> float:
        with torch.no_grad():
            return float(sum(loss(batch, True) for batch in streams.batches))

    optimiser = torch.optim.LBFGS(
        list(moving.values()),
        max_iter=_CHUNK,
        history_size=_history(moving, budget_bytes),
        line_search_fn="strong_wolfe",
        tolerance_change=0.0,
    )

    def closure() -> float:
        optimiser.zero_grad()
        total = 0.0
        for batch in streams.batches:
            part = loss(batch, False)
            part.backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
        return total

    before = least = heldout()
    best: dict[str, Tensor] = {}
    with torch.enable_grad():
        for _ in range(0, iterations, _CHUNK):
            optimiser.step(closure)  # type: ignore[arg-type]
            now = heldout()
            if not now < least:
                break
            least, best = now, {name: value.detach().clone() for name, value in moving.items()}
    for name, value in best.items():
        parent, _, leaf = name.rpartition(".")
        setattr(block.get_submodule(parent), leaf, nn.Parameter(value.to(start[name].dtype), requires_grad=False))
    return before, least


def _history(moving: dict[str, Tensor], budget_bytes: int) -> int:
    """Steps that L-BFGS remembers: as many as the budget holds."""
    one = 2 * sum(4 * value.numel() for value in moving.values())
    affordable = budget_bytes // one
    if affordable < _LEAST_HISTORY:
        raise NumericsError(
            f"Gradient steps on a block of this size need {_LEAST_HISTORY * one / 2**20:,.0f} MiB for what they remember; there are "
            f"{budget_bytes / 2**20:,.0f} MiB. Free memory, or choose 'sequential_refit', which needs none."
        )
    return min(_HISTORY, affordable)
