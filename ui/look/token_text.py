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


def text_html(pieces: Sequence[str], beside: Sequence[str] | None, colour: str, colours: Palette, growing: bool = False) -> str:
    """What a system wrote; pieces that are not in the text `beside` it are underlined. `growing` ends it with a cursor."""
    shown = [piece for piece in pieces if piece]
    differs = _differing(shown, [piece for piece in beside if piece]) if beside is not None else [False] * len(shown)
    style = f"background:{tint(colour, 0.4)};text-decoration:underline 2px {colour};text-underline-offset:3px"
    body = "".join(
        f'<span style="{style}">{escape(piece)}</span>' if other else escape(piece) for piece, other in zip(shown, differs, strict=True)
    )
    cursor = f'<span aria-hidden="true" style="color:{colour}">▌</span>' if growing else ""
    return (
        f'<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere;font-size:{BODY};line-height:1.6;color:{colours.ink};'
        f'unicode-bidi:plaintext;min-height:3.2em">{body}{cursor}</div>'
    )


def _differing(own: list[str], other: list[str]) -> list[bool]:
    """For every piece, whether it belongs to no run that both texts share."""
    found = [True] * len(own)
    for block in SequenceMatcher(None, own, other, autojunk=False).get_matching_blocks():
        found[block.a : block.a + block.size] = [False] * block.size
    return found
