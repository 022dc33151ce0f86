"""Pictures of a text that several systems read: bars under its tokens, the strip that chooses one, and what was expected there."""

from html import escape
from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from ui.compare import words
from ui.look.chart_style import styled
from ui.look.page_style import BODY, NOTE
from ui.look.palette import Palette
from ui.look.token_text import tint, visible

if TYPE_CHECKING:
    from replaceme_core.comparison.reading import Expected, Reading

_BAR = 14
"""pixels of the tallest bar under a token"""
_LEAST = 0.5
"""nats that fill a bar where no KL is larger, so that small differences look small"""


def reach(reading: "Reading") -> float:
    """The KL of a full bar, the same for every system."""
    return max([_LEAST, *(item.kl for row in reading.expected for item in row if item is not None)])


def text_strip(reading: "Reading", names: list[str], at: int, colour: str, colours: Palette, chosen: int | None = None) -> str:
    """The text as system `at` of `names` (the reference first) reads it: a bar and a shade for the KL at every token, more on hover.

    Tokens that are parts of one character share its span, with the largest KL among them: letters of joined scripts stay joined.
    """
    full, spans = reach(reading), []
    for group in characters(reading.tokens):
        token, own = reading.tokens[group[-1]], [reading.expected[at][position] for position in group]
        share = max((item.kl for item in own if item), default=0.0) / full
        told = " · ".join(_told(reading, names, at, position) for position in group)
        shown = escape(token).replace("\n", f'<span style="color:{colours.muted}">⏎</span>\n')
        frame = f"outline:2px solid {colours.ink};" if chosen in group else ""
        height = round(_BAR * share) if share < 1 / _BAR else max(1, round(_BAR * share))
        spans.append(
            f'<span title="{escape(told, quote=True)}" style="{frame}padding:1px 0 {_BAR + 3}px;border-radius:2px;'
            f"background:linear-gradient({colour},{colour}) bottom/100% {height}px no-repeat,"
            f'{tint(colour, 0.6 * share**0.5)}">{shown}</span>'
        )
    return (
        f'<div dir="auto" style="line-height:2.6;margin-top:-0.9rem;font-size:{BODY};white-space:pre-wrap;overflow-wrap:anywhere;'
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


def strip_rows(reading: "Reading", names: list[str]) -> pd.DataFrame:
    """position, token, system, kl, and the first tokens that each expected; the reference has no row, its KL to itself is 0."""
    rows = []
    for name, expected in list(zip(names, reading.expected, strict=True))[1:]:
        for at, (token, base, own) in enumerate(zip(reading.tokens, reading.expected[0], expected, strict=True)):
            if base is not None and own is not None:
                here = {"position": at, "token": visible(token) if token else words.PART, "system": name, "kl": own.kl}
                said = f"position: {at}; token {here['token']}; {name}: KL {own.kl:.3f}"
                rows.append(here | {"base": likeliest(base), "own": likeliest(own), "said": said})
    return pd.DataFrame(rows)


def kl_strip(rows: pd.DataFrame, names: list[str], chosen: int, colours: Palette) -> alt.LayerChart:
    """KL at every token: a row per other system, a cell per token; a click chooses the token. `rows` of `strip_rows`."""
    reference, *others = names
    x = alt.X("position:O", title="position in the text", axis=alt.Axis(labelOverlap=True, ticks=False, labelAngle=0))
    y = alt.Y("system:N", sort=others, title=None, axis=alt.Axis(labelLimit=200, domain=False, ticks=False))
    scale = alt.Scale(range=list(colours.ramp), domain=[0, max(_LEAST, float(rows["kl"].max()))])
    tips = [
        alt.Tooltip("token:N"),
        alt.Tooltip("kl:Q", title="KL (nats)", format=".3f"),
        alt.Tooltip("base:N", title=reference),
        alt.Tooltip("system:N"),
        alt.Tooltip("own:N", title="expects"),
    ]
    pick = alt.selection_point(name="token", fields=["position"], empty=False)
    cells = (
        alt.Chart(rows)
        .mark_rect(cursor="pointer", stroke=colours.background, strokeWidth=1)
        .encode(
            x=x,
            y=y,
            color=alt.Color("kl:Q", scale=scale, legend=alt.Legend(title="KL (nats)", orient="right")),
            tooltip=tips,
            description="said:N",
        )
        .add_params(pick)
    )
    frame = alt.Chart(rows[rows["position"] == chosen]).mark_rect(fill=None, stroke=colours.ink, strokeWidth=2.5).encode(x=x, y=y)
    return styled(alt.layer(cells, frame), colours, height=32 * len(others) + 72)


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
