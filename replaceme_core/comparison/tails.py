"""What the removal of any span costs, by running only the blocks behind it: the stream before it is the original's, read once and kept.

    tails = Tails(handle, calibration.heldout_text(640, 64))
    removed, fitted = tails.measure([LinearTransform.removal(Cut((span,))), solvers.fit(measurement, span, method)])
    fitted.quality.kl, fitted.quality.kl_low, fitted.quality.n_tokens

A span that is removed hands boundary `start` on to block `end`; with a matrix T in its carrier the stream there is Y + M T, where M is
what the carrier's output projection adds and Y the rest. That is what the merged model computes, in another order of rounding. The blocks
behind are run by the model's own forward pass, so that masks and positions are its own. A model that cannot go on in the middle (tried on
a few tokens) computes everything each time, with hooks in the place of surgery. Nothing is cut and nothing is merged.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import LinearTransform, ModelHandle, Span
from replaceme_core.calibration.batches import batches
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.comparison.compare import Divergence
from replaceme_core.comparison.figures import figures
from replaceme_core.comparison.next_token import SHORTER
from replaceme_core.comparison.together import Together, agree
from replaceme_core.errors import InputError, NumericsError
from replaceme_core.models.running import capture, resume
from replaceme_core.models.running.divergence import Table, require_finite
from replaceme_core.models.running.precision import exact, exact_device
from replaceme_core.progress import SILENT, Progress

_POSITIONS = 640
"""run in one go"""
_SAID = "measured KL"
_TRIED = 8
"""tokens on which it is tried whether the model can go on in the middle"""


@dataclass(frozen=True, eq=False)
class Tail:
    """One span that is gone: figures as `compare.divergence` gives them of the cut model, and the KL of every sequence."""

    span: Span
    method: str
    quality: Divergence
    sums: Float64[Tensor, " sequences"]
    """of KL over the tokens of each sequence, for paired intervals"""
    counts: Float64[Tensor, " sequences"]
    """predicted tokens of each sequence"""
    text: TextPart


@dataclass(frozen=True, eq=False)
class _Batch:
    """Sequences [batch, length]: the original's stream at every boundary, and M of every block."""

    places: list[int]
    """of the sequences in the text"""
    ids: Tensor
    mask: Tensor | None
    predicted: Tensor
    """positions in the flat order that are followed by a token"""
    streams: tuple[Tensor, ...]
    writers: dict[int, Tensor]

    @property
    def following(self) -> Tensor:
        return self.ids.flatten()[self.predicted + 1]

    @property
    def of_sequence(self) -> Tensor:
        """For every predicted position."""
        return torch.tensor(self.places)[self.predicted // self.ids.shape[1]]


class Tails:
    """One language model's streams on one text, of any family, whether it can be cut in memory or not.

    Memory: (2 L + 1) x width numbers a token, in the model's precision and on its devices. Raises `InputError` for a model of images
    or tokens that it does not have, `NumericsError` where its logits are not finite.
    """

    def __init__(self, handle: ModelHandle, text: TextPart, progress: Progress = SILENT) -> None:
        if handle.family.inputs != "text":
            raise InputError(f"'{handle.name}' reads images; the KL of next-token probabilities is measured of language models alone.")
        if not text.sequences:
            raise InputError("There is no text to measure on; give one with sequences of two tokens or more.")
        self._handle, self.text = handle, compare.readable([handle], text, None)
        self._together = Together([handle], max(self.text.sequences, key=len))
        self._beside = self._together.systems[0].beside
        if self._beside is not None and not self._goes_on():
            self._beside = None
        lengths, self._batches = list(map(len, self.text.sequences)), list[_Batch]()
        with memory.told(f"to keep the streams of {self.text.n_tokens:,} tokens at every boundary", SHORTER):
            for chosen in batches(lengths, _POSITIONS):
                progress.update(len(self._batches), 0, "", "the original's streams")
                self._batches.append(self._read(chosen))

    @property
    def whole(self) -> bool:
        """Whether this model cannot go on in the middle, so that every measurement runs all of it, twice."""
        return self._beside is None

    def measure(self, transforms: Sequence[LinearTransform], progress: Progress = SILENT) -> list[Tail | NumericsError]:
        """KL to the original, perplexity and top-1 agreement with each of these spans gone and its T in the carrier, if it has one.

        The error of one whose logits are not finite stands in its place. Several at once share the original's head.
        Transforms that carry new weights (refits), stand-ins or further spans are no case for this: raises `InputError`.
        """
        for transform in transforms:
            _require_plain(transform)
            transform.span.check(self._handle.n_blocks)
        rows = torch.zeros(1 + len(transforms), len(self.text.sequences), compare.SUMS, dtype=torch.float64)
        rows[:, :, 0] = self.text.n_scored
        failed: dict[int, NumericsError] = {}
        with memory.told(f"to measure {len(transforms)} span(s) on {self.text.n_tokens:,} tokens", SHORTER):
            for batch in self._batches:
                for model, own in self._figures(batch, transforms, failed, progress).items():
                    rows[model, :, 1:].index_add_(0, batch.of_sequence, own)
        found: list[Tail | NumericsError] = []
        for number, transform in enumerate(transforms, start=1):
            name = f"{transform.span}, {transform.method}"
            tail = Tail(
                transform.span,
                transform.method,
                compare.summary(name, rows[number], rows[0], self.text),
                rows[number, :, 2],
                rows[0, :, 0],
                self.text,
            )
            found.append(failed.get(number, tail))
        return found

    def _read(self, chosen: list[int]) -> _Batch:
        ids = torch.nn.utils.rnn.pad_sequence([self.text.sequences[at] for at in chosen], batch_first=True)
        lengths, place = torch.tensor([len(self.text.sequences[at]) for at in chosen]), torch.arange(ids.shape[1])
        mask = (place < lengths.unsqueeze(1)).long() if bool((lengths < ids.shape[1]).any()) else None
        predicted = compare.predicting(self.text, chosen, ids.shape[1])
        if self._beside is None:
            return _Batch(chosen, ids, mask, predicted, (), {})
        with self._handle.borrow() as model:
            there = None if mask is None else mask.to(model.device)
            states = capture.read_states(model, self._handle.family, ids.to(model.device), there)
        return _Batch(chosen, ids, mask, predicted, states.boundaries, states.writers)

    def _figures(
        self, batch: _Batch, transforms: Sequence[LinearTransform], failed: dict[int, NumericsError], progress: Progress
    ) -> dict[int, Tensor]:
        """[negative log-likelihood, KL, agreement] at each predicted position, of the original (0) and of every transform."""
        if self._beside is None:
            return self._figures_whole(batch, transforms, failed, progress)
        ends = [batch.streams[-1]]
        for number, transform in enumerate(transforms):
            progress.update(number, len(transforms), "places", _SAID)
            ends.append(self._end(batch, transform))
        progress.update(len(transforms), len(transforms), "places", _SAID)
        return figures(self._together.ends(batch.ids, batch.mask, ends), len(ends), batch.predicted, batch.following, failed)

    def _end(self, batch: _Batch, transform: LinearTransform) -> Tensor:
        """The stream behind the last block."""
        span, family = transform.span, self._handle.family
        stream = batch.streams[span.start]
        if transform.matrix is not None:
            written = batch.writers[span.carrier].to(stream.device)
            change = transform.matrix.to(exact_device(stream.device)) - torch.eye(len(transform.matrix), dtype=transform.matrix.dtype)
            stream = (exact(stream) + exact(written) @ change.to(exact(stream))).to(stream)
        last = len(batch.streams) - 1
        with self._handle.borrow() as model:
            ids, mask = batch.ids.to(model.device), None if batch.mask is None else batch.mask.to(model.device)
            return resume.read_streams(model, family, ids, mask, {last}, resume.Start(span.end, stream), self._beside or [])[last]

    def _goes_on(self) -> bool:
        """Whether the model, begun in the middle, ends where a plain pass ends: no late block may read what an early one computed."""
        ids = self.text.sequences[0][:_TRIED].unsqueeze(0)
        with self._handle.borrow() as model:
            try:
                _, streams, beside = resume.read_outputs(model, self._handle.family, ids.to(model.device))
                last = len(streams) - 1
                for begin in {1, last // 2, last - 1} - {0}:
                    start = resume.Start(begin, streams[begin])
                    end = resume.read_streams(model, self._handle.family, ids.to(model.device), None, {last}, start, beside)[last]
                    if not agree(streams[-1], end):
                        return False
            except (AttributeError, TypeError, RuntimeError, KeyError, IndexError):  # of a model whose blocks hand on more than the stream
                return False
        return True

    def _figures_whole(
        self, batch: _Batch, transforms: Sequence[LinearTransform], failed: dict[int, NumericsError], progress: Progress
    ) -> dict[int, Tensor]:
        base = Table(self._logits(batch, None))
        following, found = batch.following, dict[int, Tensor]()
        for number, transform in enumerate((None, *transforms)):
            progress.update(number, 1 + len(transforms), "places", _SAID)
            try:
                own = base if transform is None else Table(self._logits(batch, transform))
            except NumericsError as error:
                failed[number] = error
                continue
            kl = torch.zeros(len(following)) if own is base else base.divergences(own)
            same = own.most_likely == base.most_likely
            found[number] = torch.stack([column.cpu().double() for column in (-own.log_likelihoods(following), kl, same)], -1)
        return found

    def _logits(self, batch: _Batch, transform: LinearTransform | None) -> Tensor:
        """Of the whole model; hooks take the blocks out."""
        family = self._handle.family
        with self._handle.borrow() as model, torch.no_grad():
            hooks: Any = nullcontext() if transform is None else capture.simulated(model, family, transform.span, transform.matrix)
            mask = None if batch.mask is None else batch.mask.to(model.device)
            with hooks:
                logits = model(input_ids=batch.ids.to(model.device), attention_mask=mask, use_cache=False).logits.flatten(0, 1)
        found: Tensor = logits[batch.predicted.to(logits.device)]
        require_finite(found, self._handle.name if transform is None else f"{self._handle.name} without {transform.span}")
        return found


def _require_plain(transform: LinearTransform) -> None:
    if transform.weights or transform.stand_ins or transform.others:
        raise InputError(
            f"'{transform.method}' at {transform.cut} changes more than one matrix in one carrier, which the blocks behind the span do not "
            "tell; prune the model and compare it (compare.divergence)."
        )
