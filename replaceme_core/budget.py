"""What a memory budget lets the calibration pass keep: all spans, one length, or one span; and how large its batches are."""

from dataclasses import dataclass

from replaceme_core.artifacts import Span
from replaceme_core.moments import bytes_per_span
from replaceme_core.spans import length_of_share

GIB = 2**30
DEFAULT_BUDGET = 2 * GIB
MOST_POSITIONS = 4096
"""positions of one batch at most, padding included"""
_SAMPLE_TOKENS = 2048
_TRAIN_TOKENS = 8192
_LEAST_SAMPLE = 64
_DEFAULT_SHARE = 0.25
_STATE_BYTES = 12
"""bytes of one value of a captured state: fp64 for the sums beside the model's own"""


@dataclass(frozen=True)
class Keep:
    """What the pass keeps, and its size."""

    spans: list[Span]
    sample_tokens: int
    """held-out tokens that are stored"""
    train_tokens: int
    """train tokens that are stored"""
    positions: int
    """positions of one batch"""
    n_bytes: int
    """moments, token sample and the states of one batch together"""
    words: str


def plan_keep(n_blocks: int, width: int, budget_bytes: int = DEFAULT_BUDGET, spans: list[Span] | None = None) -> Keep:
    """All spans if their moments fit half the budget, else one length (a quarter of the depth), else its middle span; or those asked for.

    An eighth of the budget is for stored tokens, a quarter for the states of one batch.
    """
    states = width * (2 * n_blocks + 1)
    stored = budget_bytes // 8 // (4 * states)
    sample = max(_LEAST_SAMPLE, min(_SAMPLE_TOKENS, stored // 4))
    train = max(_LEAST_SAMPLE, min(_TRAIN_TOKENS, 3 * stored // 4))
    positions = max(1, min(MOST_POSITIONS, budget_bytes // 4 // (_STATE_BYTES * states)))
    chosen, words = _choose(n_blocks, width, budget_bytes, spans)
    n_bytes = len(chosen) * bytes_per_span(width) + 4 * (sample + train) * states + _STATE_BYTES * positions * states
    return Keep(chosen, sample, train, positions, n_bytes, words)


def _choose(n_blocks: int, width: int, budget: int, spans: list[Span] | None) -> tuple[list[Span], str]:
    size = bytes_per_span(width)
    if spans is not None:
        asked = [span.check(n_blocks) for span in spans]
        return asked, f"the {len(asked)} span(s) asked for ({_mib(size * len(asked))})"
    every = [Span(s, e) for s in range(1, n_blocks) for e in range(s + 1, n_blocks + 1)]
    length = length_of_share(n_blocks, _DEFAULT_SHARE) if n_blocks > 1 else 1
    one_length = [span for span in every if len(span) == length]
    for chosen, words in ((every, "all spans"), (one_length, f"all spans of {length} blocks")):
        if len(chosen) * size <= budget // 2:
            return chosen, f"{words}: {len(chosen)} ({_mib(size * len(chosen))} of {_mib(budget)})"
    middle = one_length[len(one_length) // 2 :][:1]
    return middle, f"one span of {length} blocks ({_mib(size)}); raise the budget ({_mib(budget)}) for more"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
