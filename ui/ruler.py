"""The recurring picture: the model as a strip of blocks, removed ones hatched, the carrier marked. And the strip of steps."""

from collections.abc import Sequence
from html import escape

import streamlit as st

from ui import words
from ui.palette import Palette, palette


def ruler(n_blocks: int, removed: Sequence[int] | None, caption: str, compact: bool = False) -> None:
    """The strip of blocks of a model; `compact` leaves the numbers and the legend out."""
    st.html(ruler_html(n_blocks, removed, caption, palette(), compact))


def ruler_html(n_blocks: int, removed: Sequence[int] | None, caption: str, colours: Palette, compact: bool = False) -> str:
    """The strip as HTML. It shrinks with the page and reads out as its caption."""
    every = 1 if n_blocks <= 24 else (2 if n_blocks <= 40 else 8)
    height = 14 if compact else 40
    gone = set(removed or ())
    cells = "".join(_cell(block, gone, colours, height, not compact and block % every == 0) for block in range(n_blocks))
    strip = f'<div style="display:flex;gap:{2 if n_blocks <= 48 else 1}px;width:100%">{cells}</div>'
    return f'<div role="img" aria-label="{escape(caption)}">{strip}{"" if compact else _legend(colours, caption)}</div>'


def hatch(colours: Palette) -> str:
    """The hatching of what is removed, as a CSS background."""
    return f"repeating-linear-gradient(45deg,{colours.cut} 0 2px,{colours.background} 2px 7px)"


def _cell(block: int, gone: set[int], colours: Palette, height: int, numbered: bool) -> str:
    removed = block in gone
    carrier = not removed and block + 1 in gone
    if removed:
        look = f"background:{hatch(colours)};border:1px dashed {colours.cut};color:{colours.ink}"
    elif carrier:
        look = f"background:{colours.carrier};border:1px solid {colours.carrier};color:{colours.background};font-weight:700"
    else:
        look = f"background:{colours.panel};border:1px solid {colours.line};color:{colours.ink}"
    kind = "removed" if removed else "carrier" if carrier else "kept"
    number = ""
    if numbered:
        number = f'<span style="background:{colours.background};border-radius:3px;padding:0 3px">{block}</span>' if removed else str(block)
    return (
        f'<div title="block {block}: {kind}" style="flex:1 1 0;min-width:0;height:{height}px;border-radius:4px;display:flex;align-items:center;'
        f'justify-content:center;font-size:0.78rem;white-space:nowrap;box-sizing:border-box;{look}">{number}</div>'
    )


def _legend(colours: Palette, caption: str) -> str:
    kept, carrier, removed = words.RULER_LEGEND
    swatches = (
        (f"background:{colours.panel};border:1px solid {colours.line}", kept),
        (f"background:{colours.carrier}", carrier),
        (f"background:{hatch(colours)};border:1px dashed {colours.cut}", removed),
    )
    items = "".join(
        f'<span style="display:inline-flex;align-items:center;gap:6px;white-space:nowrap">'
        f'<span style="width:16px;height:12px;border-radius:3px;box-sizing:border-box;{look}"></span>{escape(name)}</span>'
        for look, name in swatches
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 18px;justify-content:space-between;margin-top:8px;font-size:0.85rem;color:{colours.muted}">'
        f'<strong style="color:{colours.ink}">{escape(caption)}</strong><span style="display:flex;flex-wrap:wrap;gap:4px 18px">{items}</span></div>'
    )


def steps_html(done: set[str], current: str | None, colours: Palette) -> str:
    """The strip of steps: done, current, to do; each also marked by a sign, not by colour alone."""
    items = []
    for number, step in enumerate(words.STEPS, start=1):
        title = words.PAGES[step].title
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
            f'<div style="font-size:0.9rem;font-weight:{weight};margin-top:4px">{title}</div>'
            f'<div style="font-size:0.78rem;color:{colours.muted}">{said}</div></li>'
        )
    return f'<ol style="display:flex;flex-wrap:wrap;gap:6px;padding:0;margin:0" aria-label="steps">{"".join(items)}</ol>'
