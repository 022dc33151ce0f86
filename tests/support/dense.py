"""The second route: every state of every token, computed block by block without hooks, batches or streaming."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import ModelHandle


@dataclass(frozen=True, eq=False)
class Dense:
    """All states of one or more sequences, float64: boundaries [L+1, tokens, width], the others [L, tokens, width]."""

    boundaries: Tensor
    attention: Tensor
    writers: Tensor

    def target(self, start: int, end: int) -> Tensor:
        """Z = H_end - Y with Y = H_before + attention of the carrier."""
        beside = self.boundaries[start - 1] + self.attention[start - 1]
        return self.boundaries[end] - beside


def llama_states(model: Any, ids: Tensor) -> Dense:
    """One sequence through a llama, each block written out as in the paper: Y = X + Attn(norm X); M = MLP(norm Y); X' = Y + M."""
    stream = model.model.embed_tokens(ids.unsqueeze(0))
    rotary = model.model.rotary_emb(stream, torch.arange(len(ids)).unsqueeze(0))
    boundaries, attention, writers = [stream], [], []
    with torch.no_grad():
        for block in model.model.layers:
            attended = block.self_attn(hidden_states=block.input_layernorm(stream), position_embeddings=rotary, attention_mask=None)[0]
            beside = stream + attended
            written = block.mlp(block.post_attention_layernorm(beside))
            stream = beside + written
            attention.append(attended)
            writers.append(written)
            boundaries.append(stream)
    return Dense(*(torch.cat(part).double() for part in (boundaries, attention, writers)))


def together(handle: ModelHandle, sequences: list[Tensor]) -> Dense:
    """The states of several sequences, one after the other along the tokens."""
    with handle.borrow() as model:
        parts = [llama_states(model, sequence) for sequence in sequences]
    joined = [torch.cat([getattr(part, name) for part in parts], 1) for name in ("boundaries", "attention", "writers")]
    return Dense(*joined)


def hooks_on(model: Any) -> int:
    """Hooks that a model carries, in all of its modules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
