"""Original and pruned models side by side: perplexity and KL on held-out text, token by token, generation, speed.

Models are borrowed for one forward pass at a time, so that several users of one model take turns.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration import heldout_texts, prepare
from replaceme_core.errors import InputError
from replaceme_core.plan import CalibrationSection
from replaceme_core.progress import SILENT, Progress

_RESAMPLES = 1000
_TOP = 5
_REPEATS = 5
_SHORTER = f"a shorter text; or, for the weights, {memory.HOLD_LESS}"


@dataclass(frozen=True)
class Divergence:
    """How far a model's next-token distributions lie from the original's. Intervals: 95 %, bootstrap over sequences."""

    name: str
    perplexity: float
    perplexity_low: float
    perplexity_high: float
    kl: float
    """mean KL(original || model) per token, in nats"""
    kl_low: float
    kl_high: float
    agreement: float
    """share of tokens whose most likely next token is the original's"""
    n_tokens: int
    n_sequences: int


@dataclass(frozen=True)
class TokenDifference:
    """What original and other expect at the place of one token of a text."""

    token: str
    kl: float
    """KL(original || other) of the distribution that predicts this token, in nats; 0 for the first"""
    top_original: list[tuple[str, float]]
    top_other: list[tuple[str, float]]


@dataclass(frozen=True)
class Speed:
    """Measured on this machine: medians over `repeats`."""

    prefill_ms: float
    decode_tokens_per_s: float
    n_parameters: int
    n_bytes: int
    repeats: int


def heldout_sequences(handle: ModelHandle, max_tokens: int = 4096, texts: list[str] | None = None) -> list[Tensor]:
    """Token sequences of the demo's held-out text, or of `texts`, for `divergence`."""
    section = CalibrationSection(max_tokens=max_tokens)
    return list(prepare(section, handle.tokenizer, heldout_texts() if texts is None else texts, "held-out").sequences)


def divergence(original: ModelHandle, others: list[ModelHandle], sequences: list[Tensor], progress: Progress = SILENT) -> list[Divergence]:
    """Perplexity of every model and KL to the original, the original first. All models must share the vocabulary."""
    models = [original, *others]
    rows: list[list[Tensor]] = [[] for _ in models]
    for index, sequence in enumerate(sequences):
        reference = log_probabilities(original, sequence)
        for row, handle in zip(rows, models, strict=True):
            row.append(_sums(reference, reference if handle is original else log_probabilities(handle, sequence), sequence))
        progress.update(index + 1, len(sequences), "sequences", "perplexity and KL")
    return [_summary(handle.name, torch.stack(row)) for handle, row in zip(models, rows, strict=True)]


def token_differences(original: ModelHandle, other: ModelHandle, text: str) -> list[TokenDifference]:
    """Each token of `text` with the KL at its place and both models' five most likely tokens there."""
    ids = encode(original, text)
    left, right = log_probabilities(original, ids), log_probabilities(other, ids)
    kl = _kl(left, right)
    words = [original.tokenizer.decode([i]) for i in ids.tolist()]
    first = TokenDifference(words[0], 0.0, [], [])
    return [first] + [
        TokenDifference(word, float(kl[at]), _top(original, left[at]), _top(original, right[at])) for at, word in enumerate(words[1:])
    ]


def stream(handle: ModelHandle, prompt: str, max_new_tokens: int = 60, temperature: float = 0.0, seed: int = 0) -> Iterator[str]:
    """Pieces of text as they are generated; greedy at temperature 0, else sampled with the seed. Stops at end of text."""
    ids = encode(handle, prompt).unsqueeze(0)
    ends = _end_tokens(handle)
    generator = torch.Generator().manual_seed(seed)
    cache, written, shown = None, [], ""
    for _ in range(min(max_new_tokens, context_length(handle) - ids.shape[1])):
        with memory.told("to generate text", _SHORTER), handle.borrow() as model, torch.no_grad():
            step = model(input_ids=ids.to(model.device), past_key_values=cache, use_cache=True)
        cache, logits = step.past_key_values, step.logits[0, -1].float().cpu()
        if temperature > 0:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        else:
            token = int(logits.argmax())
        if token in ends:
            return
        written.append(token)
        text = handle.tokenizer.decode(written)
        if not text.endswith("\ufffd"):  # a character whose bytes are not complete yet
            yield text[len(shown) :]
            shown = text
        ids = torch.tensor([[token]])


def speed(handle: ModelHandle, prompt_tokens: int = 128, new_tokens: int = 32) -> Speed:
    """Time of one prefill and of greedy decoding after it, random tokens, batch of one."""
    prompt_tokens = min(prompt_tokens, context_length(handle) - new_tokens)
    prefills, decodes = [], []
    for repeat in range(_REPEATS + 1):
        with handle.borrow() as model, torch.no_grad():
            ids = torch.randint(0, model.get_input_embeddings().num_embeddings, (1, prompt_tokens), device=model.device)
            began = _now(model)
            step = model(input_ids=ids, use_cache=True, logits_to_keep=1)
            middle = _now(model)
            for _ in range(new_tokens):
                step = model(input_ids=step.logits[:, -1:].argmax(-1), past_key_values=step.past_key_values, use_cache=True)
            ended = _now(model)
        if repeat:  # the first one warms up
            prefills.append(middle - began)
            decodes.append(ended - middle)
    return Speed(1000 * median(prefills), new_tokens / median(decodes), handle.n_parameters, handle.n_bytes, _REPEATS)


def encode(handle: ModelHandle, text: str) -> Tensor:
    """Token ids of a prompt, [length]. Raises `InputError` when it is empty or longer than the context."""
    ids = handle.tokenizer(text, verbose=False)["input_ids"] if text.strip() else []
    if not ids:
        raise InputError("The prompt is empty; write a few words.")
    if len(ids) >= context_length(handle):
        raise InputError(f"The prompt has {len(ids)} tokens, the model reads at most {context_length(handle)}; shorten it.")
    return torch.tensor(ids, dtype=torch.long)


def context_length(handle: ModelHandle) -> int:
    """Positions the model was built for."""
    with handle.borrow() as model:
        return int(getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or 2048)


def log_probabilities(handle: ModelHandle, ids: Tensor) -> Float64[Tensor, "positions vocabulary"]:
    """log p(next token) after each token but the last of one sequence [length]."""
    with memory.told(f"to compare the next-token probabilities of {len(ids):,} tokens", _SHORTER):
        with handle.borrow() as model, torch.no_grad():
            logits = model(input_ids=ids.unsqueeze(0).to(model.device), use_cache=False).logits[0, :-1]
        scores: Tensor = logits.cpu().double()
        return scores.log_softmax(-1)


def _kl(left: Tensor, right: Tensor) -> Tensor:
    """KL per row; terms of probability 0 count nothing."""
    return (left.exp() * (left - right)).nan_to_num(nan=0.0).sum(-1).clamp_min(0)


def _sums(reference: Tensor, own: Tensor, sequence: Tensor) -> Tensor:
    """[tokens, sum of negative log-likelihood, sum of KL, agreements] of one sequence."""
    likelihood = own.gather(-1, sequence[1:].unsqueeze(-1)).sum()
    agreements = (own.argmax(-1) == reference.argmax(-1)).sum()
    return torch.stack([torch.tensor(float(len(own))).double(), -likelihood, _kl(reference, own).sum(), agreements.double()])


def _summary(name: str, rows: Float64[Tensor, "sequences sums"]) -> Divergence:
    tokens, likelihood, kl, agreements = rows.unbind(1)
    n = float(tokens.sum())
    low, high = _interval(likelihood, tokens)
    kl_low, kl_high = _interval(kl, tokens)
    return Divergence(
        name=name,
        perplexity=_exp(float(likelihood.sum()) / n),
        perplexity_low=_exp(low),
        perplexity_high=_exp(high),
        kl=float(kl.sum()) / n,
        kl_low=kl_low,
        kl_high=kl_high,
        agreement=float(agreements.sum()) / n,
        n_tokens=int(n),
        n_sequences=len(rows),
    )


def _interval(sums: Tensor, counts: Tensor) -> tuple[float, float]:
    """95 % percentile bootstrap of sum / count, resampling sequences."""
    from scipy.stats import bootstrap

    if len(sums) < 2 or bool((sums == 0).all()):
        value = float(sums.sum() / counts.sum())
        return value, value
    result = bootstrap(
        (sums.numpy(), counts.numpy()),
        lambda total, n, axis=-1: total.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=0,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _top(handle: ModelHandle, row: Tensor) -> list[tuple[str, float]]:
    values, ids = row.exp().topk(_TOP)
    return [(handle.tokenizer.decode([i]), p) for i, p in zip(ids.tolist(), values.tolist(), strict=True)]


def _end_tokens(handle: ModelHandle) -> set[int]:
    with handle.borrow() as model:
        ends: Any = model.generation_config.eos_token_id
    found = ends if isinstance(ends, list) else [ends]
    return {int(end) for end in [*found, handle.tokenizer.eos_token_id] if end is not None}


def _now(model: Any) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _exp(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).exp())
