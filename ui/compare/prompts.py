"""What Compare suggests to begin with: prompts of ours in plain English, and every held-out text of the calibration set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ui.compare.generation import CompareState
from ui.session.link import LinkState
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.calibration.calibration import CalibrationSet
    from ui.session.hub import Resident

PLAIN = (
    "The capital of France is",
    "On the last evening of the summer, an old fisherman found a small wooden box on the beach. Inside it",
    "Every morning the baker gets up at four o'clock, because",
    "To bake bread at home you need flour, water, salt and",
    "Dear neighbours,\n\nNext Saturday we will",
    "Monday, Tuesday, Wednesday, Thursday,",
)
"""that a language model goes on with"""
MESSAGES = (
    "What is the capital of France?",
    "Tell me a short story about an old fisherman who finds a wooden box on the beach.",
    "Why does ice float on water? Explain it to a child.",
    "What can I cook from rice, eggs and carrots?",
    "Write a short letter to my neighbours about a garden party on Saturday.",
    "Which is heavier, a kilogram of feathers or a kilogram of iron?",
)
"""the same for a chat"""
_PROMPT = "Once upon a time"
_HELDOUT = "held-out text {number} of the calibration set, which no fit has read"
_WORDS = 3
"""that make a text a prompt, at least"""
_TRIED = 20
"""held-out texts, at most, before the prompt is one of ours"""
_SAYS = "Say: "
_LABEL = 80


@dataclass(frozen=True)
class Suggested:
    """One line of the choice."""

    label: str
    text: str


def chats(state: Studio) -> bool:
    """Whether the loaded model's tokenizer has a chat template."""
    from replaceme_core.models.chat_template import has_template

    return state.resident is not None and has_template(state.resident.handle.tokenizer)


def suggested(state: Studio, chat: bool) -> list[Suggested]:
    """Ours, which the demo model would not understand, then the held-out texts."""
    resident = state.resident
    ours = () if resident is None or resident.is_demo else MESSAGES if chat else PLAIN
    found = [Suggested(_line(text), text) for text in ours]
    if resident is not None:
        lines = _once(state, "lines", lambda _, tokenizer: _lines(heldout(state), tokenizer))
        found += [Suggested(line, text) for line, text in zip(lines, heldout(state), strict=True)]
    return found


def default_prompt(state: Studio, chat: bool) -> Suggested:
    """The prompt of the address; else a held-out text, which no fit has read; else the first of ours. `label`: where it is from, for a caption.

    For the demo one that says words and then repeats them is preferred: whether the answer is right can be seen at a glance. For a chat
    it is the message of a held-out chat, without the template; else the beginning of a held-out prose.
    """
    given = state.slot(LinkState).prompt
    if given:
        return Suggested("", given)
    offered = list(enumerate(heldout(state), start=1))
    if state.resident is None or state.resident.is_demo:
        number, text = next((each for each in offered if each[1].lstrip().startswith(_SAYS)), (offered or [(0, _PROMPT)])[0])
        return Suggested(_HELDOUT.format(number=number) if number else "", text)
    for number, text in offered[:_TRIED]:
        said = _readable(text, state.resident, chat)
        if len(said.split()) >= _WORDS:
            return Suggested(_HELDOUT.format(number=number), said)
    return Suggested("", (MESSAGES if chat else PLAIN)[0])


def _readable(opening: str, resident: "Resident", chat: bool) -> str:
    """A held-out text as a person would type it; empty where a template or a special token would have to be typed, too."""
    from replaceme_core.comparison.chats import is_rendered, message_of

    tokenizer = resident.handle.tokenizer
    said = message_of(opening, tokenizer) if chat else opening
    return "" if is_rendered(said, tokenizer) else said


def heldout(state: Studio) -> list[str]:
    """The beginnings of the held-out texts of the present calibration set."""
    from replaceme_core.comparison.chats import heldout_openings

    return _once(state, "held-out", heldout_openings)


def unread(state: Studio) -> list[str]:
    """Those and the beginnings of its test texts."""
    from replaceme_core.comparison.chats import openings_of_test

    return [*heldout(state), *_once(state, "test", openings_of_test)]


def _once(state: Studio, part: str, make: "Callable[[CalibrationSet, Any], list[str]]") -> list[str]:
    """Made once for a calibration set."""
    offered, calibration, resident = state.slot(CompareState).offered, state.calibration, state.resident
    if calibration is None or resident is None:
        return []
    key = (calibration.fingerprint, part)
    if key not in offered:
        offered[key] = make(calibration, resident.handle.tokenizer)
    return offered[key]


def _lines(texts: list[str], tokenizer: Any) -> list[str]:
    """What the choice says of held-out texts."""
    specials = [token for token in tokenizer.all_special_tokens if token]  # asked once: it takes as long as all the rest
    return [f"Held-out text {number}: {_line(_plain(text, specials))}" for number, text in enumerate(texts, start=1)]


def _plain(text: str, specials: list[str]) -> str:
    """A text without special tokens; of a chat its end, where the question stands."""
    met = [token for token in specials if token in text]
    for token in met:
        text = text.replace(token, " ")
    return text if not met or len(text) <= _LABEL else f"… {text[-_LABEL:]}"


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LABEL else f"{line[:_LABEL]} …"
