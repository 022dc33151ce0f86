"""A calibration set in batches: sequences of similar length together, so that little of what is computed is padding."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError

_PADDING = 0.05
"""share of a batch's positions that may be padding"""
_FIRST, _GROWTH = 512, 0.5
"""tokens of a stretch at least, and what it adds to those before it, which is as much as a picture of it can change"""


def stretches(calibration: CalibrationSet, most: int) -> Iterator[list[list[int]]]:
    """The batches of the set in its own order, in stretches of 512 tokens to one full batch: what was read after each is the beginning
    of the set, a fair sample of it, which its shortest sequences are not."""
    stretch: list[int] = []
    before = now = 0
    for number, length in enumerate(calibration.lengths):
        stretch.append(number)
        now += length
        if now >= max(_FIRST, min(most, _GROWTH * before)):
            yield list(batches(calibration.lengths, most, stretch))
            stretch, before, now = [], before + now, 0
    if stretch:
        yield list(batches(calibration.lengths, most, stretch))


def batches(lengths: Sequence[int], most: int, numbers: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Indices of sequences of similar length: at most `most` positions a batch, and little of them padding. `numbers`: of these alone."""
    batch: list[int] = []
    real = 0
    for index in sorted(range(len(lengths)) if numbers is None else numbers, key=lambda i: lengths[i]):
        positions = (len(batch) + 1) * lengths[index]
        if batch and (positions > most or real + lengths[index] < (1 - _PADDING) * positions):
            yield batch
            batch, real = [], 0
        batch.append(index)
        real += lengths[index]
    if not batch:
        raise InputError("The calibration set is empty; choose another one.")
    yield batch


def inputs_of(calibration: CalibrationSet, batch: list[int]) -> tuple[Tensor, Int[Tensor, "batch length"]]:
    """What the model reads for the sequences numbered in `batch`, and the mask of their positions.

    Token ids are padded on the right; any id will do as padding: it is masked and dropped. All positions of an image count.
    """
    sequences = [calibration.sequences[i] for i in batch]
    if calibration.positions is not None:
        return torch.stack(sequences), torch.ones(len(sequences), calibration.positions, dtype=torch.long)
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(s) for s in sequences]).unsqueeze(1)
    return ids, mask.long()
