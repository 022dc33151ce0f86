"""The last resort of every entry point: what no sentence was written for becomes one, with the words of whatever failed.

The original error stays attached (`__cause__`), so that a traceback of it is one line away for who wants it.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

from replaceme_core import extras, memory
from replaceme_core.errors import ReplaceMeError, UnforeseenError, quoted

TRACEBACK = "REPLACEME_TRACEBACK"
"""environment variable: if it is set, the command line shows where an unforeseen error came from"""
_Work = TypeVar("_Work", bound=Callable[..., Any])


def unforeseen(error: BaseException) -> UnforeseenError:
    """The sentence on an error that nobody foresaw."""
    said = quoted(error)
    return UnforeseenError(
        f"This stopped at something that was not foreseen ({type(error).__name__}{f': {said}' if said else ''}). Check what was given; if it is as it "
        f"should be, report this with the model's name and the command ({TRACEBACK}=1 shows where it happened)."
    )


def guarded(work: _Work) -> _Work:
    """An entry point of the library. What the system says (files, memory) passes as it is: its own sentences are better."""

    @functools.wraps(work)
    def inside(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except (ReplaceMeError, OSError, MemoryError):
            raise
        except Exception as error:
            if memory.is_short(error) or os.environ.get(TRACEBACK):
                raise
            raise extras.missing(error) or unforeseen(error) from error

    return inside  # type: ignore[return-value]
