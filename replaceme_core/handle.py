"""A loaded model, lent to one user at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_here = threading.local()
"""how many models the present thread holds"""


def holds_a_model() -> bool:
    """Whether this thread is inside a `borrow`: then it may have hooks on the model, and nobody else may run before it is through."""
    return bool(getattr(_here, "held", 0))


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
            _here.held = getattr(_here, "held", 0) + 1
            try:
                yield self._model
            finally:
                _here.held -= 1

    @property
    def n_bytes(self) -> int:
        """Bytes of parameters and buffers."""
        return sum(self.bytes_by_device.values())

    @property
    def bytes_by_device(self) -> dict[str, int]:
        """The same by where they are: 'cpu', 'cuda:0', ...; 'meta' for what is offloaded."""
        found: dict[str, int] = {}
        for tensor in {id(t): t for t in [*self._model.parameters(), *self._model.buffers()]}.values():
            found[str(tensor.device)] = found.get(str(tensor.device), 0) + tensor.numel() * tensor.element_size()
        return found

    @property
    def widest(self) -> int:
        """See `widest_side`. Needs no lock."""
        return widest_side(self._model.get_submodule(self.family.blocks), self.width)


def widest_side(blocks: Any, width: int) -> int:
    """The largest side of a weight in the blocks: at most what a Gram matrix of inner features measures. Reads shapes only."""
    return max((max(weight.shape[-2:]) for weight in blocks.parameters() if weight.ndim > 1), default=width)
