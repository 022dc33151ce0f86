"""Pruned models beside the original, or beside another reference: perplexity and KL on text, with intervals and the part it is of.

The other ways to compare have files of their own and are offered here too: one text token by token (`reading`), what each model writes
(`generation`), speed and memory (`timing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.batches import batches
from replaceme_core.calibration.parts import Part, TextPart
from replaceme_core.comparison import vocabulary
from replaceme_core.comparison.figures import figures
from replaceme_core.comparison.generation import Writer, stream
from replaceme_core.comparison.intervals import LEAST, interval
from replaceme_core.comparison.next_token import context_length, encode, logits_of
from replaceme_core.comparison.reading import Expected, Reading, TokenDifference, read, token_differences
from replaceme_core.comparison.timing import Speed, device_name, speed, speeds
from replaceme_core.comparison.together import Together
from replaceme_core.errors import InputError, NumericsError
from replaceme_core.guard import guarded
from replaceme_core.models.running import limits
from replaceme_core.progress import SILENT, Progress

__all__ = [
    "Divergence",
    "Expected",
    "Reading",
    "Speed",
    "TokenDifference",
    "Writer",
    "attempts",
    "context_length",
    "device_name",
    "divergence",
    "encode",
    "logits_of",
    "read",
    "speed",
    "speeds",
    "stream",
    "token_differences",
]


SUMS = 4
"""of a sequence: predicted tokens, negative log-likelihood, KL, agreements"""
_POSITIONS = 512
"""read in one go: enough for a matrix product to be fast, few enough that Cancel is heard"""


@dataclass(frozen=True)
class Divergence:
    """How far a model's next-token distributions lie from the reference's. Intervals are 95 % (see `intervals`), or None with a `note`."""

    name: str
    perplexity: float
    perplexity_low: float | None
    perplexity_high: float | None
    kl: float
    """mean KL(reference || model) per token, in nats"""
    kl_low: float | None
    kl_high: float | None
    agreement: float
    """share of tokens whose most likely next token is the reference's"""
    n_tokens: int
    n_sequences: int
    n_documents: int
    """that the sequences are pieces of; the intervals are over these"""
    part: Part
    """of the text it was measured on; 'held-out' chose something, so that its figures are a little too good"""
    text: str
    """its name"""
    note: str = ""
    """what is to be said of the intervals, if anything"""
    ratio: float | None = None
    """perplexity / the reference's on the same text"""
    ratio_low: float | None = None
    ratio_high: float | None = None
    """the interval is paired: each resample draws the same documents for both, so it is much narrower than those of the two alone"""

    @property
    def measured_on(self) -> str:
        """For example '4,025 test tokens of the demo's documents (71 sequences)'."""
        return f"{self.n_tokens:,} {'' if self.part == 'given' else self.part + ' '}tokens of {self.text} ({self.n_sequences} sequences)"


@guarded
def divergence(
    reference: ModelHandle, others: list[ModelHandle], text: TextPart | Sequence[Tensor], progress: Progress = SILENT
) -> list[Divergence]:
    """Perplexity of every model and KL to the reference (as a rule the original), the reference first. All must share the vocabulary.

    Raises the `NumericsError` of a model whose logits are not finite.
    """
    found = []
    for row in attempts(reference, others, text, progress):
        if isinstance(row, NumericsError):
            raise row
        found.append(row)
    return found


def attempts(
    reference: ModelHandle, others: list[ModelHandle], text: TextPart | Sequence[Tensor], progress: Progress = SILENT
) -> list[Divergence | NumericsError]:
    """The same, with the error of every other model whose logits are not finite in its place; the reference's is raised."""
    on = text if isinstance(text, TextPart) else TextPart.given(text)
    if not on.n_scored.any():
        raise InputError("There is no text to compare on; give one with sequences of two tokens or more.")
    size, note = vocabulary.common(reference, others)
    handles = [reference, *others]
    on = readable(handles, on, size)
    rows = torch.zeros(len(handles), len(on.sequences), SUMS, dtype=torch.float64)
    rows[:, :, 0] = on.n_scored
    failed: dict[int, NumericsError] = {}
    done, said = 0, (len(on.sequences), "sequences", "perplexity and KL")
    together = Together(handles, max(on.sequences, key=len), size)
    for batch in batches([len(sequence) for sequence in on.sequences], 1 if together.whole else _POSITIONS):
        progress.update(done, *said)
        _add(rows, failed, together, on, batch)
        done += len(batch)
        progress.update(done, *said)
    return [
        failed[number] if number in failed else summary(handle.name, rows[number], rows[0], on, note)
        for number, handle in enumerate(handles)
    ]


def _add(rows: Tensor, failed: dict[int, NumericsError], together: Together, on: TextPart, batch: list[int]) -> None:
    """The sums of one batch, for every model whose logits are finite; an error of the reference is raised."""
    ids = torch.nn.utils.rnn.pad_sequence([on.sequences[at] for at in batch], batch_first=True)
    lengths = torch.tensor([len(on.sequences[at]) for at in batch])
    place = torch.arange(ids.shape[1])
    padded = bool((lengths < ids.shape[1]).any())
    ends = together.read(ids, (place < lengths.unsqueeze(1)).long() if padded else None)
    predicted = predicting(on, batch, ids.shape[1])
    if not len(predicted):
        return
    following, where = ids.flatten()[predicted + 1], torch.tensor(batch)[predicted // ids.shape[1]]
    for number, own in figures(ends, len(rows), predicted, following, failed).items():
        rows[number, :, 1:].index_add_(0, where, own)


def predicting(on: TextPart, batch: list[int], longest: int) -> Int64[Tensor, " scored"]:
    """The positions of a padded batch, flattened, whose next token is scored."""
    first, last = (torch.tensor([of[at] for at in batch]).unsqueeze(1) for of in (on.first_scored, list(map(len, on.sequences))))
    place = torch.arange(longest)
    return ((place >= first - 1) & (place < last - 1)).flatten().nonzero().squeeze(1)


def readable(handles: Sequence[ModelHandle], on: TextPart, size: int | None) -> TextPart:
    """The text with sequences no longer than every model reads. Raises `InputError` for tokens that a model does not have."""
    known = []
    for handle in handles:
        with handle.borrow() as model:
            known.append(limits.positions(model))
    most = min((limit for limit in known if limit is not None), default=None)
    if most is not None and max(map(len, on.sequences)) > most:
        on = replace(
            on, sequences=[sequence[:most] for sequence in on.sequences], name=f"{on.name}, cut to the {most:,} tokens that the models read"
        )
    for handle in handles:
        limits.require_readable(handle, on.sequences)
    vocabulary.require_shared(on.sequences, size)
    return on


def summary(
    name: str, rows: Float64[Tensor, "sequences sums"], reference: Float64[Tensor, "sequences sums"], on: TextPart, said: str = ""
) -> Divergence:
    """The figures of one model from its sums of every sequence: predicted tokens, negative log-likelihood, KL, agreements."""
    tokens, likelihood, kl, agreements = rows.unbind(1)
    n, lost = float(tokens.sum()), likelihood - reference[:, 1]
    groups, note = independent(on)
    counts = groups @ tokens
    (low, high), (kl_low, kl_high), (less, more) = (interval(groups @ sums, counts) for sums in (likelihood, kl, lost))
    return Divergence(
        name=name,
        perplexity=_exp(float(likelihood.sum()) / n),
        perplexity_low=None if low is None else _exp(low),
        perplexity_high=None if high is None else _exp(high),
        kl=float(kl.sum()) / n,
        kl_low=None if kl_low is None else max(0.0, kl_low),
        kl_high=kl_high,
        agreement=float(agreements.sum()) / n,
        n_tokens=int(n),
        n_sequences=len(rows),
        n_documents=len(set(on.documents)),
        part=on.part,
        text=on.name,
        note=" ".join(filter(None, (note, _opening(on), said))),
        ratio=_exp(float(lost.sum()) / n),
        ratio_low=None if less is None else _exp(less),
        ratio_high=None if more is None else _exp(more),
    )


def _opening(on: TextPart) -> str:
    """What is said of tokens that are read and not counted."""
    most = max(on.first_scored)
    said = f"What many of these texts begin with ({most} tokens, such as a template's header) is read and not counted."
    return said if most > 1 else ""


def independent(on: TextPart) -> tuple[Float64[Tensor, "groups sequences"], str]:
    """What intervals draw: documents, else single sequences; as a matrix that adds up their sequences. And what to say of it."""
    known = sorted(set(on.documents))
    each = torch.eye(len(on.documents), dtype=torch.float64)
    if len(known) >= LEAST:
        return (torch.tensor(on.documents) == torch.tensor(known).unsqueeze(1)).double(), ""
    if len(each) >= LEAST:
        return each, (
            f"The {len(each)} sequences are pieces of {len(known)} document(s), fewer than {LEAST}, so that the intervals hold for these and "
            "are too narrow for others."
        )
    return each, f"No intervals: {len(each)} sequence(s) are fewer than {LEAST}. Compare on more text."


def _exp(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).exp())
