"""Every place of a span, measured by the blocks behind it alone: the stream before it is the original's, so it is read once and kept.

A span that is removed hands boundary `start` on to block `end`; with a matrix T in its carrier the stream there is Y + M T, where M is
what the carrier's output projection adds and Y the rest. That is what the merged model computes, in another order of rounding
(tests/demo/test_lesson_tails.py measures both).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, ModelHandle
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison.intervals import interval
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.running.capture import Call, read_calls, read_states
from replaceme_core.models.running.divergence import divergences, log_likelihoods


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of one length [batch, length]: the original's streams at every boundary, M of every block, how blocks are called, logits."""

    places: list[int]
    """of the sequences in the text"""
    ids: Tensor
    streams: tuple[Tensor, ...]
    writers: dict[int, Tensor]
    calls: list[Call]
    logits: Tensor


@dataclass(frozen=True)
class Tail:
    """Means per token with the 95 % interval of the KL over sequences."""

    kl: float
    low: float
    high: float
    perplexity: float
    agreement: float


class Tails:
    """One model's streams on one text. It must be a model with its final norm at `model.model.norm`, as Llama and its kin have."""

    def __init__(self, handle: ModelHandle, text: TextPart) -> None:
        self._handle = handle
        with handle.borrow() as model:
            self._blocks = blocks_of(model, handle.family)
            self._batches = [self._read(model, places, ids) for places, ids in _batches(text)]

    def measure(self, transform: LinearTransform) -> Tail:
        """KL to the original, perplexity and top-1 agreement of the model with this span gone and this T in its carrier (None: nothing)."""
        rows: dict[int, list[float]] = {}
        with self._handle.borrow() as model, torch.no_grad():
            for batch in self._batches:
                logits = self._end(model, self._behind(batch, transform))
                rows |= zip(batch.places, _sums(batch.logits, logits, batch.ids), strict=True)
        tokens, likelihood, kl, same = torch.tensor([rows[place] for place in sorted(rows)], dtype=torch.float64).unbind(1)
        n = float(tokens.sum())
        low, high = interval(kl, tokens)
        assert low is not None, "the text has ten sequences or more"
        assert high is not None
        mean = float(kl.sum()) / n
        return Tail(mean, max(0.0, low), high, float((likelihood.sum() / n).exp()), float(same.sum()) / n)

    def _read(self, model: Any, places: list[int], ids: Tensor) -> Batch:
        family = self._handle.family
        states = read_states(model, family, ids, None)
        calls, _ = read_calls(model, family, ids, None, ())
        return Batch(places, ids, states.boundaries, states.writers, calls, self._end(model, states.boundaries[-1]))

    def _behind(self, batch: Batch, transform: LinearTransform) -> Tensor:
        span = transform.span
        stream = batch.streams[span.start]
        if transform.matrix is not None:
            written = batch.writers[span.carrier]
            stream = stream - written + written @ transform.matrix.to(written)
        for number in range(span.end, len(self._blocks)):
            stream = batch.calls[number].run(self._blocks[number], stream)
        return stream

    @staticmethod
    def _end(model: Any, stream: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model.lm_head(model.model.norm(stream))[:, :-1]
        return logits


def _batches(text: TextPart) -> Iterator[tuple[list[int], Tensor]]:
    """Sequences of one length together, so that there is no padding."""
    for length in sorted({len(sequence) for sequence in text.sequences if len(sequence) > 1}):
        places = [place for place, sequence in enumerate(text.sequences) if len(sequence) == length]
        yield places, torch.stack([text.sequences[place] for place in places])


def _sums(base: Tensor, own: Tensor, ids: Tensor) -> list[list[float]]:
    """[tokens, sum of negative log-likelihood, sum of KL, agreements] of every sequence."""
    found = []
    for left, right, row in zip(base, own, ids, strict=True):
        lost = -float(log_likelihoods(right, row[1:]).sum())
        same = float((left.argmax(-1) == right.argmax(-1)).sum())
        found.append([float(len(right)), lost, float(divergences(left, right).sum()), same])
    return found
