"""A text with every token tinted by its error; the worst tenth are underlined too, and each token says its figures."""

from collections.abc import Mapping, Sequence
from html import escape

from ui.look.page_style import BODY
from ui.look.palette import Palette, rgb

_STRONGEST = 0.5
"""opacity of the tint at the worst tenth; the text on it keeps its contrast"""


def shown_token(token: str) -> str:
    """With signs for what cannot be seen."""
    return token.replace("\n", "⏎").replace("\t", "⇥") or "∅"


def strip_html(tokens: Sequence[str], errors: Mapping[int, tuple[float, float]], limit: float, chosen: int, colours: Palette) -> str:
    """`errors`: (of the fit, of removal without a transform) by place; `limit`: the error from which a token is one of the worst tenth."""
    red, green, blue = rgb(colours.cut)
    spans = []
    for place, token in enumerate(tokens):
        if place not in errors:
            spans.append(f'<span style="color:{colours.muted}">{escape(shown_token(token))}</span>')
            continue
        fitted, removed = errors[place]
        tint = _STRONGEST * min(1.0, fitted / limit) if limit > 0 else 0.0
        look = f"background:rgba({red},{green},{blue},{tint:.2f})"
        if fitted >= limit:
            look += f";border-bottom:3px double {colours.ink}"
        if place == chosen:
            look += f";outline:2px solid {colours.ink};font-weight:700"
        said = f"relative error {fitted:.1%}; removed, no transform: {removed:.1%}"
        spans.append(f'<span title="{said}" style="border-radius:3px;padding:1px 0;{look}">{escape(shown_token(token))}</span>')
        if token.endswith("\n"):
            spans.append("<br>")
    style = f"white-space:pre-wrap;line-height:2;font-size:{BODY};color:{colours.ink}"
    return f'<div style="{style}">{"".join(spans)}</div>'
