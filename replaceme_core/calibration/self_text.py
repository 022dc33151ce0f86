"""Calibration text that the model writes itself: chats for a model with a chat template, prose for any (the paper's best by perplexity).

Questions and beginnings are ours (`self_prompts`); every other word is the model's. What repeats itself is dropped and counted. Every round
of texts draws from a generator of its own, on the CPU. `own_texts` keeps what was written (`self_store`), so that it is written once.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from replaceme_core import memory
from replaceme_core.calibration import self_prompts, self_store
from replaceme_core.calibration.sampling import context_length, continued
from replaceme_core.calibration.self_store import KINDS, Writing, Written
from replaceme_core.calibration.text_files import Row, render, token_ids
from replaceme_core.errors import InputError
from replaceme_core.handle import ModelHandle
from replaceme_core.models.chat_template import has_template
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.progress import SILENT, Progress

_BATCH = 32
_ROUNDS_WITHOUT_TEXT = 4
_ROUNDS = 1_000_003
"""seeds between two seeds of a plan: rounds of different seeds are different too"""
_SHORTEST = 8
"""tokens that the model writes of a text at least"""
_RUN = 4
_DISTINCT = 0.7
"""share of different runs of so many tokens below which a text repeats itself"""


def kind_for(tokenizer: Any) -> str:
    """'chats' where the model has a template for them, else 'prose'."""
    return "chats" if has_template(tokenizer) else "prose"


def writing_of(section: CalibrationSection, tokenizer: Any) -> Writing:
    """What 'self', 'self:chats' or 'self:prose' asks for; 'self' leaves the kind to the model. Raises `InputError` for another kind."""
    kind = section.source.partition(":")[2] or kind_for(tokenizer)
    if kind not in KINDS:
        raise InputError(f"A model writes no '{kind}'; choose {' or '.join(f'self:{each}' for each in KINDS)}.")
    return Writing(kind, section.max_tokens, min(section.max_length, Writing.max_length), section.seed)


def own_texts(handle: ModelHandle, section: CalibrationSection, progress: Progress = SILENT) -> list[str]:
    """The texts of a section whose source is 'self': shipped or kept from before where this model wrote enough of them, else written now."""
    writing = writing_of(section, handle.tokenizer)
    found = self_store.find(handle, writing)
    if found is None:
        found = write(handle, writing, progress)
        self_store.keep(handle, writing, found)
    return render(section.source, found.rows, handle.tokenizer)


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
        self._progress.update(min(self.kept + self._now, self._total), self._total, "tokens", "the model generates its calibration text")


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
    """Continuations of our beginnings; half of the texts of a model that has no template for chats begin with nothing but its first token."""
    tokenizer = handle.tokenizer
    half = max(1, context_length(handle) // 2)
    prompts = [_without_end(tokenizer(opening, verbose=False)["input_ids"], tokenizer)[:half] for opening in openings]
    if tokenizer.bos_token_id is not None and kind_for(tokenizer) == "prose":
        prompts[::2] = [[tokenizer.bos_token_id]] * len(prompts[::2])
    room = _room(handle, prompts, writing)
    written = continued(handle, prompts, room, writing.sampling, generator, count.add)
    found: list[_Text] = []
    for prompt, tokens in zip(prompts, written, strict=True):
        begun, text = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, [*prompt, *tokens]))
        found.append((_trimmed(text, len(tokens) == room, len(begun)), [tokens]))
    return found


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


def _trimmed(text: str, is_cut: bool, start: int = 0) -> str:
    """The text up to its last whole sentence, where the limit cut it and that leaves half of what was written behind `start`."""
    end = max(text.rfind(mark) for mark in (".", "!", "?", "\n"))
    return text[: end + 1].rstrip() if is_cut and end >= (start + len(text)) // 2 else text


def _is_sound(tokens: list[int]) -> bool:
    """Whether a text is long enough to be of use, and does not repeat itself."""
    runs = [tuple(tokens[i : i + _RUN]) for i in range(len(tokens) - _RUN + 1)]
    return len(tokens) >= _SHORTEST and len(set(runs)) >= _DISTINCT * len(runs)


def _length(row: Row, tokenizer: Any) -> int:
    return len(token_ids(render("the model's text", [row], tokenizer)[0], tokenizer))
