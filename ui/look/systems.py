"""The two systems that every comparison has, by name, and the one colour that each system keeps in every chart."""

from itertools import cycle

from ui.look.palette import Palette

CUT = "removed, no transform"
ORIGINAL = "original"


def system_colours(names: list[str], colours: Palette) -> dict[str, str]:
    """Grey for the original, orange for the cut, and the variants in their order; a system has one colour in every chart."""
    fixed = {ORIGINAL: colours.original, CUT: colours.cut}
    variants = cycle((colours.pruned, colours.carrier, colours.muted))
    return {name: fixed.get(name) or next(variants) for name in names}
