"""Tokens as people read them: control characters made visible, any script in its own direction, differences underlined."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape

from ui.look.page_style import BODY
from ui.look.palette import Palette, rgb

_SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
_BYTE = "‹byte›"
"""a token that is a part of a character alone"""


def visible(token: str) -> str:
    """A token alone: its text without the spaces around it, or a sign where it is nothing else."""
    if token.strip():
        return token.strip().replace("\ufffd", _BYTE)
    return "".join(_SIGNS.get(sign, "␣") for sign in token) or "·"


def tint(colour: str, share: float) -> str:
    """A CSS colour that lets ink be read on it: at most 45 % of `colour`."""
    red, green, blue = rgb(colour)
    return f"rgba({red},{green},{blue},{0.45 * min(1.0, max(0.0, share)):.2f})"


def text_html(
    pieces: Sequence[str], marks: Sequence[bool] | None, colour: str, colours: Palette, growing: bool = False, line: str = "solid"
) -> str:
    """What a system wrote; the pieces with a mark are underlined with a line of this CSS style. `growing` ends it with a cursor."""
    style = f"background:{tint(colour, 0.4)};text-decoration:underline {line} 2px {colour};text-underline-offset:3px"
    body = "".join(
        f'<span style="{style}">{escape("".join(run))}</span>' if marked else escape("".join(run)) for marked, run in _runs(pieces, marks)
    )
    cursor = f'<span aria-hidden="true" style="color:{colour}">▌</span>' if growing else ""
    return (
        f'<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere;font-size:{BODY};line-height:1.6;color:{colours.ink};'
        f'unicode-bidi:plaintext;min-height:3.2em">{body}{cursor}</div>'
    )


def differences(first: Sequence[str], second: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """For every piece of two texts, whether the other has it not at its place: what was left out, and what was added.

    Pieces that are nothing (within a character of several tokens) belong to what follows them.
    """
    at_first, at_second = ([at for at, piece in enumerate(text) if piece] for text in (first, second))
    left, added = [bool(piece) for piece in first], [bool(piece) for piece in second]
    matcher = SequenceMatcher(None, [first[at] for at in at_first], [second[at] for at in at_second], autojunk=False)
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            left[at_first[block.a + step]] = added[at_second[block.b + step]] = False
    return left, added


def marked_runs(pieces: Sequence[str], marks: Sequence[bool], most: int = 4, longest: int = 40) -> str:
    """The marked pieces as quotations, neighbours together: '“ old green”, “Yes”'; the first few of them."""
    found = ["".join(run).strip() or "".join(map(visible, run)) for marked, run in _runs(pieces, marks) if marked]
    shown = [f"“{text if len(text) <= longest else text[:longest] + ' …'}”" for text in found[:most]]
    return ", ".join(shown) + (f" and {len(found) - most} more" if len(found) > most else "")


def _runs(pieces: Sequence[str], marks: Sequence[bool] | None) -> list[tuple[bool, list[str]]]:
    """Neighbouring pieces of one kind together, so that a mark has no gaps. Pieces may have come since the marks were made."""
    runs: list[tuple[bool, list[str]]] = []
    for at, piece in enumerate(pieces):
        marked = marks is not None and at < len(marks) and marks[at]
        if runs and (runs[-1][0] == marked or not piece):
            runs[-1][1].append(piece)
        else:
            runs.append((marked, [piece]))
    return runs
