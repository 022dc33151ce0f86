"""KL(reference || own) of next-token probabilities: the one place where it is computed, for figures and for training alike.

A few positions at a time, so that nothing as large as the logits is kept beside them. Exponentials are in float32 (in the precision of
the logits if that is more), logarithms and sums over the vocabulary in float64: within 1e-6 nats of float64 throughout (tests). What is
not finite is an error and never a figure: a NaN is neither more nor less than any other model, so that it could come out first.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from replaceme_core.errors import NumericsError

_NUMBERS = 2**22
"""of one chunk of logits, 16 MiB in float32"""
WAY_OUT = "Load the model in float32 or bfloat16 instead of float16; if they stay, its weights are damaged."
"""the knob of every activation that is not finite"""


def divergences(
    reference: Float[Tensor, "*positions vocabulary"],
    own: Float[Tensor, "*positions vocabulary"],
    counted: Bool[Tensor, "*positions"] | None = None,
) -> Float64[Tensor, " counted"]:
    """sum p (log p - log q) in nats at every counted position (all of them, if nothing is said), of two models' logits.

    Gradients flow to `own`: q - p. On MPS, which has no fp64, the sums are fp32. Raises `NumericsError` where one is not finite.
    """
    left, right = reference.detach().flatten(0, -2), own.flatten(0, -2)
    rows = torch.arange(len(right), device=right.device) if counted is None else counted.flatten().nonzero().squeeze(1).to(right.device)
    found: Tensor = _Divergence.apply(left, right, rows)
    finite = found.detach().isfinite()
    if not finite.all():
        raise NumericsError(
            f"The next-token scores (logits) of one of the two models are not finite (NaN or infinity) at {int((~finite).sum()):,} of "
            f"{len(found):,} positions, so that their KL has no value. {WAY_OUT}"
        )
    return found


def log_likelihoods(
    logits: Float[Tensor, "positions vocabulary"], ids: Int64[Tensor, "positions *choices"]
) -> Float64[Tensor, "positions *choices"]:
    """log p of one token at each position, or of several, in nats."""
    found = []
    chosen = ids.to(logits.device).view(len(ids), -1)
    for rows in torch.arange(len(logits), device=logits.device).split(_rows(logits)):
        scores = _precise(logits[rows])
        found.append(scores.gather(-1, chosen[rows]).to(_exact(logits)) - _normaliser(scores)[0].unsqueeze(-1))
    return torch.cat(found).view(ids.shape)


def require_finite(logits: Float[Tensor, "positions vocabulary"], name: str) -> None:
    """A `NumericsError` that names the model, if any of its logits is NaN or infinite."""
    if all(float(end) - float(end) == 0 for end in logits.aminmax()):
        return
    wrong = sum(int((~part.isfinite()).any(-1).sum()) for part in logits.split(_rows(logits)))
    raise NumericsError(
        f"The next-token scores (logits) of '{name}' are not finite (NaN or infinity) at {wrong:,} of {len(logits):,} positions, so that "
        f"no figure can be made of them. {WAY_OUT}"
    )


class _Divergence(torch.autograd.Function):
    """KL row by row; the gradient is closed, so that no table of probabilities waits for it."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, rows: Tensor) -> Tensor:
        slope = torch.zeros_like(right) if ctx.needs_input_grad[1] else None
        found = torch.zeros(len(rows), dtype=_exact(right), device=right.device)
        for places in torch.arange(len(rows), device=right.device).split(_rows(right)):
            p, q = (_precise(logits[rows[places].to(logits.device)]).to(right.device) for logits in (left, right))
            (p_scale, p_share), (q_scale, q_share) = _normaliser(p), _normaliser(q)
            ratio = (p.to(found.dtype) - q).add_((q_scale - p_scale).unsqueeze(-1))  # log p - log q
            found[places] = (ratio.mul_(p_share).sum(-1) / p_share.sum(-1, dtype=found.dtype)).clamp_min(0)
            if slope is not None:
                shares = (share / share.sum(-1, keepdim=True) for share in (q_share, p_share))
                slope[rows[places]] = torch.sub(*shares).to(slope.dtype)
        ctx.slope, ctx.rows = slope, rows
        return found

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[None, Tensor, None]:
        slope, ctx.slope = ctx.slope, None  # it is as large as the logits, so that it is scaled in place, once
        scale = torch.zeros(len(slope), dtype=slope.dtype, device=slope.device)
        scale[ctx.rows] = above[0].to(slope.dtype)
        return None, slope.mul_(scale.unsqueeze(-1)), None


def _normaliser(scores: Tensor) -> tuple[Tensor, Tensor]:
    """log sum exp of each row, exactly, and exp(row - its greatest)."""
    top = scores.amax(-1, keepdim=True)
    share = (scores - top).exp()
    exact = _exact(scores)
    return top.squeeze(-1).to(exact) + share.sum(-1, dtype=exact).log(), share


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _exact(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.device.type == "mps" else torch.float64


def _rows(logits: Tensor) -> int:
    return max(1, _NUMBERS // logits.shape[-1])
