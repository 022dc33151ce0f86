"""The recurring picture: the model as a strip of blocks, removed ones hatched, the carrier marked. And the strip of steps."""

from collections.abc import Sequence
from html import escape

import streamlit as st

from ui.look.page_style import BODY, NOTE, SMALL
from ui.look.palette import Palette, palette
from ui.look.site import PAGES, STEPS

_LEGEND = ("kept", "carrier: gets the transform T", "removed")
_ROOMY = 14
"""blocks up to which a cell has room for large figures and for the sign of the transform"""


def ruler(n_blocks: int, removed: Sequence[int] | None, caption: str, compact: bool = False) -> None:
    """The strip of blocks of a model; `compact` leaves the numbers and the legend out."""
    st.html(ruler_html(n_blocks, removed, caption, palette(), compact))


def ruler_html(n_blocks: int, removed: Sequence[int] | None, caption: str, colours: Palette, compact: bool = False) -> str:
    """The strip as HTML. It shrinks with the page and reads out as its caption."""
    every = 1 if n_blocks <= 24 else (2 if n_blocks <= 40 else 8)
    roomy = n_blocks <= _ROOMY
    size = f"height:{14 if compact else 40}px;font-size:{BODY if roomy else SMALL}"
    cells = []
    for block in range(n_blocks):
        kind = kind_of(block, set(removed or ()))
        number = "" if compact or block % every else f"{block}&thinsp;+T" if roomy and kind == "carrier" else str(block)
        cells.append(_cell(block, kind, number, size, colours))
    strip = f'<div style="display:flex;gap:{2 if n_blocks <= 48 else 1}px;width:100%">{"".join(cells)}</div>'
    return f'<div role="img" aria-label="{escape(caption)}">{strip}{"" if compact else _legend(colours, caption)}</div>'


def kind_of(block: int, removed: set[int]) -> str:
    """'removed', 'carrier' or 'kept'."""
    return "removed" if block in removed else "carrier" if block + 1 in removed else "kept"


def hatch(colours: Palette) -> str:
    """The hatching of what is removed, as a CSS background."""
    return f"repeating-linear-gradient(45deg,{colours.cut} 0 2px,{colours.background} 2px 7px)"


def _cell(block: int, kind: str, number: str, size: str, colours: Palette) -> str:
    look = {
        "removed": f"background:{hatch(colours)};border:1px dashed {colours.cut};color:{colours.ink}",
        "carrier": f"background:{colours.carrier};border:1px solid {colours.carrier};color:{colours.background};font-weight:700",
        "kept": f"background:{colours.panel};border:1px solid {colours.original};color:{colours.ink}",
    }[kind]
    if number and kind == "removed":
        number = f'<span style="background:{colours.background};border-radius:3px;padding:0 3px">{number}</span>'
    return (
        f'<div title="block {block}: {kind}" style="flex:1 1 0;min-width:0;border-radius:4px;display:flex;align-items:center;'
        f'justify-content:center;white-space:nowrap;box-sizing:border-box;{size};{look}">{number}</div>'
    )


def _legend(colours: Palette, caption: str) -> str:
    kept, carrier, removed = _LEGEND
    swatches = (
        (f"background:{colours.panel};border:1px solid {colours.original}", kept),
        (f"background:{colours.carrier}", carrier),
        (f"background:{hatch(colours)};border:1px dashed {colours.cut}", removed),
    )
    items = "".join(
        f'<span style="display:inline-flex;align-items:center;gap:6px;white-space:nowrap">'
        f'<span style="width:16px;height:12px;border-radius:3px;box-sizing:border-box;{look}"></span>{escape(name)}</span>'
        for look, name in swatches
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 18px;justify-content:space-between;margin-top:8px;font-size:{NOTE};color:{colours.muted}">'
        f'<strong style="color:{colours.ink}">{escape(caption)}</strong><span style="display:flex;flex-wrap:wrap;gap:4px 18px">{items}</span></div>'
    )


def steps_html(done: set[str], current: str | None, colours: Palette) -> str:
    """The strip of steps: done, current, to do; each also marked by a sign, not by colour alone."""
    items = []
    for number, step in enumerate(STEPS, start=1):
        title = PAGES[step].title
        if step in done:
            sign, look, said = "✓", f"border-color:{colours.carrier};color:{colours.carrier}", "done"
        elif step == current:
            sign, look, said = str(number), f"border-color:{colours.pruned};background:{colours.pruned};color:{colours.background}", "next"
        else:
            sign, look, said = str(number), f"border-color:{colours.line};color:{colours.muted}", "to do"
        weight = "600" if step == current else "400"
        items.append(
            f'<li style="flex:1 1 64px;list-style:none;text-align:center;margin:0"><span style="display:inline-flex;width:30px;height:30px;'
            f'border-radius:50%;border:2px solid;align-items:center;justify-content:center;font-weight:600;box-sizing:border-box;{look}">{sign}</span>'
            f'<div style="font-size:{NOTE};font-weight:{weight};margin-top:4px">{title}</div>'
            f'<div style="font-size:{SMALL};color:{colours.muted}">{said}</div></li>'
        )
    return f'<ol style="display:flex;flex-wrap:wrap;gap:6px;padding:0;margin:0" aria-label="steps">{"".join(items)}</ol>'
