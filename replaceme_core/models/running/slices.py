"""KL, likelihood and agreement of several models from what their heads read, a slice of the vocabulary at a time.

Logits of one slice are made, used and overwritten while they are in the processor's cache; the largest logit so far and the sums that are
measured from it are carried from slice to slice, in float64 (the online softmax; Milakov and Gimelshein 2018, arXiv 1805.02867). Terms are
float32 (float64 for a model in float64), and a difference of two models is taken before it is weighed, as in `divergence`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from replaceme_core.models.running.divergence import total
from replaceme_core.models.running.precision import finest_dtype

_NUMBERS = 2**19
"""logits of one slice, 2 MiB in float32"""


class Side:
    """One model: what its head reads at some positions, its head's weight and bias, and its sums so far."""

    def __init__(self, states: Float[Tensor, "positions width"], weight: Float[Tensor, "vocabulary width"], bias: Tensor | None) -> None:
        self._states, self._weight, self._bias = states, weight, bias
        nothing = torch.zeros(len(states), dtype=finest_dtype(states.device), device=states.device)
        self.largest = nothing - torch.inf
        self.most_likely = torch.zeros(len(states), dtype=torch.long, device=states.device)
        self.mass = nothing
        self.following = nothing.clone()
        """the logit of the token that follows"""
        self.crossed = nothing
        """sum of e^(a - largest a) (a - b), of the reference's a and this model's b"""

    def take(self, begin: int, end: int, following: Int64[Tensor, " positions"]) -> tuple[Tensor, Tensor]:
        """The slice's logits less the largest of each row so far, and what the sums up to now are to be multiplied with."""
        logits = self._states @ self._weight[begin:end].T
        logits = logits if self._bias is None else logits + self._bias[begin:end]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        most = logits.amax(-1)
        better = (most > self.largest).nonzero().squeeze(1)
        self.most_likely[better] = begin + logits[better].argmax(-1)
        inside = ((following >= begin) & (following < end)).nonzero().squeeze(1)
        self.following[inside] = logits[inside, following[inside] - begin].to(self.following)
        before, self.largest = self.largest, torch.maximum(self.largest, most.to(self.largest))
        return logits.sub_(self.largest.to(logits).unsqueeze(-1)), (before - self.largest).exp()

    @property
    def n_words(self) -> int:
        return len(self._weight)

    @property
    def normaliser(self) -> Float64[Tensor, " positions"]:
        """log of the sum of e^logit."""
        found: Tensor = self.mass.log() + self.largest
        return found


def compare(sides: Sequence[Side], following: Int64[Tensor, " positions"]) -> list[Float64[Tensor, "positions 3"]]:
    """[negative log-likelihood, KL(first || own), whether the most likely token is the first's] of every model at each position.

    Nothing is checked: what is not finite comes out as NaN or infinity.
    """
    base, *others = sides
    step = max(1, _NUMBERS // max(1, len(following)))
    for begin in range(0, base.n_words, step):
        end = min(begin + step, base.n_words)
        left, fewer = base.take(begin, end, following)
        share = left.exp()
        here = total(share)
        base.mass = base.mass * fewer + here
        for own in others:
            right, less = own.take(begin, end, following)
            apart = left - right
            own.mass = own.mass * less + total(right.exp_())
            own.crossed = own.crossed * fewer + total(apart.mul_(share)) + (base.largest - own.largest) * here
    return [_figures(base, own) for own in sides]


def _figures(base: Side, own: Side) -> Float64[Tensor, "positions 3"]:
    kl = (own.crossed / base.mass + own.normaliser - base.normaliser).clamp_min(0)
    same = own.most_likely == base.most_likely
    return torch.stack([own.normaliser - own.following, kl, same.to(kl)], -1).cpu().double()
