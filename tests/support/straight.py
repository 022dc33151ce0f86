"""Next-token probabilities by the straight road, as a second route: the whole table in float64."""

import torch
from torch import Tensor

from replaceme_core.artifacts import ModelHandle


def log_probabilities(handle: ModelHandle, ids: Tensor) -> Tensor:
    """log p(next token) after each token but the last, [positions, vocabulary]."""
    with handle.borrow() as model, torch.no_grad():
        logits: Tensor = model(input_ids=ids.unsqueeze(0), use_cache=False).logits
    return logits[0, :-1].double().log_softmax(-1)


def kl(left: Tensor, right: Tensor) -> Tensor:
    """KL of two tables of logits at each position."""
    p, q = left.double().log_softmax(-1), right.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
