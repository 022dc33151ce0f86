"""Rows of a `prefix_tree` as the arguments of one pass: ids, positions, a mask that shows each token its own beginning, a cache."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.evaluation.prefix_tree import Row

Keys = list[tuple[Tensor, Tensor] | None]
"""keys and values of one text, [1, heads, length, width of a head], by layer; None: a layer that was not run"""


class Packed:
    """Rows behind the same `before` tokens in a cache (0: none), padded on the right. `keep`: what they leave in the cache is wanted."""

    def __init__(self, rows: list[Row], before: int, keep: bool) -> None:
        self._rows, self._before, self._keep = rows, before, keep
        self._width = max(len(row.tokens) for row in rows)
        self.ids = self._table([row.tokens for row in rows])
        self._masks: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def told(self, handle: ModelHandle, past: Keys | None) -> dict[str, Any]:
        """What one model's pass is told beside the ids; a text without branches and without a past needs no mask."""
        told: dict[str, Any] = {"past_key_values": _cache(past, len(self._rows)), "use_cache": True} if past or self._keep else {}
        if past is None and len(self._rows) == 1 and self._rows[0].is_chain:
            return told
        with handle.borrow() as model:
            device, dtype = model.device, model.get_input_embeddings().weight.dtype
        return told | {"position_ids": self._positions.to(device), "attention_mask": self._mask(dtype, device)}

    @property
    def asked(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The positions that are asked (numbers in the flat order of the ids), once each; and per asked token: which of them, the token
        that follows it, the number of the request."""
        flat = [(number * self._width + at, token, request) for number, row in enumerate(self._rows) for at, token, request in row.asked]
        where, following, requests = torch.tensor(flat, dtype=torch.long).reshape(-1, 3).unbind(-1)
        positions, of = where.unique(return_inverse=True)
        return positions, of, following, requests

    @cached_property
    def _positions(self) -> Tensor:
        return self._table([row.positions for row in self._rows])

    def _table(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (self._width - len(row))] for row in rows])

    def _mask(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Added to the attention's logits: 0 where a token may look, the least number elsewhere. [rows, 1, width, before + width]."""
        if (dtype, device) not in self._masks:
            seen = torch.zeros(len(self._rows), self._width, self._before + self._width, dtype=torch.bool)
            seen[:, :, : self._before] = True
            seen[:, :, self._before :].diagonal(dim1=1, dim2=2).fill_(True)  # a padded position has to look somewhere
            for number, row in enumerate(self._rows):
                own = seen[number, :, self._before :]
                for first, last, path in row.branches:
                    own[first:last, path] = True
                    own[first:last, first:last] = torch.ones(last - first, last - first, dtype=torch.bool).tril()
            mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
            self._masks[dtype, device] = mask.unsqueeze(1).to(device)
        return self._masks[dtype, device]


def _cache(past: Keys | None, rows: int) -> Any:
    """A cache of its own for one pass, which grows in it. It keeps every position, also of layers that attend to a few."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, kept in enumerate(past or []):
        if kept is not None:
            cache.update(*(each.expand(rows, -1, -1, -1) for each in kept), layer)
    return cache


def kept_keys(cache: Any) -> Keys:
    """What a pass left in its cache."""
    return [None if not each.is_initialized else (each.keys, each.values) for each in cache.layers]
