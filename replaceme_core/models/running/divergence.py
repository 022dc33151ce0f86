"""KL(reference || own) of next-token probabilities: the one place where it is computed, for figures and for training alike.

Single positions and training (`divergences`): a few positions at a time in float64 (float32 on MPS, which has no more), so that nothing as
large as the logits is kept beside them. Means over many tokens (`Table`): terms in float32, sums in float64, at a third of the time; each
difference is taken before it is weighed, so that equal models are at 0 exactly. What is not finite is an error and never a
figure: a NaN is neither more nor less than any other model, so that it could come out first.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from replaceme_core.errors import NumericsError
from replaceme_core.models.running.precision import finest_dtype

_NUMBERS = 2**20
"""of one chunk of logits, 8 MiB in float64: more would leave the cache"""
_TERMS = 2**19
"""of one chunk of a `Table`, 2 MiB in float32"""
_RUN = 256
"""float32 terms that are added up before the sum goes on in float64"""
WAY_OUT = "Load the model in float32 or bfloat16 instead of float16; if they stay, its weights are damaged."
"""the knob of every activation that is not finite"""


def divergences(
    reference: Float[Tensor, "*positions vocabulary"],
    own: Float[Tensor, "*positions vocabulary"],
    counted: Bool[Tensor, "*positions"] | None = None,
) -> Float64[Tensor, " counted"]:
    """sum p (log p - log q) in nats at every counted position (all of them, if nothing is said), of two models' logits.

    Gradients flow to `own`: q - p. Raises `NumericsError` where a value is not finite.
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
        found.append(_log_softmax(logits, rows).gather(-1, chosen[rows]))
    return torch.cat(found).view(ids.shape)


class Table:
    """Logits of some positions, for means over many: float32 terms (float64 for a model in float64), float64 sums.

    The largest of each row is taken away, in place where the logits are float32: they are the table's from then on. They must be
    finite (`require_finite`).
    """

    def __init__(self, logits: Float[Tensor, "positions vocabulary"]) -> None:
        self.logits = logits if logits.dtype == torch.float64 else logits.float()
        self.most_likely: Int64[Tensor, " positions"] = self.logits.argmax(-1)
        self._mass = torch.empty(len(logits), dtype=_exact(logits), device=logits.device)
        largest = self.logits.gather(-1, self.most_likely.unsqueeze(-1))
        for rows in self._chunks():
            self._mass[rows] = total(self.logits[rows].sub_(largest[rows]).exp())

    def log_likelihoods(self, ids: Int64[Tensor, " positions"]) -> Float64[Tensor, " positions"]:
        """log p of one token at each position, in nats."""
        own = self.logits.gather(-1, ids.to(self.logits.device).unsqueeze(-1)).squeeze(-1)
        return own.to(self._mass) - self._mass.log()

    def divergences(self, own: "Table") -> Float64[Tensor, " positions"]:
        """KL(this || own) at each position, in nats: sum p (a - b) + log of both masses. Raises `NumericsError`."""
        found = torch.empty_like(own._mass)
        for rows in own._chunks():
            left, right = self.logits[rows].to(own.logits.device), own.logits[rows]
            share = left.exp()
            found[rows] = total(share.mul_(left - right)) / self._mass[rows].to(found.device)
        found = (found + own._mass.log() - self._mass.log().to(found)).clamp_min(0)
        if not found.isfinite().all():
            raise NumericsError(f"The KL of two models is not finite (NaN or infinity). {WAY_OUT}")
        return found

    def _chunks(self) -> list[slice]:
        step = max(1, _TERMS // self.logits.shape[-1])
        return [slice(begin, begin + step) for begin in range(0, len(self.logits), step)]


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
            p, q = (_log_softmax(logits, rows[places]).to(found) for logits in (left, right))
            share = p.exp()
            found[places] = (share * (p - q)).sum(-1).clamp_min(0)
            if slope is not None:
                slope[rows[places]] = q.exp_().sub_(share).to(slope.dtype)
        ctx.slope, ctx.rows = slope, rows
        return found

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[None, Tensor, None]:
        slope, ctx.slope = ctx.slope, None  # it is as large as the logits, so that it is scaled in place, once
        scale = torch.zeros(len(slope), dtype=slope.dtype, device=slope.device)
        scale[ctx.rows] = above[0].to(slope.dtype)
        return None, slope.mul_(scale.unsqueeze(-1)), None


def total(terms: Float[Tensor, "rows terms"]) -> Float64[Tensor, " rows"]:
    """The sum of each row in float64: short runs in the terms' own precision, which have few roundings, and then these."""
    exact = _exact(terms)
    whole = terms.shape[-1] // _RUN * _RUN
    found: Tensor = terms[:, :whole].unflatten(-1, (-1, _RUN)).sum(-1).sum(-1, dtype=exact) + terms[:, whole:].sum(-1, dtype=exact)
    return found


def _log_softmax(logits: Tensor, rows: Tensor) -> Tensor:
    """log p of these rows."""
    return logits[rows.to(logits.device)].to(_exact(logits)).log_softmax(-1)


def _exact(logits: Tensor) -> torch.dtype:
    return finest_dtype(logits.device)


def _rows(logits: Tensor) -> int:
    return max(1, _NUMBERS // logits.shape[-1])
