"""The systems that stand side by side on Compare: which, what was cut out of each, and which of them the others are compared with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from ui.compare import words
from ui.look.layout import split
from ui.look.ruler import ruler, solved_in
from ui.look.systems import CUT, ORIGINAL
from ui.parts.quantised import held_note
from ui.session.state import Studio
from ui.session.variants import systems

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, ModelHandle

_MOST = 4


@dataclass(frozen=True, eq=False)
class Systems:
    """At least two of them, by name, in the order of the columns."""

    handles: "dict[str, ModelHandle]"
    cuts: "dict[str, Cut | None]"
    """what each lacks of the original; None for the original itself"""
    reference: str

    @property
    def names(self) -> list[str]:
        return list(self.handles)

    @property
    def others(self) -> list[str]:
        """All but the reference."""
        return [name for name in self.handles if name != self.reference]

    @property
    def reference_first(self) -> "dict[str, ModelHandle]":
        return {name: self.handles[name] for name in (self.reference, *self.others)}


def choose(state: Studio) -> Systems | None:
    """Ask which systems, and which is the reference; None while fewer than two are chosen."""
    offered = [ORIGINAL, *([CUT] if _has_cut(state) else []), *state.variants]
    shown, against = split("systems", [3, 1], "bottom")
    chosen = _ask_systems(state, offered, shown)
    reference = against.selectbox(
        "Compared with", chosen or offered[:1], key=f"reference_{'|'.join(chosen)}", persist_state="session", help=words.REFERENCE_HELP
    )
    if len(chosen) < 2:
        st.info(words.TOO_FEW, icon=":material/compare_arrows:")
        return None
    found = _systems(state, chosen, reference)
    _rulers(state, found)
    return found


def _ask_systems(state: Studio, offered: list[str], place: "st.delta_generator.DeltaGenerator") -> list[str]:
    key, usual = "compare_systems", [*offered[: len(offered) - len(state.variants)], *list(state.variants)[-1:]]
    if key in st.session_state:
        st.session_state[key] = [name for name in st.session_state[key] if name in offered]
    return place.multiselect(
        "Side by side",
        offered,
        default=None if key in st.session_state else usual,
        max_selections=_MOST,
        key=key,
        persist_state="session",
        help=words.SYSTEMS_HELP,
    )


def _has_cut(state: Studio) -> bool:
    resident = state.resident
    return resident is not None and any(variant.transform.cut in resident.cuts for variant in state.variants.values())


def _systems(state: Studio, chosen: list[str], reference: str) -> Systems:
    """The cut is that of the first chosen variant, or of the newest where none is chosen."""
    variants = state.variants
    named = [name for name in chosen if name in variants] or list(variants)[-1:]
    if CUT in chosen and CUT not in systems(state, named):
        named = [name for name in variants if CUT in systems(state, [name])][-1:] + named
    handles = systems(state, named)
    cuts: dict[str, Cut | None] = {ORIGINAL: None, CUT: variants[named[0]].transform.cut}
    cuts.update({name: variant.transform.cut for name, variant in variants.items()})
    return Systems({name: handles[name] for name in chosen}, {name: cuts[name] for name in chosen}, reference)


def _rulers(state: Studio, found: Systems) -> None:
    """One strip of blocks for systems that lack the same blocks and have the same ones changed; the bare cut stands in no strip of its own beside such."""
    resident = state.resident
    if resident is None:
        return
    alike: dict[tuple[Cut, tuple[int, ...] | None], list[str]] = {}
    for name in found.names:
        if name in state.variants:
            transform = state.variants[name].transform
            alike.setdefault((transform.cut, solved_in(transform)), []).append(name)
    bare = found.cuts.get(CUT)
    if bare is not None and all(cut != bare for cut, _ in alike):
        alike[bare, ()] = [CUT]
    for (cut, solved), names in alike.items():
        n_blocks = resident.handle.n_blocks
        ruler(n_blocks, cut.blocks, f"{', '.join(names)}: {cut.describe(n_blocks)}", solved=solved)
    held_note(state)
