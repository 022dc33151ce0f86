"""Where one session is in the lesson: the card, and what was predicted."""

from dataclasses import dataclass, field

from replaceme_core.span import Span
from ui.session.state import Slot


@dataclass(eq=False)
class LessonState(Slot):
    """Cards are counted from 1. Predictions are kept by the number of blocks of their round."""

    card: int = 1
    round: int = 0
    picked: dict[int, Span] = field(default_factory=dict)
    """not yet revealed; it can still be changed"""
    revealed: dict[int, Span] = field(default_factory=dict)
    live: bool = False
    """whether the first cards show the loaded model in place of the bundled one"""
    seen_cell: object = None
    """the click on the matrix that was taken over last"""
