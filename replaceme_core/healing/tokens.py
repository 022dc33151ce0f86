"""The calibration set in training batches: the train part in a new order every round, the held-out part always the same."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from replaceme_core.calibration.batches import inputs_of
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError
from replaceme_core.plans.plan import HealingSection

_JITTER = 0.2
"""share of its length by which a sequence may be sorted out of place, so that batches differ from round to round"""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Sequences padded on the right."""

    ids: Int[Tensor, "batch length"]
    mask: Int[Tensor, "batch length"]
    counted: Bool[Tensor, "batch length"]
    """positions whose next token is part of the text: those that `compare.divergence` counts"""
    n_tokens: int

    @property
    def n_counted(self) -> int:
        return int(self.counted.sum())


class Tokens:
    """Batches of at most `batch_tokens` positions; a longer sequence is a batch of its own."""

    def __init__(self, calibration: CalibrationSet, train: list[int], heldout: list[int], section: HealingSection) -> None:
        self._calibration, self._train, self._section = calibration, train, section
        self._round: list[list[int]] = []
        self._first = 0
        """step at which the round began"""
        self._number = -1
        self.heldout = [self._made(batch) for batch in self._filled(sorted(heldout, key=self._length))]

    def batch(self, step: int) -> TokenBatch:
        """The batch of a step: a function of the seed and the step alone."""
        if step < self._first:
            self._round, self._first, self._number = [], 0, -1
        while step >= self._first + len(self._round):
            self._first += len(self._round)
            self._number += 1
            self._round = self._shuffled(self._number)
        return self._made(self._round[step - self._first])

    def _shuffled(self, number: int) -> list[list[int]]:
        """Sequences of about the same length together, the batches in any order."""
        generator = torch.Generator().manual_seed(self._section.seed * 1_000_003 + number)
        jitter = (1 + _JITTER * (2 * torch.rand(len(self._train), generator=generator) - 1)).tolist()
        places = sorted(range(len(self._train)), key=lambda at: self._length(self._train[at]) * jitter[at])
        filled = self._filled([self._train[at] for at in places])
        return [filled[i] for i in torch.randperm(len(filled), generator=generator).tolist()]

    def _filled(self, order: list[int]) -> list[list[int]]:
        found: list[list[int]] = []
        longest = 0
        for index in order:
            longest = max(longest, self._length(index))
            if not found or (len(found[-1]) + 1) * longest > self._section.batch_tokens:
                found.append([])
                longest = self._length(index)
            found[-1].append(index)
        return found

    def _made(self, batch: list[int]) -> TokenBatch:
        ids, mask = inputs_of(self._calibration, batch)
        counted = torch.zeros_like(mask, dtype=torch.bool)
        counted[:, :-1] = mask[:, 1:].bool()
        return TokenBatch(ids, mask, counted, int(mask.sum()))

    def _length(self, index: int) -> int:
        return len(self._calibration.sequences[index])


def of(calibration: CalibrationSet, section: HealingSection) -> Tokens:
    """The two parts; a sequence of one token predicts nothing and is left out. `InputError` if a part is empty."""
    parts: dict[bool, list[int]] = {False: [], True: []}
    for index, (length, out) in enumerate(zip(calibration.lengths, calibration.heldout, strict=True)):
        if length > 1:
            parts[out].append(index)
    if not parts[False] or not parts[True]:
        raise InputError(
            "Healing needs a train and a held-out part with sequences of two tokens or more. Use more calibration text (max_tokens)."
        )
    return Tokens(calibration, parts[False], parts[True], section)
