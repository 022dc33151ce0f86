"""A loaded model, lent to one user at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CONTEXT = 2048
"""positions of a model whose configuration does not say"""


@dataclass(frozen=True, eq=False)
class ModelHandle:
    """A model that is lent to one user at a time, with what is known about it.

    Two threads that hook one shared model corrupt one another's captures; `borrow` is the only way to the model.
    """

    name: str
    _model: Any
    tokenizer: Any
    family: Any
    n_blocks: int
    width: int
    n_parameters: int
    dtype: str
    device: str
    fingerprint: str
    revision: str | None = None
    checkpoint: Path | None = None
    """folder of the unquantised weights, for a model held quantised or spread over devices: what a transform is merged into"""
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @contextmanager
    def borrow(self) -> Iterator[Any]:
        """The `transformers` model, for this thread alone until the block ends."""
        with self._lock:
            yield self._model

    @property
    def n_bytes(self) -> int:
        """Bytes of parameters and buffers."""
        tensors = {id(t): t for t in [*self._model.parameters(), *self._model.buffers()]}
        return sum(t.numel() * t.element_size() for t in tensors.values())

    @property
    def context_length(self) -> int:
        """Positions the model was built for."""
        return int(getattr(self._model.config.get_text_config(decoder=True), "max_position_embeddings", None) or _CONTEXT)

    @property
    def end_tokens(self) -> set[int]:
        """The tokens that end a text of this model."""
        ends = self._model.generation_config.eos_token_id
        found = ends if isinstance(ends, list) else [ends]
        return {int(end) for end in [*found, self.tokenizer.eos_token_id] if end is not None}

    @property
    def widest(self) -> int:
        """See `widest_side`. Needs no lock."""
        return widest_side(self._model.get_submodule(self.family.blocks), self.width)


def widest_side(blocks: Any, width: int) -> int:
    """The largest side of a weight in the blocks: at most what a Gram matrix of inner features measures. Reads shapes only."""
    return max((max(weight.shape[-2:]) for weight in blocks.parameters() if weight.ndim > 1), default=width)
