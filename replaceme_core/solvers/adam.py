"""Adam, as the paper steps: learning rate 1e-4, 10 passes over the stored tokens in batches of 1024, from T = I, in float32.

For comparison: `cosine` reaches a lower held-out loss in a fraction of the time (benchmarks/solvers.py). An l1 penalty enters
by its subgradient, so that no entry of T becomes exactly 0; 'proximal' makes them so.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.plans.plan import MethodSection
from replaceme_core.progress import Progress
from replaceme_core.solvers.descent import Descent, concluded, limit_of
from replaceme_core.solvers.objectives import Directions, Objective, Pinned, Shrunk, Squares, objective_of, require_stored

RATE, BATCH = 1e-4, 1024


def solve(measurement: Measurement, span: Span, section: MethodSection, progress: Progress) -> LinearTransform:
    """Adam on the stored train tokens; `max_iterations` counts passes over them."""
    began = time.perf_counter()
    objective = Shrunk(objective_of(measurement, span, section.objective), section.l2)
    require_stored(measurement)
    batch = _batches(measurement, span, section)
    n_tokens, width = measurement.train_sample.writers[span.carrier].shape
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(width)
    optimiser = torch.optim.Adam([matrix], lr=RATE)
    passes, steps = limit_of(section), 0
    for number in range(passes):
        for rows in torch.randperm(n_tokens, generator=generator).split(BATCH):
            _value, gradient = Shrunk(batch(rows), section.l2).value_and_gradient(matrix)
            matrix.grad = gradient + section.l1 / width * matrix.sign()
            optimiser.step()
            steps += 1
        progress.update(number + 1, passes, "passes", "Adam")
    fitted = matrix.double()
    seconds = time.perf_counter() - began
    return concluded(measurement, span, section, objective, Descent(fitted, steps, seconds))


def _batches(measurement: Measurement, span: Span, section: MethodSection) -> Callable[[Tensor], Objective]:
    """From row numbers to the loss on those stored tokens."""
    sample, loss = measurement.train_sample, section.objective
    if loss in ("cosine", "cosine_simplified"):
        tokens = Directions.of(sample, span, loss == "cosine_simplified", torch.float32)
        return tokens.rows if loss == "cosine" else lambda rows: Pinned(tokens.rows(rows))
    written, end = sample.writers[span.carrier].float(), sample.boundaries[span.end].float()
    target = end - sample.boundaries[span.start].float() + written
    weight = 1 / end.norm(dim=-1, keepdim=True).clamp_min(1e-30) if loss == "relative_mse" else torch.ones(len(end), 1)
    return lambda rows: Squares.over(written[rows], target[rows], weight[rows])
