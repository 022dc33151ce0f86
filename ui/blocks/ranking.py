"""What the places of one length are ranked by: the chosen criterion, its ranking, and its name."""

from typing import TYPE_CHECKING

from ui.blocks import words
from ui.blocks.state import BlocksState
from ui.session import costs, live
from ui.session.methods import structures
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import DistanceMatrix
    from replaceme_core.plans.plan import Criterion
    from replaceme_core.span import Span


def criterion_title(state: Studio) -> str:
    """Of what ranks the places now: before all are measured, the distance stands in for what they cost."""
    from replaceme_core.selection.criteria import every

    return every()[present_criterion(state)].title.lower()


def present_criterion(state: Studio) -> "Criterion":
    """What ranks the places now."""
    criterion = state.slot(BlocksState).criterion
    if criterion != "measured_kl":
        return criterion
    is_known = state.span is not None and costs.can_measure(state) and costs.choice(state, len(state.span)) is not None
    return criterion if is_known else "sinks_kept"


def ranking(state: Studio, length: int) -> "tuple[DistanceMatrix, str]":
    """What the chosen criterion says of the spans of this length, and a note if it fell back on the distance."""
    from replaceme_core.selection import criteria

    criterion = present_criterion(state)
    if criterion == "measured_kl" and state.span is not None:
        found = costs.matrix(state, costs.kind_of(state, state.span))
        if found is not None:
            return found, ""
    if criterion == "missed" and state.partial is not None:
        return state.partial.distances["all"], words.MISSED_LATER

    def make() -> "tuple[DistanceMatrix, str]":
        return criteria.rank(live.shown(state), length, criterion, structure=structures(state)[0])

    so_far = state.partial.n_tokens if state.partial is not None else None
    return live.remembered(state, ("ranking", criterion, length, so_far), make)


def undecided(state: Studio) -> "set[Span] | None":
    """The places that cannot be told from the first one, where they were measured; None: their spread says."""
    if state.span is None or present_criterion(state) != "measured_kl":
        return None
    return costs.undecided(state, len(state.span))
