"""Models that say NaN, as one that overflows in float16 does: everywhere, or from one rare word on."""

import copy

import torch

from replaceme_core.artifacts import ModelHandle
from replaceme_core.models.loading import make_handle


def broken(handle: ModelHandle, token: int | None = None) -> ModelHandle:
    """The model with a head that is NaN for one word; or with an embedding of `token` that is, so that only texts with it show it."""
    with handle.borrow() as model:
        own = copy.deepcopy(model)
    with torch.no_grad():
        if token is None:
            own.get_output_embeddings().weight[5] = torch.nan
        else:
            own.get_input_embeddings().weight[token] = torch.nan
    return make_handle(f"broken {handle.name}", own, handle.tokenizer, handle.family)
