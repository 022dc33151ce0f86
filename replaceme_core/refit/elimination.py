"""Which of many features are kept: those that cost least to leave out go, a part of them at a time. Pure sums, no model.

Leaving feature i out of the ridge solution X = D + (G + a I)^-1 C costs |X_i|^2 / ((G + a I)^-1)_ii where all others are solved
anew (optimal brain surgeon; Hassibi and Stork 1993). The costs of several do not add up, so that they are looked at again after every part.
"""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from replaceme_core.refit.sums import UpdateSums

_ROUND = 0.3
"""share of the features that go before the costs are looked at again"""
_RIDGE = 0.5
"""times features for each token: what is chosen with less is chosen for the calibration text, with more too bluntly (benchmarks/LOG.md)"""


def ridge_for(n_features: int, n_tokens: int) -> float:
    """The ridge to choose by, relative to the mean eigenvalue of the Gram matrix: as for a prior, it weighs less the more tokens there are."""
    return _RIDGE * n_features / max(1, n_tokens)


def eliminate(sums: UpdateSums, weight: Float64[Tensor, "inner width"], n_kept: int, ridge: float) -> Int64[Tensor, " kept"]:
    """The features that are kept, in their order; `weight` is the layer's as it acts on rows of all of them."""
    kept, left = torch.arange(len(weight), device=weight.device), sums
    while len(kept) > n_kept:
        inverse = torch.cholesky_inverse(_factor(left, ridge))
        solved = weight[kept] + inverse @ left.cross
        costs = solved.square().sum(1) / inverse.diagonal()
        most = max(n_kept, int(len(kept) * (1 - _ROUND)))
        kept = kept[costs.topk(most).indices.sort().values]
        left = sums.kept(kept, weight)
    return kept


def change(sums: UpdateSums, ridge: float) -> Float64[Tensor, "inner width"]:
    """(G + a I)^-1 C, the change of a layer of these sums relative `ridge` a."""
    return torch.cholesky_solve(sums.cross, _factor(sums, ridge))


def _factor(sums: UpdateSums, ridge: float) -> Float64[Tensor, "inner inner"]:
    shifted = sums.gram.clone()
    shifted.diagonal().add_(ridge * shifted.diagonal().mean())
    factor: Tensor = torch.linalg.cholesky(shifted)
    return factor
