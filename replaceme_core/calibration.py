"""Text sources -> a calibration set: token sequences without padding, split into a train and a held-out part.

Readers are strict: a file that is empty, binary, malformed or lacks the column raises `TextError` with file and line.
The only importer of `datasets`.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.errors import InputError, TextError
from replaceme_core.plan import CalibrationSection
from replaceme_core.text_files import RenderedChat, parse, render

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo"
DEMO_SETS = {
    "mixture": "a little of everything the demo model has learnt",
    "stories": "short stories about people, objects and places",
    "questions": "stories followed by questions and answers",
    "facts": "facts of the demo world, and arithmetic",
    "random": "random words: what happens when calibration text means nothing",
}
_PREVIEWS = 20


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Token sequences, which of them are held out, and a fingerprint of exactly these tokens."""

    name: str
    sequences: list[Tensor]
    """1-D int64 tensors of different lengths"""
    heldout: list[bool]
    fingerprint: str
    previews: list[str]

    @property
    def lengths(self) -> list[int]:
        return [len(sequence) for sequence in self.sequences]

    @property
    def n_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def n_heldout_tokens(self) -> int:
        return sum(len(s) for s, out in zip(self.sequences, self.heldout, strict=True) if out)


def prepare(section: CalibrationSection, tokenizer: Any, texts: Iterable[str] | None = None, name: str | None = None) -> CalibrationSet:
    """Reads, shuffles and tokenises the set that `section` names, or `texts` when they are given.

    Sequences are cut to `max_length`, and the last one so that exactly `max_tokens` are used if the texts have as many.
    Splitting is by sequence, copies together, so that no held-out token shares a context with a fitted one.
    """
    rows = list(texts) if texts is not None else list(read_source(section, tokenizer))
    generator = torch.Generator().manual_seed(section.seed)
    order = torch.randperm(len(rows), generator=generator).tolist()
    chosen = _take([rows[i] for i in order], tokenizer, section)
    if len(chosen) < 2:
        raise InputError(
            f"The calibration set gives {len(chosen)} usable sequence(s); at least 2 are needed, one to fit and one to check. "
            "Add text, or lower the sequence length so that a long text is cut into more sequences."
        )
    heldout = _hold_out(chosen, section.holdout, generator)
    digest = hashlib.sha256()
    for sequence, out in zip(chosen, heldout, strict=True):
        digest.update(b"h" if out else b"t")
        digest.update(sequence.numpy().tobytes())
    previews = [rows[i] for i in order[:_PREVIEWS]]
    return CalibrationSet(name or section.source, chosen, heldout, digest.hexdigest()[:16], previews)


def _take(rows: list[str], tokenizer: Any, section: CalibrationSection) -> list[Tensor]:
    """Token sequences up to the budget; a long text is cut into several, a text of one token is left out."""
    chosen: list[Tensor] = []
    left = section.max_tokens
    for row in rows:
        special = not isinstance(row, RenderedChat)
        ids = torch.tensor(tokenizer(row, verbose=False, add_special_tokens=special)["input_ids"], dtype=torch.long)
        for piece in ids.split(section.max_length):
            piece = piece[: left if left - len(piece) != 1 else len(piece) - 1]  # a single token left over could not be used
            if len(piece) >= 2:
                chosen.append(piece)
                left -= len(piece)
        if left < 2:
            break
    return chosen


def _hold_out(sequences: list[Tensor], share: float, generator: torch.Generator) -> list[bool]:
    """Which sequences are held out: at least `share` of them, at least one, never all; copies of one text stay together."""
    copies: dict[bytes, list[int]] = {}
    for index, sequence in enumerate(sequences):
        copies.setdefault(sequence.numpy().tobytes(), []).append(index)
    groups = list(copies.values()) if len(copies) > 1 else [[index] for index in range(len(sequences))]
    heldout = [False] * len(sequences)
    for pick in torch.randperm(len(groups), generator=generator)[:-1].tolist():
        if sum(heldout) >= max(1, round(share * len(sequences))):
            break
        for index in groups[pick]:
            heldout[index] = True
    return heldout


def read_source(section: CalibrationSection, tokenizer: Any = None) -> Iterator[str]:
    """The texts of 'demo:NAME', 'hub:ID', or a local file. Chats are rendered with the tokenizer's template."""
    kind, _, rest = section.source.partition(":")
    if kind == "demo":
        if rest not in DEMO_SETS:
            raise InputError(f"There is no demo calibration set '{rest}'; choose one of {', '.join(DEMO_SETS)}.")
        return iter(read_file(DEMO / "calibration" / f"{rest}.jsonl"))
    if kind == "hub":
        return islice(_read_hub(rest, section), section.max_tokens)
    return iter(read_file(Path(section.source), section.column, tokenizer))


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


def _read_hub(dataset_id: str, section: CalibrationSection) -> Iterator[str]:
    """Streams one column of a hub data set, so that only what is used is fetched."""
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset_id, section.config, split=section.split, streaming=True, token=os.environ.get("HF_TOKEN"))
        for number, row in enumerate(rows, start=1):
            if section.column not in row:
                raise TextError(f"{dataset_id} has no column '{section.column}'; it has {', '.join(sorted(row))}.")
            if not isinstance(row[section.column], str):
                raise TextError(
                    f"{dataset_id}, row {number}: column '{section.column}' holds {type(row[section.column]).__name__}, not text."
                )
            if row[section.column].strip():
                yield row[section.column]
    except TextError:
        raise
    except Exception as error:  # the library raises many kinds, none of them common to all
        raise InputError(
            f"The data set '{dataset_id}' could not be streamed ({type(error).__name__}: {str(error).splitlines()[0]}). Check the id, "
            "configuration and split, that the network is there, and HF_TOKEN if it is gated; demo sets and files work offline."
        ) from error
