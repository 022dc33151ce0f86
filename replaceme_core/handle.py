"""A loaded model, lent to one user at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    origin: str = ""
    """where the weights come from and what they went through, for people; empty where the path says it all"""
    file_sha256: str | None = None
    """of the file that the weights were read from, where it is one (GGUF)"""
    digests: dict[int, Any] = field(default_factory=dict, repr=False)
    """hashes of the model's tensors (see models.fingerprints)"""
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
    def widest(self) -> int:
        """See `widest_side`. Needs no lock."""
        return widest_side(self._model.get_submodule(self.family.blocks), self.width)


def widest_side(blocks: Any, width: int) -> int:
    """The largest side of a weight in the blocks: at most what a Gram matrix of inner features measures. Reads shapes only."""
    return max((max(weight.shape[-2:]) for weight in blocks.parameters() if weight.ndim > 1), default=width)
