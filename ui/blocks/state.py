"""What the Blocks page knows of a session: the criterion, the moves on its two matrices, the pinned choice, what a search found."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ui.session.state import Lifetime, Slot

if TYPE_CHECKING:
    from replaceme_core.plans.plan import Criterion
    from replaceme_core.span import Cut
    from replaceme_core.studies.planner import Places


@dataclass(eq=False)
class BlocksState(Slot):
    """As long as the session."""

    criterion: "Criterion" = "measured_kl"
    """what the places of one length are ranked by; the distance with sinks kept stands in until they are measured"""
    seen_click: tuple[str, tuple[int, int], int] | None = None
    """the click on the heatmap that was taken last: the chart's key, the cell, and how often anything else had moved the span by then"""
    charts: int = 0
    """how often the heatmap was begun anew to drop such a click"""
    table_moves: tuple[int, tuple[int, int] | None] = (0, None)
    """number of the matrix's table, and the cell (start, end) that was chosen on it last"""


@dataclass(eq=False)
class PinnedState(Slot):
    """What the present cut is compared with."""

    lifetime: ClassVar[Lifetime] = "model"
    cut: "Cut | None" = None


@dataclass(frozen=True)
class Linearity:
    """Held-out scores by block; the matrices are not kept."""

    whole: list[float]
    own: list[float]
    n_tokens: int
    n_heldout_tokens: int


@dataclass(eq=False)
class MeasuredState(Slot):
    """What was measured of the present model and text, beyond the calibration pass."""

    lifetime: ClassVar[Lifetime] = "measurement"
    places: "Places | None" = None
    """what the search for places found last"""
    linearity: Linearity | None = None
