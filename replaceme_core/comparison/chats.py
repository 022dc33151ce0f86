"""A message as a chat model reads it: in the template of its tokenizer, once, with its special tokens once."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.calibration.text_files import RenderedChat
from replaceme_core.errors import InputError
from replaceme_core.models.chat_template import has_template

_OPENING = 48
"""tokens of a plain text that make a prompt, at most"""


def is_rendered(text: str, tokenizer: Any) -> bool:
    """Whether a text begins with a special token of this tokenizer in letters, as one does that a template wrote before."""
    specials = tuple(token for token in getattr(tokenizer, "all_special_tokens", []) if token)
    return bool(specials) and text.lstrip().startswith(specials)


def chat_prompt(tokenizer: Any, messages: Sequence[str], answers: Sequence[str] = (), system: str = "") -> str:
    """What is read before the next answer: the user's messages with the answers between them, one fewer.

    A text that was rendered before is read as it is. Raises `InputError` where the template refuses the chat; it renders in
    transformers' sandbox.
    """
    if len(messages) == 1 and is_rendered(messages[0], tokenizer):
        return RenderedChat(messages[0])
    if not all(message.strip() for message in messages):
        raise InputError("The message is empty; write a few words.")
    turns = [{"role": "system", "content": system}] if system.strip() else []
    for at, message in enumerate(messages):
        turns.append({"role": "user", "content": message})
        turns += [{"role": "assistant", "content": answers[at]}] if at < len(messages) - 1 else []
    try:
        return RenderedChat(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates raise what they like
        way_out = "leave the system message out, or " if system.strip() else ""
        said = " ".join(str(error).split())[:200]
        raise InputError(f"The chat template refuses this conversation ({said}); {way_out}switch the chat off.") from error


def heldout_openings(calibration: CalibrationSet, tokenizer: Any) -> list[str]:
    """The beginning of every held-out text, as a prompt: of a chat all up to the first answer, of a plain text at most 48 tokens or half of it."""
    return _openings((row for row, out in zip(calibration.sequences, calibration.heldout, strict=True) if out), tokenizer)


def openings_of_test(calibration: CalibrationSet, tokenizer: Any) -> list[str]:
    """The same of the texts of the test part."""
    return _openings(calibration.test, tokenizer)


def _openings(rows: Iterable[Tensor], tokenizer: Any) -> list[str]:
    asks = _asks(tokenizer)
    return [found for row in rows if (found := _opening(row.tolist(), tokenizer, asks)).strip()]


def message_of(opening: str, tokenizer: Any) -> str:
    """The one message that `chat_prompt` makes this opening of a chat from; empty where there is none, as under a system message of its own."""
    mark = "\u2402"
    try:
        before, _, after = chat_prompt(tokenizer, [mark]).partition(mark)
    except InputError:
        return ""
    said = opening.removeprefix(before).removesuffix(after)
    return said.strip() if len(before) + len(said) + len(after) == len(opening) else ""


def _opening(ids: list[int], tokenizer: Any, asks: str) -> str:
    text: str = tokenizer.decode(ids)
    if asks and is_rendered(text, tokenizer) and asks in text:
        return text[: text.index(asks) + len(asks)]
    plain: str = tokenizer.decode(ids[: max(2, min(_OPENING, len(ids) // 2))], skip_special_tokens=True)
    return plain.rsplit(maxsplit=1)[0] if " " in plain.strip() else plain


def _asks(tokenizer: Any) -> str:
    """What the template writes where the model is to answer; empty where that cannot be told."""
    if not has_template(tokenizer):
        return ""
    try:
        said = [
            str(tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=asked))
            for asked in (False, True)
        ]
    except Exception:  # templates raise what they like
        return ""
    return said[1][len(said[0]) :] if said[1].startswith(said[0]) else ""
