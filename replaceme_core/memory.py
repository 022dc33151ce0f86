"""What memory there is, of the machine and of its graphics cards; and memory that runs out as one sentence: what was being done, what that
needs, and which knob to turn."""

import errno
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from replaceme_core.errors import OutOfMemoryError, ReplaceMeError

HOLD_LESS = "a smaller dtype (bfloat16), a quantisation (nf4 or int8), device 'spread', or a smaller model"
"""the knobs of the model itself"""
_SIGNS = ("out of memory", "not enough memory", "allocate memory", "bad_alloc", "cannot allocate", "unable to mmap")
_ASKED = (r"you tried to allocate (\d+) bytes", r"tried to allocate ([\d.]+ [KMGT]iB)")


def is_short(error: BaseException) -> bool:
    """Whether an error of Python, torch (CPU or device), the system or safetensors says that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def told(doing: str, knobs: str, needed: Callable[[], str] = str) -> Iterator[None]:
    """Turns what `is_short` recognises into an `OutOfMemoryError`; everything else passes.

    `doing` completes "There was not enough memory ...", `knobs` completes "Choose ...". `needed` is asked only after a failure.
    """
    try:
        yield
    except ReplaceMeError:
        raise
    except Exception as error:
        if not is_short(error):
            raise
        for each in (error, error.__cause__, error.__context__):  # the tensors of the failed step would stay as long as the error
            traceback.clear_frames(each.__traceback__ if each else None)
        figures = [_asked(error)]
        with suppress(Exception):  # the figures are worked out with what little memory is left
            figures.append(needed())
        said = "; ".join(filter(None, figures))
        raise OutOfMemoryError(f"There was not enough memory {doing}{f' ({said})' if said else ''}. Choose {knobs}.") from error


def of(device: str) -> tuple[int, int]:
    """(free, total) bytes of a device: of a graphics card, or of main memory, which an Apple GPU shares; 'spread': of all together.

    What torch keeps of a card for its next tensors is free, and so is what the system would give back.
    """
    if device == "spread":
        every = [of("cpu"), *((free, total) for _, free, total in cards())]
        return sum(free for free, _ in every), sum(total for _, total in every)
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total
    import psutil

    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def cards() -> list[tuple[str, int, int]]:
    """(name, free bytes, bytes in all) of every graphics card; none before something else has imported torch."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_available():
        return []
    return [(str(cuda.get_device_name(number)), *of(f"cuda:{number}")) for number in range(cuda.device_count())]


def spare() -> int:
    """Half of the memory that is free now, in bytes: what a step may take beside the weights."""
    return of("cpu")[0] // 2


def size(n_bytes: int) -> str:
    """Bytes for people."""
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.0f} MiB"


def _asked(error: BaseException) -> str:
    """What the failed allocation asked for, if its message says so."""
    for pattern in _ASKED:
        found = re.search(pattern, str(error), re.IGNORECASE)
        if found:
            return f"one step asked for {size(int(found[1])) if found[1].isdigit() else found[1]} more"
    return ""
