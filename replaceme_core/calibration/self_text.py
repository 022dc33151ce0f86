"""Calibration text that the model writes itself: chats for a model with a chat template, prose for any (the paper's best by perplexity).

Questions and beginnings are ours (`self_prompts`); every other word is the model's. What repeats itself is dropped and counted. The text of
the shipped model is shipped; that of any other is kept in the user's cache, by weights and settings, and not written twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from replaceme_core.calibration import self_prompts
from replaceme_core.calibration.sampling import Sampling, context_length, continued
from replaceme_core.calibration.text_files import RenderedChat, Row, render
from replaceme_core.errors import InputError
from replaceme_core.handle import ModelHandle
from replaceme_core.models import memory
from replaceme_core.progress import SILENT, Progress

KINDS = ("chats", "prose")
_BATCH = 32
_ROUNDS_WITHOUT_TEXT = 4
_ROUNDS = 1_000_003
"""seeds between two seeds of a plan: rounds of different seeds are different too"""
_SHORTEST = 8
"""tokens that the model writes of a text at least"""
_RUN = 4
_DISTINCT = 0.7
"""share of different runs of so many tokens below which a text repeats itself"""


@dataclass(frozen=True)
class Writing:
    """What is written, and how."""

    kind: str
    """'chats' or 'prose'"""
    n_tokens: int = 32_768
    """tokens that are kept, at least"""
    max_length: int = 256
    """tokens of one text, or of one answer in a chat, at most"""
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Written:
    """The texts, and what was left out."""

    rows: list[Row]
    n_tokens: int
    """of the texts as the model reads them, chats with their template"""
    n_dropped: int
    """texts that repeat themselves, are all but empty, or were there already"""

    @property
    def share_dropped(self) -> float:
        return self.n_dropped / max(1, self.n_dropped + len(self.rows))


def kind_for(tokenizer: Any) -> str:
    """'chats' where the model has a template for them, else 'prose'."""
    return "prose" if getattr(tokenizer, "chat_template", None) is None else "chats"


def write(handle: ModelHandle, writing: Writing, progress: Progress = SILENT) -> Written:
    """New text of this model. Raises `InputError` for chats without a template, and for a model that only repeats itself."""
    if writing.kind == "chats" and kind_for(handle.tokenizer) == "prose":
        raise InputError(f"'{handle.name}' has no chat template, so it cannot write chats; let it write prose (self:prose).")
    count = _Count(writing.n_tokens, progress)
    rows: list[Row] = []
    dropped = empty = 0
    for texts in _rounds(handle, writing, count):
        before = len(rows)
        for row, answers in texts:
            if row in rows or not all(map(_is_sound, answers)):
                dropped += 1
                continue
            rows.append(row)
            count.kept += _length(row, handle.tokenizer)
            if count.kept >= writing.n_tokens:
                return Written(rows, count.kept, dropped)
        empty = 0 if len(rows) > before else empty + 1
        if empty == _ROUNDS_WITHOUT_TEXT:
            raise InputError(
                f"'{handle.name}' writes nothing that can be used: {dropped} texts are all but empty or repeat themselves. "
                "Choose another calibration set."
            )
    raise AssertionError("questions and beginnings never end")


class _Count:
    """Tokens that were kept, and those of the round that is being written."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress = total, progress
        self.kept = self._now = 0

    def begin(self) -> None:
        """A round."""
        self._now = 0

    def add(self, n_tokens: int) -> None:
        self._now += n_tokens
        self._progress.update(min(self.kept + self._now, self._total), self._total, "tokens", "the model writes its calibration text")


_Text = tuple[Row, list[list[int]]]
"""a row, and the tokens of what the model wrote of it"""


def _rounds(handle: ModelHandle, writing: Writing, count: _Count) -> Iterator[list[_Text]]:
    """Batch after batch, each with draws of its own."""
    make = _chats if writing.kind == "chats" else _prose
    given: Iterator[Any] = self_prompts.chats(writing.seed) if writing.kind == "chats" else self_prompts.openings(writing.seed)
    less = f"shorter texts (max_length, now {writing.max_length}); or, for the weights, {memory.HOLD_LESS}"
    for number in range(10**9):
        generator = torch.Generator().manual_seed(writing.seed * _ROUNDS + number)
        count.begin()
        with memory.told("to let the model write text", less):
            yield make(handle, writing, list(islice(given, _BATCH)), generator, count)


def _prose(handle: ModelHandle, writing: Writing, openings: list[str], generator: torch.Generator, count: _Count) -> list[_Text]:
    tokenizer = handle.tokenizer
    prompts = [_without_end(tokenizer(opening, verbose=False)["input_ids"], tokenizer) for opening in openings]
    room = _room(handle, prompts, writing)
    written = continued(handle, prompts, room, writing.sampling, generator, count.add)
    texts = (tokenizer.decode([*prompt, *tokens], skip_special_tokens=True) for prompt, tokens in zip(prompts, written, strict=True))
    return [(_trimmed(text, len(tokens) == room), [tokens]) for text, tokens in zip(texts, written, strict=True)]


def _chats(handle: ModelHandle, writing: Writing, questions: list[list[str]], generator: torch.Generator, count: _Count) -> list[_Text]:
    """One answer for every chat; then a second one where a second question is asked and the first answer came to its end."""
    chats: list[list[dict[str, str]]] = [[] for _ in questions]
    answers: list[list[list[int]]] = [[] for _ in questions]
    asked = list(range(len(questions)))
    for turn in range(max(map(len, questions))):
        for index in asked:
            chats[index].append({"role": "user", "content": questions[index][turn]})
        prompts = [_asked(handle.tokenizer, chats[index]) for index in asked]
        room = _room(handle, prompts, writing)
        written = continued(handle, prompts, room, writing.sampling, generator, count.add)
        for index, tokens in zip(asked, written, strict=True):
            text = handle.tokenizer.decode(tokens, skip_special_tokens=True)
            chats[index].append({"role": "assistant", "content": _trimmed(text.strip(), len(tokens) == room)})
            answers[index].append(tokens)
        asked = [i for i in asked if len(questions[i]) > turn + 1 and 0 < len(answers[i][-1]) < room]
        if not asked:
            break
    return list(zip(chats, answers, strict=True))


def _asked(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    return ids


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """Some tokenizers end every text; a text that is to go on has not ended."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _room(handle: ModelHandle, prompts: list[list[int]], writing: Writing) -> int:
    """Tokens that may be written: the context has to hold them with the longest prompt."""
    return max(1, min(writing.max_length, context_length(handle) - max(map(len, prompts))))


def _trimmed(text: str, is_cut: bool) -> str:
    """The text up to its last whole sentence, where the limit cut it and that leaves half of it."""
    end = max(text.rfind(mark) for mark in (".", "!", "?", "\n"))
    return text[: end + 1].rstrip() if is_cut and end >= len(text) // 2 else text


def _is_sound(tokens: list[int]) -> bool:
    """Whether a text is long enough to be of use, and does not repeat itself."""
    runs = [tuple(tokens[i : i + _RUN]) for i in range(len(tokens) - _RUN + 1)]
    return len(tokens) >= _SHORTEST and len(set(runs)) >= _DISTINCT * len(runs)


def _length(row: Row, tokenizer: Any) -> int:
    text = render("the model's text", [row], tokenizer)[0]
    return len(tokenizer(text, verbose=False, add_special_tokens=not isinstance(text, RenderedChat))["input_ids"])
