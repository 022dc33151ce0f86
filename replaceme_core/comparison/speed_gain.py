"""What a cut really gains: time to read a prompt and to write, peak memory and size on disk, beside the original's.

    gained = measure_gain(original, pruned)
    gained.decode.ratio.median        # 1.31: the pruned model writes 1.31 times as fast

The two models run in turn, and who begins changes from one repeat to the next: what a machine does beside (it warms up, another
program starts) meets both, and the ratio is taken within each repeat. Ranges are the least and the most of the repeats.
"""

import weakref
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.comparison.next_token import context_length
from replaceme_core.comparison.timing import device_name, timed_run
from replaceme_core.progress import SILENT, Progress

REPEATS = 5


@dataclass(frozen=True)
class Timing:
    """What is timed: a batch of one, random tokens."""

    prompt_tokens: int = 128
    new_tokens: int = 16
    repeats: int = REPEATS


@dataclass(frozen=True)
class Range:
    """Over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Range":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Pair:
    """One figure of both models, in tokens per second, and how many times as fast the pruned one is (of each repeat)."""

    original: Range
    pruned: Range
    ratio: Range


@dataclass(frozen=True)
class SpeedGain:
    """What was measured on this machine."""

    device: str
    timing: Timing
    prefill: Pair
    """reading the prompt"""
    decode: Pair
    """writing one token after another, with a cache"""
    original_peak_bytes: int | None
    """weights, and the most that reading and writing held beside them at any time; None where the device does not tell"""
    pruned_peak_bytes: int | None
    original_disk_bytes: int
    """of the weights as safetensors hold them"""
    pruned_disk_bytes: int


def measure_gain(original: ModelHandle, pruned: ModelHandle, timing: Timing | None = None, progress: Progress = SILENT) -> SpeedGain:
    """Times both models in turn. The first repeat warms up and does not count."""
    timing = timing or Timing()
    prompt = max(1, min(timing.prompt_tokens, context_length(original) - timing.new_tokens))
    timing = Timing(prompt, timing.new_tokens, timing.repeats)
    models = (original, pruned)
    seconds: tuple[list[tuple[float, float]], ...] = ([], [])
    for repeat in range(timing.repeats + 1):
        for which in (0, 1) if repeat % 2 else (1, 0):
            taken = timed_run(models[which], timing.prompt_tokens, timing.new_tokens)[:2]
            if repeat:
                seconds[which].append(taken)
        progress.update(repeat + 1, timing.repeats + 1, "repeats", "timing")
    amounts = (timing.prompt_tokens, timing.new_tokens)
    prefill, decode = (_pair([[amount / taken[kind] for taken in row] for row in seconds]) for kind, amount in enumerate(amounts))
    peaks = [peak_bytes(handle, timing) for handle in models]
    with original.borrow() as model:
        device = device_name(model)
    return SpeedGain(device, timing, prefill, decode, peaks[0], peaks[1], *(disk_bytes(handle) for handle in models))


def peak_bytes(handle: ModelHandle, timing: Timing) -> int | None:
    """Weights and buffers, and the most that one prompt and its continuation hold beside them. On MPS: None.

    On CUDA this is the allocator's own peak; on the CPU every tensor that an operation makes is counted while it lives (what an
    operation takes inside itself is not seen).
    """
    kind = handle.device.partition(":")[0]
    with handle.borrow() as model:
        if kind == "cuda":
            before = int(torch.cuda.memory_allocated(model.device))
            torch.cuda.reset_peak_memory_stats(model.device)
            timed_run(handle, timing.prompt_tokens, timing.new_tokens)
            most = int(torch.cuda.max_memory_allocated(model.device))
            return handle.n_bytes + most - before
        if kind != "cpu":
            return None
        with memory.told("to measure the peak memory", memory.HOLD_LESS), LivingTensors(model) as living:
            timed_run(handle, timing.prompt_tokens, timing.new_tokens)
        return handle.n_bytes + int(living.peak)


def disk_bytes(handle: ModelHandle) -> int:
    """Of the weights as an export writes them: every tensor once. The header of the file, some KB, is not counted."""
    with handle.borrow() as model:
        tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _pair(rates: list[list[float]]) -> Pair:
    original, pruned = rates
    return Pair(Range.of(original), Range.of(pruned), Range.of([b / a for a, b in zip(original, pruned, strict=True)]))


class LivingTensors(TorchDispatchMode):
    """Bytes of the memory that operations have made and that still lives; the model's own is not counted."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
        self._living = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self._living += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self._living)
        return made

    def _freed(self, address: int, n_bytes: int) -> None:
        self._known.discard(address)
        self._living -= n_bytes
