"""What the places of one length are ranked by: the chosen criterion, its ranking, and its name."""

from typing import TYPE_CHECKING

from ui.blocks import words
from ui.blocks.state import BlocksState
from ui.session import live
from ui.session.methods import structures
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import DistanceMatrix


def criterion_title(state: Studio) -> str:
    from replaceme_core.selection.criteria import CRITERIA

    return CRITERIA[state.slot(BlocksState).criterion].title.lower()


def ranking(state: Studio, length: int) -> "tuple[DistanceMatrix, str]":
    """What the chosen criterion says of the spans of this length, and a note if it fell back on the distance."""
    from replaceme_core.selection import criteria

    criterion = state.slot(BlocksState).criterion
    if criterion == "missed" and state.partial is not None:
        return state.partial.distances["all"], words.MISSED_LATER

    def make() -> "tuple[DistanceMatrix, str]":
        return criteria.rank(live.shown(state), length, criterion, structure=structures(state)[0])

    so_far = state.partial.n_tokens if state.partial is not None else None
    return live.remembered(state, ("ranking", criterion, length, so_far), make)
