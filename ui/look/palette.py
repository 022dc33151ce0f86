"""One small palette that reads in light, in dark and for colour-blind eyes (after Okabe and Ito).

Three systems keep their colour everywhere: the original is grey, the cut without transform is orange, what the
transform repairs is blue. The carrier is green. They are four steps of lightness too, from the original, nearest to the page, to the
carrier, so that they stay apart for every kind of colour-blind eye and on a printed page without colours (tests/ui/look/test_palette.py);
and no picture says by colour alone what it says: removed is hatched or striped, train is dashed, the least place is a diamond.

Two ramps: `ramp` (blue) is strong where something is small and good to remove, `harm` (brown) where something is far from the original.
"""

from dataclasses import dataclass

import streamlit as st


@dataclass(frozen=True)
class Palette:
    """Hex colours of one theme."""

    background: str
    ink: str
    muted: str
    line: str
    panel: str
    original: str
    cut: str
    pruned: str
    carrier: str
    ramp: tuple[str, ...]
    """from large (plain) to small (strong): strong is good"""
    harm: tuple[str, ...]
    """from near (plain) to far (strong): strong is bad"""
    diverging: tuple[str, str, str]
    """below, at and above the middle"""


LIGHT = Palette(
    background="#FFFFFF",
    ink="#17212B",
    muted="#5A6875",
    line="#C9D3DC",
    panel="#F2F5F8",
    original="#676F78",
    cut="#A23E04",
    pruned="#0F42B8",
    carrier="#00432D",
    ramp=("#F4F7FA", "#BFD9EC", "#5FA3D3", "#1B6CA8", "#083558"),
    harm=("#F6F3EF", "#F6D3AE", "#E09A55", "#AF5710", "#5A2600"),
    diverging=("#0A5DB5", "#F4F7FA", "#BC4A06"),
)

DARK = Palette(
    background="#10161D",
    ink="#E6EDF3",
    muted="#9DAAB6",
    line="#3A4855",
    panel="#19222C",
    original="#818A94",
    cut="#FA772B",
    pruned="#7BB7F8",
    carrier="#46E5AA",
    ramp=("#1B252F", "#1F4767", "#2E7DB5", "#6DBEF2", "#E2F4FF"),
    harm=("#28221C", "#5A3A1E", "#A0632E", "#EBA263", "#FFEBD6"),
    diverging=("#55A5F2", "#1F2933", "#F0914A"),
)


def palette() -> Palette:
    """The palette of the theme that the browser shows."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def rgb(colour: str) -> tuple[int, int, int]:
    """'#0A5DB5' as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
