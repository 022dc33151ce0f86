"""What a calibration pass needs, from the size of the model alone: positions of a batch, memory, and what it stores on the disk."""

from replaceme_core.artifacts import Span
from replaceme_core.measurement.activation_store import Layout
from replaceme_core.plans.plan import REFIT, MethodSection, PruningPlan
from replaceme_core.selection.spans import fixed_cut

MOST_POSITIONS = 4096
"""positions of one batch at most, padding included"""
_BATCH_BYTES = 2**29
_AHEAD = 2
"""blocks before the carrier at which a refit begins, where nothing else is said"""
_STATE_BYTES = 4
"""bytes of one value of a captured state, in float32"""


def positions(n_blocks: int, width: int) -> int:
    """Positions of one batch: so many that the states at all points take half a GiB at most."""
    return max(1, min(MOST_POSITIONS, _BATCH_BYTES // _token_bytes(n_blocks, width)))


def pass_bytes(n_blocks: int, width: int) -> int:
    """Memory beside the weights: the states of one batch."""
    return positions(n_blocks, width) * _token_bytes(n_blocks, width)


def _token_bytes(n_blocks: int, width: int) -> int:
    return _STATE_BYTES * width * (2 * n_blocks + 1)


def reads_moments(method: MethodSection | None) -> bool:
    """Whether a method is solved from the pass; a refit runs the model instead, and None is no method."""
    return method is not None and method.name not in REFIT


def spans_of(plan: PruningPlan, n_blocks: int) -> list[Span] | None:
    """What a plan's pass has to store (see `measure`): its own spans if it names any, all for a share, nothing if it reads no moments."""
    named = fixed_cut(plan.span)
    if named is not None:
        named.check(n_blocks)
    chooses = plan.span.share is not None and plan.span.criterion in ("missed", "measured_kl")
    if not reads_moments(plan.method) and not chooses:
        return []
    return None if named is None else list(named.spans)


def boundaries_of(plan: PruningPlan, n_blocks: int) -> range:
    """Where a fit that runs the model block by block reads the intact stream: from some blocks before the first carrier, everywhere for a share.

    Without them it reads the intact model once more, to the same weights, so that they are stored where there is room.
    """
    named = fixed_cut(plan.span)
    several = plan.span.count > 1 or bool(named and len(named.spans) > 1)
    if plan.method.name not in REFIT and not several:
        return range(0)
    ahead = max(_AHEAD, plan.method.lookahead or 0)
    return range(max(0, named.spans[0].carrier - ahead) if named else 0, n_blocks + 1)


def stored(plan: PruningPlan, n_blocks: int, width: int, dtype: str) -> Layout:
    """What the pass of a plan writes to the disk."""
    return Layout.of(n_blocks, width, dtype, plan.calibration.max_tokens, spans_of(plan, n_blocks), boundaries_of(plan, n_blocks))
