"""The cosine objective by gradient steps, as the paper does it: Adam, 10 epochs, batches of 1024 tokens, from T = I.

Kept for comparison: `cosine` reaches a lower held-out loss in a fraction of the time (benchmarks/solvers.py).
"""

import math
import time

import torch

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.errors import NumericsError
from replaceme_core.solvers.cosine import tokens_of
from replaceme_core.solvers.evidence import report

RATE, EPOCHS, BATCH = 1e-4, 10, 1024


def solve(measurement: Measurement, span: Span, _ridge: float | None = None) -> LinearTransform:
    """Adam on the stored train tokens (arXiv 2505.02819: learning rate 1e-4, 10 epochs, batch 1024, T0 = I)."""
    began = time.perf_counter()
    train, heldout = tokens_of(measurement, span)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(train.written.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([matrix], lr=RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train.written), generator=generator).split(BATCH):
            optimiser.zero_grad()
            patched = train.written[rows] @ matrix + train.beside[rows]
            loss = (1 - torch.nn.functional.cosine_similarity(patched, train.unit[rows], dim=-1)).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    fitted = matrix.detach()
    if not math.isfinite(heldout.loss(fitted)):
        raise NumericsError("Adam left the finite numbers; use the method 'cosine' or 'weighted_least_squares'.")
    notes: tuple[str, ...] = ()
    if heldout.loss(fitted) > 0.98 * heldout.loss(torch.eye(len(fitted), dtype=torch.float64)):
        notes = (
            f"{EPOCHS} epochs on {len(train.written):,} tokens hardly moved T from the identity; use more tokens, or the method 'cosine'.",
        )
    moments = measurement.moments[span, "end_norm"]
    seconds = time.perf_counter() - began
    evidence = report(measurement, span, moments, fitted, condition=1.0, rank=len(fitted), ridge=0.0, seconds=seconds, notes=notes)
    return LinearTransform(span, "cosine_adam", fitted, evidence)
