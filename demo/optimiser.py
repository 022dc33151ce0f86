"""Muon for the block matrices, AdamW for the rest, and the learning-rate schedule.

Muon (Jordan et al., 2024) replaces a matrix's momentum by the nearest semi-orthogonal matrix, found by a few
Newton-Schulz steps; on small transformers it needs clearly fewer tokens than AdamW for the same loss.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly, to a (count, rows, columns) stack with rows <= columns."""
    a, b, c = COEFFICIENTS
    # bf16 is enough (the steps contract errors) and three times faster on a CPU that multiplies it.
    x = (stack / (stack.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum 0.95 with Nesterov look-ahead, orthogonalised in stacks of equal shape; weight decay decoupled."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float = 0.01):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self) -> None:
        """One update of every matrix."""
        group = self.param_groups[0]
        by_shape = defaultdict(list)
        for p in group["params"]:
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.lerp_(p.grad, 1 - group["momentum"])
            by_shape[tuple(sorted(p.shape))].append((p, p.grad.lerp(momentum, group["momentum"])))
        for (small, large), pairs in by_shape.items():
            flat = [g if g.shape[0] == small else g.T for _, g in pairs]
            updates = orthogonalise(torch.stack(flat))
            for (p, g), update in zip(pairs, updates, strict=True):
                scale = 0.4 * large**0.5  # update root-mean-square 0.4 x rate, so that one rate serves AdamW too
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update if g.shape[0] == small else update.T, alpha=-group["lr"] * scale)


def build(model: nn.Module, rate: float, kind: str = "muon", weight_decay: float = 0.01) -> list[torch.optim.Optimizer]:
    """The optimisers of a model: Muon on the 2-D weights of the blocks, AdamW on embeddings and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    outer = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    if kind == "adamw":
        groups = [{"params": inner, "weight_decay": weight_decay}, {"params": outer, "weight_decay": 0.0}]
        return [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))]
    adamw = torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(inner, lr=rate, weight_decay=weight_decay), adamw]


def schedule(progress: float, step: int, warmup: int = 60, decay: float = 0.3) -> float:
    """Warm-up over the first steps, constant, then linear to zero over the last `decay` of the time budget."""
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, (1 - progress) / decay))
