"""Text as one model writes it, token by token, with the reason why it ended."""

from collections.abc import Iterator
from typing import Any, Literal

import torch

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.comparison.next_token import SHORTER, context_length, encode
from replaceme_core.models.running.divergence import require_finite

Ended = Literal["limit", "end of text", "context full"]


class Writer:
    """One model at work on one prompt: greedy at temperature 0, else sampled with the seed.

    The model is borrowed for one token at a time; between two steps several writers can take turns, or the work can stop.
    """

    def __init__(self, handle: ModelHandle, prompt: str, max_new_tokens: int = 60, temperature: float = 0.0, seed: int = 0) -> None:
        """Raises `InputError` for a prompt that is empty or longer than the context."""
        ids = encode(handle, prompt)
        self._handle, self._temperature = handle, temperature
        self._ids, self._cache = ids.unsqueeze(0), None
        self._generator = torch.Generator().manual_seed(seed)
        self._ends = _end_tokens(handle)
        room = context_length(handle) - len(ids)
        self._room, self._full = min(max_new_tokens, room), room < max_new_tokens
        self.prompt_tokens = len(ids)
        self.tokens: list[int] = []
        self.text = ""
        """all that was written, in whole characters"""
        self.ended: Ended | None = None if self._room > 0 else "limit"

    def step(self) -> str:
        """Write one more token; returns what it adds to the text, which is nothing within a character of several tokens."""
        token = self._next()
        if token in self._ends:
            return self._end("end of text")
        self.tokens.append(token)
        if len(self.tokens) >= self._room:
            self._end("context full" if self._full else "limit")
        text: str = self._handle.tokenizer.decode(self.tokens)
        if text.endswith("\ufffd"):  # a character whose bytes are not complete yet
            return ""
        added, self.text = text[len(self.text) :], text
        return added

    def _next(self) -> int:
        with memory.told("to generate text", SHORTER), self._handle.borrow() as model, torch.no_grad():
            step = model(input_ids=self._ids.to(model.device), past_key_values=self._cache, use_cache=True)
        self._cache, logits = step.past_key_values, step.logits[0, -1].float().cpu()
        require_finite(logits.unsqueeze(0), self._handle.name)
        if self._temperature > 0:
            token = int(torch.multinomial((logits / self._temperature).softmax(-1), 1, generator=self._generator))
        else:
            token = int(logits.argmax())
        self._ids = torch.tensor([[token]])
        return token

    def _end(self, why: Ended) -> str:
        self.ended, self._cache = why, None
        return ""


def stream(handle: ModelHandle, prompt: str, max_new_tokens: int = 60, temperature: float = 0.0, seed: int = 0) -> Iterator[str]:
    """Pieces of text as a `Writer` makes them. Stops at end of text, at its limit, and at the end of the context."""
    writer = Writer(handle, prompt, max_new_tokens, temperature, seed)
    while writer.ended is None:
        if piece := writer.step():
            yield piece


def _end_tokens(handle: ModelHandle) -> set[int]:
    with handle.borrow() as model:
        ends: Any = model.generation_config.eos_token_id
    found = ends if isinstance(ends, list) else [ends]
    return {int(end) for end in [*found, handle.tokenizer.eos_token_id] if end is not None}
