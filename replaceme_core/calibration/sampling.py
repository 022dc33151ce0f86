"""Many texts at once from one model: sampled token by token with its key-value cache; rows that have ended leave the batch.

Prompts of different lengths are padded on the left, masked, and counted from their own first token, so that a row gives what it would give
alone. The draws come from a generator on the CPU, one number for every row at every step, whichever rows still go on: a text depends on
the seed and its row, not on when its neighbours end.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from replaceme_core.errors import NumericsError
from replaceme_core.handle import ModelHandle

_CANDIDATES = 1024
"""most likely tokens that a draw chooses among, at most; top_p reaches fewer where a model knows anything at all"""
_SHRINK = 0.75
"""share of the rows still going on at which the others are taken out of the cache"""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.8
    top_p: float = 0.9
    """the draw is among the most likely tokens that have this probability together"""


def continued(
    handle: ModelHandle,
    prompts: Sequence[Sequence[int]],
    room: int,
    sampling: Sampling,
    generator: torch.Generator,
    report: Callable[[int], None] = lambda _n: None,
) -> list[list[int]]:
    """What the model writes after each prompt: at most `room` tokens, without the one that ends it.

    `report` is told after every step how many tokens it gave, and stops the work by raising. The model is borrowed for one step at a time.
    """
    written: list[list[int]] = [[] for _ in prompts]
    batch = _Batch(handle, prompts)
    ends = torch.tensor(sorted(end_tokens(handle)), dtype=torch.long)
    for _ in range(room):
        chances = torch.rand(len(prompts), generator=generator, dtype=torch.float64)
        tokens = drawn(batch.logits(), chances[batch.rows], sampling)
        batch.going &= ~torch.isin(tokens, ends)
        for row, token in zip(batch.rows[batch.going].tolist(), tokens[batch.going].tolist(), strict=True):
            written[row].append(token)
        report(int(batch.going.sum()))
        if not batch.going.any():
            break
        batch.feed(tokens)
    return written


def drawn(logits: Float[Tensor, "rows vocabulary"], chances: Float[Tensor, " rows"], sampling: Sampling) -> Int64[Tensor, " rows"]:
    """The token of each row that a number between 0 and 1 falls on. Raises `NumericsError` for logits that are not finite."""
    logits = logits.double()
    if not logits.isfinite().all():
        raise NumericsError("The model's own probabilities are not finite, so it cannot write text; load it in float32 or bfloat16.")
    probable, tokens = (logits / sampling.temperature).softmax(-1).topk(min(_CANDIDATES, logits.shape[-1]))
    before = probable.cumsum(-1) - probable
    kept = torch.where(before < sampling.top_p, probable, 0.0).cumsum(-1)
    place = torch.searchsorted(kept, (chances.double() * kept[:, -1]).unsqueeze(1), right=True)
    return tokens.gather(1, place.clamp_max(kept.shape[-1] - 1)).squeeze(1)


def end_tokens(handle: ModelHandle) -> set[int]:
    """The tokens that end a text of this model: those that its settings name, and every special token, which is no text."""
    with handle.borrow() as model:
        ends: Any = model.generation_config.eos_token_id
    found = ends if isinstance(ends, list) else [ends]
    return {int(end) for end in [*found, *handle.tokenizer.all_special_ids] if end is not None}


def context_length(handle: ModelHandle) -> int:
    """Positions the model was built for."""
    with handle.borrow() as model:
        return int(getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or 2048)


class _Batch:
    """The rows that are in the cache, which of them go on, and what the model reads next."""

    def __init__(self, handle: ModelHandle, prompts: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, prompts))
        self._handle, self._cache = handle, None
        self._ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        self._mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self.rows = torch.arange(len(prompts))
        self.going = torch.ones(len(prompts), dtype=torch.bool)

    def logits(self) -> Float[Tensor, "rows vocabulary"]:
        """Of the next token of every row, on the CPU."""
        with self._handle.borrow() as model, torch.no_grad():
            takes = inspect.signature(model.forward).parameters
            more: dict[str, Any] = {}
            if "position_ids" in takes:
                positions = (self._mask.cumsum(-1) - 1).clamp_min(0)[:, -self._ids.shape[1] :]
                more["position_ids"] = positions.to(model.device)
            if "logits_to_keep" in takes:
                more["logits_to_keep"] = 1
            ids, mask = self._ids.to(model.device), self._mask.to(model.device)
            step = model(input_ids=ids, attention_mask=mask, past_key_values=self._cache, use_cache=True, **more)
        self._cache = step.past_key_values
        logits: Tensor = step.logits[:, -1].float().cpu()
        return logits

    def feed(self, tokens: Int64[Tensor, " rows"]) -> None:
        """The next step reads these; rows that have ended leave once they are many, and are read along until then."""
        self._ids = tokens.unsqueeze(1)
        self._mask = torch.cat([self._mask, torch.ones(len(self._mask), 1, dtype=torch.long)], 1)
        select = getattr(self._cache, "batch_select_indices", None)
        if select is None or self.going.float().mean() > _SHRINK:
            return
        kept = self.going.nonzero().squeeze(1)
        with self._handle.borrow() as model:
            select(kept.to(model.device))
        self._ids, self._mask, self.rows, self.going = (part[kept] for part in (self._ids, self._mask, self.rows, self.going))
