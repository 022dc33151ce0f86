"""The checks of a variant as a list: what was compared, how far apart it was, and how far it may be."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from ui.export import words
from ui.look.figures import number
from ui.look.page_style import LEAD, NOTE
from ui.look.palette import Palette, palette

if TYPE_CHECKING:
    from replaceme_core.artifacts import Proof

_SAID = {
    "merged = hooked": "Merged into the weights, the transform gives what it gave as a hook",
    "merged = trained": "The merged model gives what the trained one gave",
    "cached = uncached": "Generating token by token with the cache gives what one forward pass over everything gives",
    "merged = original, then T": "The carrier's merged weights are the original ones, then the transform",
    "untouched = original": "Every weight that was not touched is that of the original checkpoint",
    "names = model": "Every weight of the merged folder is one that the pruned model knows, and none is missing",
    "forward = block by block": "The whole model gives what its blocks give one after another",
    "reload = memory": "The saved folder, read back by plain transformers, is the model in memory",
}


def checklist(found: "Sequence[Proof]", reloads: bool) -> None:
    """Every check with its figure and its limit; `reloads`: one more is made when the folder or the zip is written."""
    st.markdown("### Does it pass its checks?")
    st.html(checklist_html(found, reloads, palette()))


def checklist_html(found: "Sequence[Proof]", reloads: bool, colours: Palette) -> str:
    """The list as HTML. Passed and failed differ by sign and word, the colour only repeats it."""
    items = [_item(proof, colours) for proof in found]
    if reloads and not any(proof.name == "reload = memory" for proof in found):
        items.append(_row("○", "to come", colours.muted, _SAID["reload = memory"], words.PROOF_TO_COME, colours))
    return f'<ul role="list" aria-label="checks" style="list-style:none;padding:0;margin:0">{"".join(items)}</ul>'


def _item(proof: "Proof", colours: Palette) -> str:
    sign, word, colour = ("✓", "passed", colours.carrier) if proof.passed else ("✗", "failed", colours.cut)
    return _row(
        sign,
        word,
        colour,
        _SAID.get(proof.name, proof.name),
        f"{escape(proof.detail[:1].upper() + proof.detail[1:])}. {figures(proof)}",
        colours,
    )


def figures(proof: "Proof") -> str:
    """'Relative difference 3.1 × 10⁻⁷, allowed 0.0001.' in words; exact comparisons say so."""
    if proof.tolerance == 0:
        return f"{'No' if proof.error == 0 else f'{proof.error:.0f}'} difference; none is allowed."
    return f"Relative difference <strong>{number(proof.error)}</strong>, allowed {number(proof.tolerance)}."


def _row(sign: str, word: str, colour: str, said: str, detail: str, colours: Palette) -> str:
    return (
        f'<li style="display:flex;gap:14px;align-items:flex-start;padding:10px 0;border-top:1px solid {colours.line}">'
        f'<span style="flex:0 0 92px;display:inline-flex;gap:8px;align-items:baseline;color:{colour};font-weight:700">'
        f'<span aria-hidden="true" style="font-size:{LEAD}">{sign}</span>{word}</span>'
        f'<span><strong style="color:{colours.ink}">{escape(said)}</strong><br>'
        f'<span style="font-size:{NOTE};color:{colours.muted}">{detail}</span></span></li>'
    )
