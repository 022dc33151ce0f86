"""One linear layer of a block solved anew in closed form, shrunk toward what it is now. Pure sums, no model.

Features F [tokens, inner] go into the layer, and the block's output misses its target by R [tokens, width]. The change D of
the layer's weight, as it acts on rows, minimises sum w |F D - R|^2 + a |D - D0|^2. Two centres D0 are tried: 0, the present
weight, and the change that the best transform of the layer's *output* makes, W (T - I), so that a large `a` ends at least
squares and not at plain removal. Of all centres and `a` that keep most of the best held-out gain, the one that changes the
weight least is taken: text unlike the calibration set pays for every change that the set did not need (benchmarks/LOG.md).
"""

from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from replaceme_core.models.running.precision import exact
from replaceme_core.refit.ridge_path import Candidate, path_of
from replaceme_core.refit.sums import UpdateSums

GIVEN_UP = 0.2
"""share of the best held-out gain that a smaller change may cost"""


@dataclass(frozen=True, eq=False)
class Update:
    """The change of a layer's weight as it acts on rows, and what it was chosen by."""

    change: Float64[Tensor, "inner width"] | None
    """None: no change had a lower held-out error"""
    ridge: float | None
    before: float
    after: float
    condition: float
    """of the Gram matrix with the chosen ridge (on an accelerator estimated from below)"""


def solve(train: UpdateSums, heldout: UpdateSums, weight: Float[Tensor, "inner width"] | None) -> Update:
    """The smallest change, over both centres and all ridges, that keeps 1 - GIVEN_UP of the best held-out gain; none if there is no gain.

    `weight` is the layer's as it acts on rows.
    """
    none = Update(None, None, heldout.error(None), heldout.error(None), float("inf"))
    if not has_signal(train):
        return none
    centres: list[Tensor | None] = [None]
    if weight is not None:
        centres.append(_of_output(train, heldout, exact(weight)))
    tried = [_itself(heldout, centre, number) for number, centre in enumerate(centres)]
    path = path_of(train, heldout, centres)
    tried += path.candidates()
    least = min(each.error for each in tried)
    if not least < none.before:
        return none
    limit = least + GIVEN_UP * (none.before - least)
    chosen = min((each for each in tried if each.error <= limit), key=lambda each: each.size)
    change = centres[chosen.centre] if chosen.ridge is None else path.change(chosen.centre, chosen.ridge)
    return Update(change, chosen.ridge, none.before, chosen.error, path.condition(chosen.ridge or 0.0))


def has_signal(train: UpdateSums) -> bool:
    """Whether there is any signal in the features, and all of it finite."""
    mean = float(train.gram.diagonal().mean())
    return isfinite(mean) and mean > 0


def _itself(heldout: UpdateSums, centre: Tensor | None, number: int) -> Candidate:
    """A centre, as a change."""
    return Candidate(heldout.error(centre), 0.0 if centre is None else float(centre.square().sum()), number, None)


def _of_output(train: UpdateSums, heldout: UpdateSums, weight: Float64[Tensor, "inner width"]) -> Float64[Tensor, "inner width"]:
    """W (T - I) for the best transform of the layer's output, itself shrunk toward I."""
    own, judged = train.written(weight), heldout.written(weight)
    if not has_signal(own):
        return torch.zeros_like(train.cross)
    path = path_of(own, judged, [None])
    best = min([_itself(judged, None, 0), *path.candidates()], key=lambda each: each.error)
    return torch.zeros_like(train.cross) if best.ridge is None else weight @ path.change(0, best.ridge)
