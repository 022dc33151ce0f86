"""What a fit of one span costs before it is made, in products of numbers, and how many of those this machine does in a second."""

import threading
import time

import torch

from replaceme_core.plans.plan import MethodSection
from replaceme_core.solvers.spectrum import RIDGES

_EIGENVALUES = 8.0
"""of a symmetric matrix, in products of two such matrices: 7 to 8 at widths of 128 to 512, fp64, one thread"""
_PATH = 8
"""products for all ridges together where T is full (`Spectrum.errors`), T itself and its report"""
_TRIED = 384
"""width of the product that is timed: a few milliseconds"""
_FRESH = 60.0
"""seconds after which it is timed again"""
_speeds: dict[str, tuple[float, float]] = {}
"""operations a second, and when that was looked at, by device"""
_lock = threading.Lock()


def flops(width: int, n_tokens: int, section: MethodSection) -> float:
    """Floating-point operations of a least-squares fit with its ridge path, sums over the tokens included; of other methods their least."""
    sums = 4.0 * n_tokens * width**2
    if section.name == "drop" or section.structure == "diagonal":
        return sums
    path = _PATH if section.structure == "full" else 3 * len(RIDGES)  # for every ridge T, and its error on both parts
    return sums + 2.0 * width**3 * (_EIGENVALUES + path)


def seconds(width: int, n_tokens: int, section: MethodSection, device: str) -> float:
    """About how long that takes here."""
    return flops(width, n_tokens, section) / speed(device)


def speed(device: str) -> float:
    """fp64 operations a second of large products on a device. Looked at again now and then, and the best is kept: a machine may have been busy."""
    with _lock:
        known, looked_at = _speeds.get(device, (0.0, -_FRESH))
        if time.monotonic() - looked_at >= _FRESH:
            known = max(known, _measured(torch.device(device if device.startswith("cuda") else "cpu")))  # where fp64 sums are made
            _speeds[device] = known, time.monotonic()
        return known


def _measured(device: torch.device) -> float:
    matrix = torch.eye(_TRIED, dtype=torch.float64, device=device)
    best = float("inf")
    for _ in range(4):  # the first one starts the threads, or the card
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for a card, too
        best = min(best, time.perf_counter() - began)
    return 2.0 * _TRIED**3 / best
