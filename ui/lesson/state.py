"""Where one session is in the lesson: the card, whose figures it shows, and what was predicted."""

from dataclasses import dataclass, field

from replaceme_core.span import Span
from ui.session.state import Slot

REAL, DEMO = "smollm2", "demo"
"""whose figures are bundled: a real language model, and the small demo"""


@dataclass(eq=False)
class Game:
    """Predictions are kept by the number of blocks of their round."""

    round: int = 0
    picked: dict[int, Span] = field(default_factory=dict)
    """not yet revealed; it can still be changed"""
    revealed: dict[int, Span] = field(default_factory=dict)
    seen_cell: object = None
    """the click on the matrix that was taken over last"""


@dataclass(eq=False)
class LessonState(Slot):
    """Cards are counted from 1."""

    card: int = 1
    model: str = REAL
    games: dict[str, Game] = field(default_factory=dict)
    """by model"""
    live: bool = False
    """whether the first cards show the loaded model in place of the bundled one"""

    @property
    def game(self) -> Game:
        """The game on the present model."""
        return self.games.setdefault(self.model, Game())
