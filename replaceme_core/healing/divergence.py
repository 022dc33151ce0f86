"""KL(original || pruned) of next-token probabilities and its gradient, a few hundred rows at a time: nothing as large as the logits is kept."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from replaceme_core.models.precision import finest_dtype

_ROWS = 256


def divergence(
    reference: Float[Tensor, "batch length vocabulary"],
    own: Float[Tensor, "batch length vocabulary"],
    counted: Bool[Tensor, "batch length"],
    gradient: bool,
) -> tuple[float, Float[Tensor, "batch length vocabulary"] | None]:
    """The sum over counted positions of sum p (log p - log q), in nats, and its gradient by q's logits, which is q - p.

    In fp64 (fp32 on a device that has no more, as Apple's MPS). A token of probability 0 under p counts nothing.
    """
    exact = finest_dtype(own.device)
    left, right = reference.flatten(0, 1), own.flatten(0, 1)
    slope = torch.zeros_like(right) if gradient else None
    total = 0.0
    for rows in counted.flatten().nonzero().squeeze(1).to(own.device).split(_ROWS):
        p, q = left[rows].to(exact).log_softmax(-1), right[rows].to(exact).log_softmax(-1)
        share = p.exp()
        total += float(torch.where(share > 0, share * (p - q), 0.0).sum())
        if slope is not None:
            slope[rows] = (q.exp() - share).to(slope.dtype)
    return total, None if slope is None else slope.view_as(own)
