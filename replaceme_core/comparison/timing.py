"""How fast models are on this machine and what they hold in memory, measured in turns so that a busy minute touches all of them."""

import os
import platform
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from replaceme_core.artifacts import ModelHandle
from replaceme_core.comparison.next_token import context_length
from replaceme_core.progress import SILENT, Progress

_REPEATS = 5


@dataclass(frozen=True)
class Speed:
    """One model, one text at a time: medians over `repeats`, each with the least and the greatest of them."""

    prefill_ms: float
    prefill_range: tuple[float, float]
    decode_tokens_per_s: float
    decode_range: tuple[float, float]
    n_parameters: int
    n_bytes: int
    """of parameters and buffers"""
    cache_bytes: int
    """what the attention cache held after the last token, counted from its tensors"""
    prompt_tokens: int
    new_tokens: int
    repeats: int
    device: str


def speed(handle: ModelHandle, prompt_tokens: int = 128, new_tokens: int = 32) -> Speed:
    """Time of one prefill and of greedy decoding after it, random tokens, batch of one."""
    return speeds([handle], prompt_tokens, new_tokens)[0]


def speeds(handles: list[ModelHandle], prompt_tokens: int = 128, new_tokens: int = 32, progress: Progress = SILENT) -> list[Speed]:
    """`speed` of several models, in turns. A prompt that does not fit the context with the new tokens is shortened."""
    runs: list[list[tuple[float, float, int]]] = [[] for _ in handles]
    lengths = [max(1, min(prompt_tokens, context_length(handle) - new_tokens)) for handle in handles]
    total = (_REPEATS + 1) * len(handles)
    for repeat in range(_REPEATS + 1):
        for index, handle in enumerate(handles):
            progress.update(repeat * len(handles) + index, total, "runs", f"timing {handle.name}")
            run = timed_run(handle, lengths[index], new_tokens)
            if repeat:  # the first one warms up
                runs[index].append(run)
    return [_summary(handle, own, length, new_tokens) for handle, own, length in zip(handles, runs, lengths, strict=True)]


def device_name(model: Any) -> str:
    """What a model runs on, for people: the graphics card, or the processor with the threads in use."""
    if model.device.type == "cuda":
        return str(torch.cuda.get_device_name(model.device))
    if model.device.type != "cpu":
        return str(model.device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads != 1 else ''}"


def timed_run(handle: ModelHandle, prompt_tokens: int, new_tokens: int) -> tuple[float, float, int]:
    """Seconds of one prefill, seconds of decoding after it, and bytes of the cache at the end."""
    with handle.borrow() as model, torch.no_grad():
        ids = torch.randint(0, model.get_input_embeddings().num_embeddings, (1, prompt_tokens), device=model.device)
        began = _now(model)
        step = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        middle = _now(model)
        for _ in range(new_tokens):
            step = model(input_ids=step.logits[:, -1:].argmax(-1), past_key_values=step.past_key_values, use_cache=True)
        ended = _now(model)
    return middle - began, ended - middle, _cache_bytes(step.past_key_values)


def _summary(handle: ModelHandle, runs: list[tuple[float, float, int]], prompt_tokens: int, new_tokens: int) -> Speed:
    prefills, decodes = [1000 * run[0] for run in runs], [new_tokens / run[1] for run in runs]
    with handle.borrow() as model:
        device = device_name(model)
    return Speed(
        prefill_ms=median(prefills),
        prefill_range=(min(prefills), max(prefills)),
        decode_tokens_per_s=median(decodes),
        decode_range=(min(decodes), max(decodes)),
        n_parameters=handle.n_parameters,
        n_bytes=handle.n_bytes,
        cache_bytes=runs[-1][2],
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        repeats=len(runs),
        device=device,
    )


def _cache_bytes(cache: Any) -> int:
    """Bytes of every tensor that the layers of a cache hold."""
    tensors = [value for layer in getattr(cache, "layers", ()) for value in vars(layer).values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(named, "") or "processor"
    except OSError:
        return platform.processor() or f"processor with {os.cpu_count()} cores"


def _now(model: Any) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    elif model.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
