"""Text sources -> a calibration set: token sequences without padding, split into a train and a held-out part.

Readers are strict: a file that is empty, binary, malformed or lacks the column raises `TextError` with file and line.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.calibration.hub_text import stream, stream_preset
from replaceme_core.calibration.text_files import RenderedChat, parse, render
from replaceme_core.errors import InputError, TextError
from replaceme_core.plans.plan import CalibrationSection

DEMO = Path(__file__).resolve().parent.parent.parent / "assets" / "demo"
DEMO_SETS = {
    "mixture": "a little of everything the demo model has learnt",
    "stories": "short stories about people, objects and places",
    "questions": "stories followed by questions and answers",
    "facts": "facts of the demo world, and arithmetic",
    "random": "random words: what happens when calibration text means nothing",
}
_PREVIEWS = 20


@dataclass(frozen=True)
class Part:
    """What one source gave to a calibration set."""

    n_tokens: int
    n_sequences: int
    previews: list[str]


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Token sequences, which of them are held out, and a fingerprint of exactly these tokens. Or images, each one a sequence."""

    name: str
    sequences: Sequence[Tensor]
    """1-D int64 tensors of different lengths; or pixel values [channels, height, width], all of one shape"""
    heldout: list[bool]
    fingerprint: str
    previews: list[str]
    positions: int | None = None
    """positions of every image, patches and CLS; None: the sequences are token ids"""
    n_first: int | None = None
    """sequences of the first source, which come before those of the second; None: there is one source"""
    second_previews: list[str] = field(default_factory=list)
    skip_first: bool = False
    """whether the first token of every sequence stays out of fits; distances count it"""

    @property
    def parts(self) -> list[Part]:
        """What each source gave, one or two."""
        cut = len(self.sequences) if self.n_first is None else self.n_first
        found = [Part(sum(self.lengths[:cut]), cut, self.previews)]
        if self.n_first is not None:
            found.append(Part(sum(self.lengths[cut:]), len(self.sequences) - cut, self.second_previews))
        return found

    @property
    def lengths(self) -> list[int]:
        return [self.positions] * len(self.sequences) if self.positions else [len(sequence) for sequence in self.sequences]

    @property
    def n_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def n_heldout_tokens(self) -> int:
        return sum(n for n, out in zip(self.lengths, self.heldout, strict=True) if out)


def prepare(section: CalibrationSection, tokenizer: Any, texts: Iterable[str] | None = None, name: str | None = None) -> CalibrationSet:
    """Reads, shuffles and tokenises the set that `section` names, or `texts` when they are given.

    Sequences are cut to `max_length`, and the last one so that exactly `max_tokens` are used if the texts have as many.
    Splitting is by sequence, copies together, so that no held-out token shares a context with a fitted one.
    """
    generator = torch.Generator().manual_seed(section.seed)
    rows = _shuffled(list(texts) if texts is not None else list(read_source(section, tokenizer)), generator)
    second = round(section.second_share * section.max_tokens) if section.second else 0
    chosen = _take(rows, tokenizer, section.max_tokens - second, section.max_length)
    n_first, more = (len(chosen) if section.second else None), []
    if section.second:
        more = _shuffled(list(read_source(section.model_copy(update={"source": section.second}), tokenizer)), generator)
        chosen += _take(more, tokenizer, second, section.max_length)
    if len(chosen) < 2:
        raise InputError(
            f"The calibration set gives {len(chosen)} usable sequence(s); at least 2 are needed, one to fit and one to check. "
            "Add text, or lower the sequence length so that a long text is cut into more sequences."
        )
    heldout = hold_out([sequence.numpy().tobytes() for sequence in chosen], section.holdout, generator)
    digest = hashlib.sha256()
    for sequence, out in zip(chosen, heldout, strict=True):
        digest.update(b"h" if out else b"t")
        digest.update(sequence.numpy().tobytes())
    if section.skip_first:
        digest.update(b"first tokens left out")
    return CalibrationSet(
        name=name or _name(section),
        sequences=chosen,
        heldout=heldout,
        fingerprint=digest.hexdigest()[:16],
        previews=rows[:_PREVIEWS],
        n_first=n_first,
        second_previews=more[:_PREVIEWS],
        skip_first=section.skip_first,
    )


def _name(section: CalibrationSection) -> str:
    return f"{section.source} + {section.second_share:.0%} {section.second}" if section.second else section.source


def _shuffled(rows: list[str], generator: torch.Generator) -> list[str]:
    return [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]


def _take(rows: list[str], tokenizer: Any, max_tokens: int, max_length: int) -> list[Tensor]:
    """Token sequences up to the budget; a long text is cut into several, a text of one token is left out."""
    chosen: list[Tensor] = []
    left = max_tokens
    for row in rows:
        special = not isinstance(row, RenderedChat)
        ids = torch.tensor(tokenizer(row, verbose=False, add_special_tokens=special)["input_ids"], dtype=torch.long)
        for piece in ids.split(max_length):
            piece = piece[: left if left - len(piece) != 1 else len(piece) - 1]  # a single token left over could not be used
            if len(piece) >= 2:
                chosen.append(piece)
                left -= len(piece)
        if left < 2:
            break
    return chosen


def hold_out(sequences: list[bytes], share: float, generator: torch.Generator) -> list[bool]:
    """Which sequences are held out: at least `share` of them, at least one, never all; copies (equal bytes) stay together."""
    copies: dict[bytes, list[int]] = {}
    for index, sequence in enumerate(sequences):
        copies.setdefault(sequence, []).append(index)
    groups = list(copies.values()) if len(copies) > 1 else [[index] for index in range(len(sequences))]
    heldout = [False] * len(sequences)
    for pick in torch.randperm(len(groups), generator=generator)[:-1].tolist():
        if sum(heldout) >= max(1, round(share * len(sequences))):
            break
        for index in groups[pick]:
            heldout[index] = True
    return heldout


def read_source(section: CalibrationSection, tokenizer: Any = None) -> Iterator[str]:
    """The texts of 'demo:NAME', 'preset:NAME', 'hub:ID', or a local file. Chats are rendered with the tokenizer's template."""
    source = section.source
    kind, _, rest = source.partition(":")
    if kind == "demo":
        if rest not in DEMO_SETS:
            raise InputError(f"There is no demo calibration set '{rest}'; choose one of {', '.join(DEMO_SETS)}.")
        return iter(read_file(DEMO / "calibration" / f"{rest}.jsonl"))
    if kind == "preset":
        return iter(render(source, list(islice(stream_preset(rest), section.max_texts)), tokenizer))
    if kind == "hub":
        rows = stream(rest, section.config, section.split, section.column)
        return iter(render(source, list(islice(rows, section.max_texts)), tokenizer))
    if source == "self":
        raise InputError("Text written by the model itself comes from `self_text.generate`; pass it as `texts`.")
    return iter(read_file(Path(source), section.column, tokenizer))


def read_file(path: Path, column: str = "text", tokenizer: Any = None) -> list[str]:
    """The texts of one local file, by its ending: txt, jsonl, csv, parquet."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TextError(f"{path} cannot be read ({error.strerror}); check the path and that the file exists.") from error
    return read_upload(path.name, data, column, tokenizer)


def read_upload(filename: str, data: bytes, column: str = "text", tokenizer: Any = None) -> list[str]:
    """The texts of an uploaded file. Raises `TextError` naming file, line and column."""
    return render(filename, parse(filename, data, column), tokenizer)


def heldout_texts() -> list[str]:
    """The demo's held-out documents: generated from seeds that neither training nor calibration used."""
    return read_file(DEMO / "heldout.jsonl")
