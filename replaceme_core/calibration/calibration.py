"""Text sources -> a calibration set: token sequences without padding, in a train, a held-out and a test part (see `parts`).

Readers are strict: a file that is empty, binary, malformed or lacks the column raises `TextError` with file and line.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from replaceme_core.calibration.hub_text import stream, stream_preset
from replaceme_core.calibration.parts import Split, TextPart, beginnings, blended, openings_of, split
from replaceme_core.calibration.text_files import parse, render, token_ids
from replaceme_core.errors import InputError, TextError
from replaceme_core.guard import guarded
from replaceme_core.models.image_files import ImageFiles
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.storage.shipped import DEMO, SMOLLM2, SUITES

DEMO_SETS = {
    "mixture": "a little of everything the demo model has learnt",
    "stories": "short stories about people, objects and places",
    "questions": "stories followed by questions and answers",
    "facts": "facts of the demo world, and arithmetic",
    "random": "random words: what happens when calibration text means nothing",
}
SMOLLM2_SETS = {
    "chats": "questions of ours and the answers that SmolLM2-135M-Instruct wrote",
    "prose": "beginnings of ours that SmolLM2-135M-Instruct continued",
}
"""of the shipped text that SmolLM2 wrote itself"""
_PREVIEWS = 20
_ROWS = 10
"""that say what a text's rows begin with, before it is read"""


@dataclass(frozen=True)
class FromSource:
    """What one source gave to the train and held-out parts of a calibration set."""

    n_tokens: int
    n_sequences: int
    previews: list[str]


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Token sequences, which of them are held out, and a fingerprint of exactly these tokens. Or images, each one a sequence.

    Everything that fits or chooses reads `sequences`: any number of them from the first on is a fair sample of the sources. `test`
    is for comparisons alone.
    """

    name: str
    sequences: Sequence[Tensor]
    """1-D int64 tensors of different lengths; or pixel values [channels, height, width], all of one shape"""
    heldout: list[bool]
    fingerprint: str
    previews: list[str]
    positions: int | None = None
    """positions of every image, patches and CLS; None: the sequences are token ids"""
    second: list[bool] | None = None
    """which sequences are of the second source; None: there is one source"""
    second_previews: list[str] = field(default_factory=list)
    skip_first: bool = False
    """whether the first token of every sequence stays out of fits; distances count it"""
    test: list[Tensor] = field(default_factory=list)
    """rows of text that are in neither of the other parts"""
    note: str = ""
    """a sentence on what was done otherwise than asked"""

    @property
    def sources(self) -> list[FromSource]:
        """What each source gave, one or two."""
        of = self.second or [False] * len(self.sequences)
        lengths = {which: [n for n, own in zip(self.lengths, of, strict=True) if own is which] for which in (False, True)}
        found = [FromSource(sum(lengths[False]), len(lengths[False]), self.previews)]
        return found if self.second is None else [*found, FromSource(sum(lengths[True]), len(lengths[True]), self.second_previews)]

    @property
    def lengths(self) -> list[int]:
        return [self.positions] * len(self.sequences) if self.positions else [len(sequence) for sequence in self.sequences]

    @property
    def n_tokens(self) -> int:
        """Of train and held-out together."""
        return sum(self.lengths)

    @property
    def n_heldout_tokens(self) -> int:
        return sum(n for n, out in zip(self.lengths, self.heldout, strict=True) if out)

    @property
    def n_test_tokens(self) -> int:
        return sum(map(len, self.test))

    @cached_property
    def test_fingerprint(self) -> str:
        """Of exactly the test part's tokens, which `fingerprint` does not cover."""
        digest = hashlib.sha256()
        for row in self.test:
            digest.update(len(row).to_bytes(8, "little") + row.numpy().tobytes())
        return digest.hexdigest()[:16]

    def first(self, most: int) -> "CalibrationSet":
        """The first sequences of each part, about `most` tokens in all and one sequence of each at least: a fair sample of the set."""
        numbers: list[int] = []
        for part in (False, True):
            own = [number for number, out in enumerate(self.heldout) if out == part]
            room = most * sum(self.lengths[number] for number in own) / self.n_tokens
            for number in own:
                room -= self.lengths[number]
                if room < 0 and number != own[0]:
                    break
                numbers.append(number)
        return self._only(sorted(numbers))

    def beginning(self, n_sequences: int) -> "CalibrationSet":
        """The first sequences alone, as a pass that was ended early has read them; the test part stays. Named and fingerprinted as such.

        Raises `InputError` where they hold nothing to fit, or nothing to check.
        """
        if n_sequences >= len(self.sequences):
            return self
        if len(set(self.heldout[:n_sequences])) < 2:
            raise InputError(
                f"The first {n_sequences} sequences of '{self.name}' are all of one part, and a fit needs one to fit and one to check; "
                "take more of them (calibration.first_sequences)."
            )
        digest = hashlib.sha256(f"the first {n_sequences} of {self.fingerprint}".encode()).hexdigest()[:16]
        name = f"{self.name}, first {n_sequences} sequences"
        return replace(self._only(list(range(n_sequences))), name=name, fingerprint=digest)

    def _only(self, numbers: list[int]) -> "CalibrationSet":
        second = None if self.second is None else [self.second[number] for number in numbers]
        sequences = self.sequences.only(numbers) if isinstance(self.sequences, ImageFiles) else [self.sequences[i] for i in numbers]
        return replace(self, sequences=sequences, heldout=[self.heldout[number] for number in numbers], second=second)

    def heldout_text(self, n_tokens: int, length: int | None = None) -> TextPart:
        """About `n_tokens` of the held-out part, for a comparison that chooses, in sequences of `length` (see `TextPart.of`)."""
        rows = [sequence for sequence, out in zip(self.sequences, self.heldout, strict=True) if out]
        return TextPart.of("held-out", self.name, rows, n_tokens, length)

    def test_text(self, n_tokens: int) -> TextPart:
        """About `n_tokens` of the test part, for a comparison that nothing else follows. Raises `InputError` where there is none."""
        if not self.test:
            raise InputError(
                f"The calibration set '{self.name}' has no test part to compare on: it holds fewer than three texts and none is longer "
                "than a sequence, or test_tokens is 0. Add text, raise test_tokens, or lower the sequence length (max_length)."
            )
        return TextPart.of("test", self.name, self.test, n_tokens)


@guarded
def prepare(
    section: CalibrationSection,
    tokenizer: Any,
    texts: Iterable[str] | None = None,
    name: str | None = None,
    second_texts: Iterable[str] | None = None,
) -> CalibrationSet:
    """Reads, shuffles, tokenises and splits the set that `section` names, or `texts` and `second_texts` when they are given.

    Sequences are cut to `max_length`, and the last one so that `max_tokens` are used if the texts have as many. Each source is split
    by itself (see `parts.split`), and the sequences of two are mixed in proportion.
    """
    generator = torch.Generator().manual_seed(section.seed)
    sources = [list(texts) if texts is not None else list(read_source(section, tokenizer))]
    if section.second:
        of = section.model_copy(update={"source": section.second})
        sources.append(list(second_texts) if second_texts is not None else list(read_source(of, tokenizer)))
    share = section.second_share if section.second else 0.0
    found: list[Split] = []
    for number, rows in enumerate(sources):
        rows[:] = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
        budget, test = (round(share * n) if number else n - round(share * n) for n in (section.max_tokens, section.test_tokens))
        encoded = (ids_of(row, tokenizer) for row in rows)
        found.append(split(encoded, budget, test, section.max_length, section.holdout, generator))
    order = blended([each.sequences for each in found])
    chosen = [found[source].sequences[at] for source, at in order]
    if len(chosen) < 2:
        raise InputError(
            f"The calibration set gives {len(chosen)} usable sequence(s); at least 2 are needed, one to fit and one to check. "
            "Add text, or lower the sequence length so that a long text is cut into more sequences."
        )
    heldout = [found[source].heldout[at] for source, at in order]
    whole = CalibrationSet(
        name=name or _name(section),
        sequences=chosen,
        heldout=heldout,
        fingerprint=_fingerprint(chosen, heldout, section),
        previews=sources[0][:_PREVIEWS],
        second=[source == 1 for source, _ in order] if section.second else None,
        second_previews=sources[1][:_PREVIEWS] if section.second else [],
        skip_first=section.skip_first,
        test=[found[source].test[at] for source, at in blended([each.test for each in found])],
    )
    return whole.beginning(section.first_sequences or len(chosen))


def documents(tokenizer: Any, n_tokens: int, texts: Iterable[str] | None = None, name: str = "the text given") -> TextPart:
    """About `n_tokens` of `texts`, or of the demo's own test documents, which neither training nor calibration used."""
    rows = demo_documents() if texts is None else list(texts)
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    tokenised = (ids_of(rows[i], tokenizer) for i in shuffled)
    ahead = list(islice(tokenised, _ROWS))
    first, whole, enough = beginnings(chain(ahead, tokenised), n_tokens, header=max(openings_of(ahead), default=1) - 1)
    found = TextPart.of("given", name, first if enough else whole, n_tokens)
    if not found.sequences:
        raise InputError("The text to compare on has no sequence of two tokens; give more text.")
    return found if texts is not None else replace(found, part="test", name="the demo's documents")


def plain_prose(tokenizer: Any, n_tokens: int) -> TextPart:
    """About `n_tokens` of the plain suite's prose, for any language model. Raises `InputError` where the library came without it."""
    path = SUITES["plain"] / "perplexity.jsonl"
    if not path.is_file():
        raise InputError("The offline prose (assets/tasks/plain) is not beside the library; install the wheel, or clone the repository.")
    rows = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").split("\n") if line]
    return replace(documents(tokenizer, n_tokens, rows, "plain English prose"), part="test")  # no calibration set holds it


def ids_of(text: str, tokenizer: Any) -> Tensor:
    """Token ids, with the special tokens once."""
    return torch.tensor(token_ids(text, tokenizer), dtype=torch.long)


def _fingerprint(sequences: list[Tensor], heldout: list[bool], section: CalibrationSection) -> str:
    """Of what fits and choices read."""
    digest = hashlib.sha256()
    for sequence, out in zip(sequences, heldout, strict=True):
        digest.update(b"h" if out else b"t")
        digest.update(sequence.numpy().tobytes())
    if section.skip_first:
        digest.update(b"first tokens left out")
    return digest.hexdigest()[:16]


def _name(section: CalibrationSection) -> str:
    return f"{section.source} + {section.second_share:.0%} {section.second}" if section.second else section.source


def read_source(section: CalibrationSection, tokenizer: Any = None) -> Iterator[str]:
    """The texts of 'demo:NAME', 'smollm2:NAME', 'preset:NAME', 'hub:ID', or a local file. Chats are rendered with the tokenizer's template."""
    source = section.source
    kind, _, rest = source.partition(":")
    if kind == "demo":
        if rest not in DEMO_SETS:
            raise InputError(f"There is no demo calibration set '{rest}'; choose one of {', '.join(DEMO_SETS)}.")
        return iter(read_file(DEMO / "calibration" / f"{rest}.jsonl"))
    if kind == "smollm2":
        if rest not in SMOLLM2_SETS:
            raise InputError(f"There is no text of SmolLM2 called '{rest}'; choose one of {', '.join(SMOLLM2_SETS)}.")
        return iter(read_file(SMOLLM2 / "calibration" / f"{rest}.jsonl", tokenizer=tokenizer))
    if kind == "preset":
        return iter(render(source, list(islice(stream_preset(rest), section.max_texts)), tokenizer))
    if kind == "hub":
        rows = stream(rest, section.config, section.split, section.column)
        return iter(render(source, list(islice(rows, section.max_texts)), tokenizer))
    if kind == "self":
        raise InputError("Text written by the model itself comes from `self_text.own_texts`; pass it as `texts`.")
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


def demo_documents() -> list[str]:
    """The demo's test documents: generated from seeds that neither training nor calibration used."""
    return read_file(DEMO / "heldout.jsonl")
