"""What the Sweep page shows: the folder, and which of its points were kept as variants."""

from dataclasses import dataclass, field

from ui.session.state import Slot


@dataclass(eq=False)
class SweepState(Slot):
    """What the Sweep page shows; the results themselves are in the folder."""

    folder: str = ""
    nonce: int = 0
    """changes the keys of chart and table, so that a click that was taken is dropped"""
    current: str = ""
    """key of the point that was made the current variant last"""
    kept: dict[str, str] = field(default_factory=dict)
    """name of the variant, by key of its point"""
