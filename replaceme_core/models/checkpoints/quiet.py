"""transformers draws bars of its own while it reads and writes weights: inside ours they would share its line, so they are left out."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_under_way: list[Callable[..., Any] | None] = []
"""for each block of any thread that is under way, what was in force before the first of them"""


@contextmanager
def one_bar() -> Iterator[None]:
    """Within this block transformers draws none; after the last of several at once it does as before. Downloads go on being seen."""
    from transformers.utils import logging

    with _lock:
        before = _under_way[0] if _under_way else logging.set_tqdm_hook(lambda _factory, args, kwargs: logging.EmptyTqdm(*args, **kwargs))
        _under_way.append(before)
    try:
        yield
    finally:
        with _lock:
            _under_way.pop()
            if not _under_way:
                logging.set_tqdm_hook(before)
