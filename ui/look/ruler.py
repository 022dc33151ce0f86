"""The recurring picture: the model as a strip of blocks, removed ones hatched, the carrier marked, or what a refit solved.

Up to a dozen blocks carry their numbers. Where cells are narrower, what matters is named beside them at any depth: the carrier with
its T above the strip, or the solved blocks, the removed run under it, and every so many blocks a number.
"""

from collections.abc import Collection, Sequence
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.plans.methods import METHODS
from ui.look.page_style import BODY, NOTE
from ui.look.palette import Palette, palette

if TYPE_CHECKING:
    from replaceme_core.artifacts import LinearTransform

_ROOMY = 14
"""blocks up to which a cell has room for large figures and for the sign of the transform"""


def ruler(n_blocks: int, removed: Sequence[int] | None, caption: str, compact: bool = False, solved: Collection[int] | None = None) -> None:
    """The strip of blocks of a model; `compact` leaves the numbers and the legend out.

    `solved`: the blocks that a refit gave new weights, none after a plain removal; left out, each carrier is marked as the one that gets T.
    """
    st.html(ruler_html(n_blocks, removed, caption, palette(), compact, solved))


def of_variant(n_blocks: int, name: str, transform: "LinearTransform") -> None:
    """The strip of a variant, with the blocks that its fit changed."""
    cut = transform.cut
    ruler(n_blocks, cut.blocks, f"{name}: {cut.describe(n_blocks)}", solved=solved_in(transform))


def solved_in(transform: "LinearTransform") -> tuple[int, ...] | None:
    """The blocks that a refit solved, none after a plain removal; None where the carriers got T, of one span or of several."""
    info = METHODS.get(transform.settings.get("name", ""))
    return tuple(transform.solved) if info is not None and info.group in ("refit", "removal") else None


def ruler_html(
    n_blocks: int,
    removed: Sequence[int] | None,
    caption: str,
    colours: Palette,
    compact: bool = False,
    solved: Collection[int] | None = None,
) -> str:
    """The strip as HTML. It shrinks with the page and reads out as its caption."""
    roomy, gone = n_blocks <= _ROOMY, set(removed or ())
    size = f"height:{14 if compact else 40 if roomy else 30}px;font-size:{BODY}"
    cells = []
    for block in range(n_blocks):
        kind = kind_of(block, gone, solved)
        number = "" if compact or not roomy else f"{block}&thinsp;+T" if kind == "carrier" else str(block)
        cells.append(_cell(block, kind, number, size, colours))
    strip = f'<div style="display:flex;gap:{2 if n_blocks <= 48 else 1}px;width:100%">{"".join(cells)}</div>'
    if not compact and not roomy:
        strip = f"{_above(n_blocks, gone, colours, solved)}{strip}{_below(n_blocks, gone, colours)}"
    return f'<div role="img" aria-label="{escape(caption)}">{strip}{"" if compact else _legend(colours, caption, solved)}</div>'


def kind_of(block: int, removed: set[int], solved: Collection[int] | None = None) -> str:
    """'removed', 'solved' (new weights), 'carrier' (gets T) or 'kept'."""
    if block in removed:
        return "removed"
    if solved is not None:
        return "solved" if block in solved else "kept"
    return "carrier" if block + 1 in removed else "kept"


def hatch(colours: Palette) -> str:
    """The hatching of what is removed, as a CSS background."""
    return f"repeating-linear-gradient(45deg,{colours.cut} 0 2px,{colours.background} 2px 7px)"


def runs(removed: set[int]) -> list[tuple[int, int]]:
    """First and last block of every run of removed ones."""
    firsts = sorted(block for block in removed if block - 1 not in removed)
    lasts = sorted(block for block in removed if block + 1 not in removed)
    return list(zip(firsts, lasts, strict=True))


def _above(n_blocks: int, gone: set[int], colours: Palette, solved: Collection[int] | None) -> str:
    """The carriers by number, each with its T; or the runs of solved blocks."""
    if solved is None:
        named = [((first - 0.5) / n_blocks, f"{first - 1}&thinsp;+T") for first, _ in runs(gone) if first]
    else:
        named = [((first + last + 1) / 2 / n_blocks, _range(first, last)) for first, last in runs(set(solved))]
    return _row("".join(_mark(at, f"{said}&thinsp;▾", f"color:{colours.carrier};font-weight:700") for at, said in named), "bottom:1px")


def _below(n_blocks: int, gone: set[int], colours: Palette) -> str:
    """The removed runs by number; and a number at every so many blocks that do not touch them."""
    every = 2 if n_blocks <= 24 else 5 if n_blocks <= 40 else 10
    room, marks = 0.85 * every, []
    for first, last in runs(gone):
        marks.append(_mark((first + last + 1) / 2 / n_blocks, _range(first, last), f"color:{colours.cut};font-weight:700"))
    for block in range(0, n_blocks, every):
        if all(block < min(first, (first + last) / 2 - room) or block > max(last, (first + last) / 2 + room) for first, last in runs(gone)):
            marks.append(_mark((block + 0.5) / n_blocks, str(block), f"color:{colours.muted}"))
    return _row("".join(marks), "top:1px")


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


def _row(marks: str, edge: str) -> str:
    return f'<div aria-hidden="true" style="position:relative;height:1.25rem;font-size:{NOTE};line-height:1.2">{marks.replace("EDGE", edge)}</div>'


def _mark(place: float, said: str, look: str) -> str:
    """A word centred at a share of the width."""
    return f'<span style="position:absolute;EDGE;left:{place:.2%};transform:translateX(-50%);white-space:nowrap;{look}">{said}</span>'


def _cell(block: int, kind: str, number: str, size: str, colours: Palette) -> str:
    changed = f"background:{colours.carrier};border:1px solid {colours.carrier};color:{colours.background};font-weight:700"
    look = {
        "removed": f"background:{hatch(colours)};border:1px dashed {colours.cut};color:{colours.ink}",
        "carrier": changed,
        "solved": changed,
        "kept": f"background:{colours.panel};border:1px solid {colours.original};color:{colours.ink}",
    }[kind]
    if number and kind == "removed":
        number = f'<span style="background:{colours.background};border-radius:3px;padding:0 3px">{number}</span>'
    return (
        f'<div title="block {block}: {kind}" style="flex:1 1 0;min-width:0;border-radius:4px;display:flex;align-items:center;'
        f'justify-content:center;white-space:nowrap;box-sizing:border-box;{size};{look}">{number}</div>'
    )


def _legend(colours: Palette, caption: str, solved: Collection[int] | None) -> str:
    swatches = [(f"background:{colours.panel};border:1px solid {colours.original}", "kept")]
    if solved is None or solved:
        swatches.append((f"background:{colours.carrier}", "carrier: gets the transform T" if solved is None else "solved: new weights"))
    swatches.append((f"background:{hatch(colours)};border:1px dashed {colours.cut}", "removed"))
    items = "".join(
        f'<span style="display:inline-flex;align-items:center;gap:6px;white-space:nowrap">'
        f'<span style="width:16px;height:12px;border-radius:3px;box-sizing:border-box;{look}"></span>{escape(name)}</span>'
        for look, name in swatches
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 18px;justify-content:space-between;margin-top:8px;font-size:{NOTE};color:{colours.muted}">'
        f'<strong style="color:{colours.ink}">{escape(caption)}</strong><span style="display:flex;flex-wrap:wrap;gap:4px 18px">{items}</span></div>'
    )
