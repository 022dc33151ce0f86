"""The picture of a logit lens: a row per boundary, named by the block it enters, a column per token, hatched where blocks are gone."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from ui.look.page_style import NOTE
from ui.look.palette import Palette
from ui.look.ruler import hatch
from ui.look.token_text import tint, visible

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut
    from replaceme_core.comparison.logit_lens import Guess, Lens

Figure = Literal["probability", "kl"]
_COLUMN = 6.2
"""rem of a column: a long token and its figure"""


@dataclass(frozen=True, eq=False)
class Side:
    """One system's lens, laid out along the boundaries of the original."""

    name: str
    lens: "Lens"
    cut: "Cut | None"
    n_blocks: int
    """of the original"""

    @property
    def rows(self) -> "list[list[Guess] | None]":
        """The guesses at every boundary of the original; None where the block that it enters is removed."""
        from replaceme_core.comparison.logit_lens import original_boundaries

        own = dict(zip(original_boundaries(self.n_blocks, self.cut), self.lens.guesses, strict=True))
        return [own.get(boundary) for boundary in range(self.n_blocks + 1)]

    def row_name(self, boundary: int) -> str:
        """'into 8', or 'into 8 ←4' where block 4 stands before it since the blocks between are gone; 'answer' for the last."""
        name = "answer" if boundary == self.n_blocks else f"into {boundary}"
        ends = {span.end: span.carrier for span in self.cut.spans} if self.cut else {}
        return f"{name} ←{ends[boundary]}" if boundary in ends else name


def lens_table(side: Side, beside: Side | None, figure: Figure, colour: str, colours: Palette) -> str:
    """The lens as an HTML table; cells whose first token differs from that of the lens `beside` it have a dashed frame."""
    full = max([1.0, *(guess.kl for row in side.lens.guesses for guess in row)])
    others = beside.rows if beside else [None] * (side.n_blocks + 1)
    cell = f"padding:0 5px;height:1.75rem;border:1px solid {colours.line};overflow:hidden;white-space:nowrap;text-overflow:ellipsis"
    head = "".join(f'<th scope="col" style="{cell};max-width:0"><bdi>{escape(visible(token))}</bdi></th>' for token in side.lens.tokens)
    body = []
    for boundary, (row, other) in enumerate(zip(side.rows, others, strict=True)):
        name = side.row_name(boundary)
        th = f'<th scope="row" style="{cell};width:5.4rem;text-align:start;font-weight:{700 if boundary == side.n_blocks else 400}">{name}</th>'
        if row is None:
            body.append(f"<tr>{th}{_removed(boundary, len(side.lens.tokens), cell, colours)}</tr>")
            continue
        cells = [_cell(guess, other[at] if other else None, figure, full, colour, cell, colours) for at, guess in enumerate(row)]
        body.append(f"<tr>{th}{''.join(cells)}</tr>")
    return (
        f'<div role="region" aria-label="{escape(side.name)}" tabindex="0" style="overflow-x:auto"><table style="border-collapse:collapse;table-layout:fixed;width:100%;min-width:{5.4 + _COLUMN * len(side.lens.tokens):.1f}rem;'
        f'font-size:{NOTE};color:{colours.ink}"><caption style="text-align:start;font-weight:600;padding:2px 8px;margin-bottom:4px;border-inline-start:5px solid {colour}">'
        f'{escape(side.name)}</caption><thead><tr><th scope="col" style="{cell};width:5.4rem;text-align:start;color:{colours.muted};font-weight:400">after …</th>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(guess: "Guess", other: "Guess | None", figure: Figure, full: float, colour: str, cell: str, colours: Palette) -> str:
    token, share = guess.top[0]
    value = f"{100 * share:.0f}" if figure == "probability" else f"{guess.kl:.1f}" if guess.kl < 9.95 else f"{guess.kl:.0f}"
    strength = share if figure == "probability" else (guess.kl / full) ** 0.5
    colour = colour if figure == "probability" else colours.harm[3]
    differs = other is not None and other.top[0][0] != token
    frame = f"outline:2px dashed {colours.cut};outline-offset:-3px;" if differs else ""
    told = f"{', '.join(f'{visible(name)} {p:.0%}' for name, p in guess.top)} · KL to its answer {guess.kl:.2f}"
    return (
        f'<td title="{escape(told, quote=True)}" style="{cell};max-width:0;{frame}background:{tint(colour, strength)}">'
        f'<span style="display:flex;justify-content:space-between;gap:4px"><bdi style="overflow:hidden;text-overflow:ellipsis">{escape(visible(token))}</bdi>'
        f"<span>{value}</span></span></td>"
    )


def _removed(boundary: int, width: int, cell: str, colours: Palette) -> str:
    label = f'<span style="background:{colours.background};padding:1px 8px;border-radius:3px">block {boundary} is removed</span>'
    return f'<td colspan="{width}" style="{cell};background:{hatch(colours)};text-align:center">{label}</td>'
