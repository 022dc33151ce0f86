"""Pictures of a text that several systems read: the text with a bar under every token, which a click chooses, and what was expected there."""

from html import escape
from typing import TYPE_CHECKING

from ui.compare import words
from ui.look.page_style import BODY, NOTE
from ui.look.palette import Palette
from ui.look.token_text import tint, visible

if TYPE_CHECKING:
    from replaceme_core.comparison.reading import Expected, Reading

_BAR = 14
"""pixels of the tallest bar under a token"""
SEEN = 0.01
"""nats below which two expectations are the same for whoever looks"""
_THIN, _FAINT = 2, 0.28
"""pixels of the lowest bar, and share of the full shade at the smallest KL that counts"""
_LEAST = 0.5
"""nats that fill a bar where no KL is larger, so that small differences look small"""


def reach(reading: "Reading") -> float:
    """The KL of a full bar, the same for every system."""
    return max([_LEAST, *(item.kl for row in reading.expected for item in row if item is not None)])


def text_strip(reading: "Reading", names: list[str], at: int, colours: Palette, chosen: int | None = None, strip: str = "") -> str:
    """The text as system `at` of `names` (the reference first) reads it: a bar and a shade for the KL at every token, more on hover.

    They are in the colour of what is bad, and every KL that counts is seen. `strip` names the text to whoever listens for clicks.

    Tokens that are parts of one character share its span, with the largest KL among them: letters of joined scripts stay joined.
    """
    full, spans = reach(reading), []
    for group in characters(reading.tokens):
        token, own = reading.tokens[group[-1]], [reading.expected[at][position] for position in group]
        most, colour = max((item.kl for item in own if item), default=0.0), colours.harm[3]
        share = most / full if most >= SEEN else 0.0
        told = " · ".join(_told(reading, names, at, position) for position in group)
        shown = escape(token).replace("\n", f'<span style="color:{colours.muted}">⏎</span>\n')
        frame = f"outline:2px solid {colours.ink};" if chosen in group else ""
        height = max(_THIN, round(_BAR * share)) if share else 0
        shade = tint(colour, _FAINT + (1 - _FAINT) * share**0.5) if share else "transparent"
        spans.append(
            f'<span title="{escape(told, quote=True)}" data-token="{group[-1]}" style="cursor:pointer;{frame}padding:1px 0 {_BAR + 3}px;'
            f'border-radius:2px;background:linear-gradient({colour},{colour}) bottom/100% {height}px no-repeat,{shade}">{shown}</span>'
        )
    return (
        f'<div dir="auto" data-strip="{strip}" style="line-height:2.6;margin-top:-0.9rem;font-size:{BODY};white-space:pre-wrap;overflow-wrap:anywhere;'
        f'unicode-bidi:plaintext;color:{colours.ink}">{"".join(spans)}</div>'
    )


def characters(tokens: list[str]) -> list[list[int]]:
    """Positions of tokens, together where they make up one character: those that add nothing, with the one that completes it."""
    groups: list[list[int]] = []
    for position in range(len(tokens)):
        if position and not tokens[position - 1]:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def expected_table(reading: "Reading", names: list[str], position: int, shades: dict[str, str], colours: Palette) -> str:
    """What every system expected at one token, as an HTML table: five tokens with bars, the token that stands there, and the KL."""
    token = reading.tokens[position]
    rows = [row[position] for row in reading.expected]
    cell = f"padding:5px 10px;border-bottom:1px solid {colours.line};text-align:start;vertical-align:top"
    head = "".join(
        f'<th scope="col" style="{cell};border-top:4px solid {shades[name]};min-width:96px">{escape(name)}</th>' for name in names
    )
    body = [_row("stands here", [_stands(token, item) for item in rows], cell)]
    body.append(_row("KL, nats", [f"{item.kl:.3f}" if at and item else "–" for at, item in enumerate(rows)], cell))
    for place in range(max((len(item.top) for item in rows if item), default=0)):
        cells = [
            _bar(item.top[place], item.rank == place + 1, shades[name], colours) if item else "–"
            for name, item in zip(names, rows, strict=True)
        ]
        body.append(_row(f"{place + 1}.", cells, cell))
    return (
        f'<div style="overflow-x:auto"><table style="border-collapse:collapse;width:100%;font-size:{BODY};color:{colours.ink}">'
        f'<thead><tr><th scope="col" style="{cell};font-size:{NOTE};color:{colours.muted}">expected</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def likeliest(expected: "Expected") -> str:
    """'Jane 61 %, Nora 30 %, …' of its five."""
    return ", ".join(f"{visible(token)} {share:.0%}" for token, share in expected.top)


def _told(reading: "Reading", names: list[str], at: int, position: int) -> str:
    token, base, own = reading.tokens[position], reading.expected[0][position], reading.expected[at][position]
    if base is None or own is None:
        return "the first token: nothing predicts it"
    here = f"'{visible(token)}'" if token else words.PART
    return f"{here} · KL {own.kl:.3f} · {names[0]}: {likeliest(base)} · {names[at]}: {likeliest(own)}"


def _stands(token: str, item: "Expected | None") -> str:
    name = f"<bdi>{escape(visible(token))}</bdi>" if token else words.PART
    return f"{name} {item.share:.1%}, rank {item.rank:,}" if item else name


def _bar(guess: tuple[str, float], same: bool, colour: str, colours: Palette) -> str:
    """A token with its probability, as text on a bar; bold with a tick where it is the `same` that stands there."""
    look = "font-weight:700" if same else ""
    return (
        f'<div style="background:linear-gradient(to right,{tint(colour, 0.7)} {100 * guess[1]:.0f}%,transparent 0);border-radius:3px;padding:0 6px;'
        f'display:flex;justify-content:space-between;gap:10px;{look}"><bdi>{escape(visible(guess[0]))}{" ✓" if same else ""}</bdi>'
        f'<span style="color:{colours.ink}">{guess[1]:.0%}</span></div>'
    )


def _row(name: str, cells: list[str], cell: str) -> str:
    body = "".join(f'<td style="{cell}">{content}</td>' for content in cells)
    return f'<tr><th scope="row" style="{cell};font-weight:400;white-space:nowrap">{name}</th>{body}</tr>'
