"""What a memory budget lets the calibration pass keep: all spans, one length, or one span; and how large its batches are.

Half the budget is for moments, an eighth for stored tokens, a quarter for the states of one batch. A stored token keeps the points that
the kept spans read, three for one span, so that fewer spans leave room for more tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from replaceme_core.artifacts import Span, Weighting
from replaceme_core.errors import PlanError
from replaceme_core.measurement.moments import WEIGHTINGS, bytes_of
from replaceme_core.plans.plan import GRADIENT, REFIT, KeepChoice, MethodSection, PruningPlan
from replaceme_core.selection.spans import fixed, length_of_share

GIB = 2**30
DEFAULT_BUDGET = 2 * GIB
MOST_POSITIONS = 4096
"""positions of one batch at most, padding included"""
_SAMPLE_TOKENS = 2048
_TRAIN_TOKENS = 8192
_LEAST_SAMPLE = 64
_DEFAULT_SHARE = 0.25
_STATE_BYTES = 4
"""bytes of one value of a captured or stored state, in float32"""


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

    @property
    def boundaries(self) -> list[int]:
        """Where the stored tokens keep the residual stream."""
        return _boundaries(self.spans)

    @property
    def carriers(self) -> list[int]:
        """Blocks of which the stored tokens keep M."""
        return _carriers(self.spans)


@dataclass(frozen=True)
class KeepPlan:
    """One explicit answer to what the pass keeps."""

    keep: KeepChoice
    """'all', or a length in blocks"""
    n_spans: int
    n_bytes: int
    """bytes of the moments"""

    @property
    def budget_bytes(self) -> int:
        """The least budget that allows it."""
        return 2 * self.n_bytes

    def fits(self, budget_bytes: int) -> bool:
        return self.budget_bytes <= budget_bytes


def choices(n_blocks: int, width: int, weightings: Sequence[Weighting] = WEIGHTINGS) -> list[KeepPlan]:
    """'all', then every length by ascending blocks. A model of one block has nothing to keep, and no choices."""
    keeps: list[KeepChoice] = ["all", *range(1, n_blocks)] if n_blocks > 1 else []
    found = ((keep, _spans_of(n_blocks, keep)) for keep in keeps)
    return [KeepPlan(keep, len(spans), bytes_of(spans, width, weightings)) for keep, spans in found]


def plan_keep(
    n_blocks: int,
    width: int,
    budget_bytes: int = DEFAULT_BUDGET,
    spans: list[Span] | None = None,
    keep: KeepChoice = "auto",
    weightings: Sequence[Weighting] = WEIGHTINGS,
) -> Keep:
    """The `spans` asked for; else what `keep` says: all spans, or one length in blocks.

    'auto' is all spans if their moments fit half the budget, else one length (a quarter of the depth), else its middle span.
    Raises `PlanError` for a length that does not fit the model and for a choice that breaks the budget; spans that are named
    are kept whatever they take.
    """
    states = width * (2 * n_blocks + 1)
    positions = max(1, min(MOST_POSITIONS, budget_bytes // 4 // (_STATE_BYTES * states)))
    if spans is not None:
        chosen = [span.check(n_blocks) for span in spans]
        words = f"the {len(chosen)} span(s) asked for ({_mib(bytes_of(chosen, width, weightings))})"
    elif keep == "auto":
        chosen, words = _automatic(n_blocks, width, budget_bytes, weightings)
    else:
        chosen, words = _explicit(n_blocks, width, budget_bytes, keep, weightings)
    token = _STATE_BYTES * width * (len(_boundaries(chosen)) + len(_carriers(chosen)))
    stored = budget_bytes // 8 // token if token else 0
    least = _LEAST_SAMPLE if token else 0
    sample = max(least, min(_SAMPLE_TOKENS, stored // 4))
    train = max(least, min(_TRAIN_TOKENS, stored - stored // 4))
    n_bytes = bytes_of(chosen, width, weightings) + (sample + train) * token + _STATE_BYTES * positions * states
    return Keep(chosen, sample, train, positions, n_bytes, words)


def weightings_of(method: MethodSection | None) -> Sequence[Weighting]:
    """The token weights that a method reads, so that a pass for this method need not sum the others; a refit and None read none."""
    if method is None or method.name in REFIT:
        return ()
    if method.name in ("drop", "least_squares"):
        return ("uniform",)
    return WEIGHTINGS if method.name in GRADIENT and method.objective == "mse" else ("end_norm",)


def weightings_for(plan: PruningPlan) -> Sequence[Weighting]:
    """The token weights that a run reads: those of its method, and those by which 'missed' chooses the span of a share."""
    read = weightings_of(plan.method)
    chooses = plan.span.share is not None and plan.span.criterion == "missed"
    return WEIGHTINGS if chooses and "end_norm" not in read else read


def asked_by(
    plan: PruningPlan, n_blocks: int, width: int, weightings: Sequence[Weighting] = WEIGHTINGS
) -> tuple[list[Span] | None, KeepChoice]:
    """`spans` and `keep` for a plan: none if it reads no moments; its own span if it names one; for a share under 'auto', the length of
    that share.

    Where that length does not fit the budget no span is kept: the distances come first, and the span that they name in a
    second pass. Raises `PlanError` where `calibration.keep` names another length than the share.
    """
    span, keep = fixed(plan.span), plan.calibration.keep
    if span is not None:
        span.check(n_blocks)
    if not weightings:
        return [], "auto"
    if span is not None:
        return [span], "auto"
    length = length_of_share(n_blocks, plan.span.share or 0)
    if n_blocks == 1 or keep in ("all", length):
        return None, keep
    if keep != "auto":
        raise PlanError(
            f"calibration.keep is {keep}, but span.share {plan.span.share:g} of {n_blocks} blocks asks for a span of {length}; "
            f"set keep to {length}, 'all' or 'auto', or change the share."
        )
    choice = next(choice for choice in choices(n_blocks, width, weightings) if choice.keep == length)
    return (None, length) if choice.fits(plan.calibration.budget_bytes) else ([], "auto")


def _boundaries(spans: list[Span]) -> list[int]:
    """Both ends of every span."""
    return sorted({boundary for span in spans for boundary in (span.start, span.end)})


def _carriers(spans: list[Span]) -> list[int]:
    return sorted({span.carrier for span in spans})


def _spans_of(n_blocks: int, keep: KeepChoice) -> list[Span]:
    """Every span, or every span of one length."""
    lengths = range(1, n_blocks) if keep == "all" else (keep,)
    return sorted(Span(start, start + length) for length in map(int, lengths) for start in range(1, n_blocks - length + 1))


def _automatic(n_blocks: int, width: int, budget: int, weightings: Sequence[Weighting]) -> tuple[list[Span], str]:
    length = length_of_share(n_blocks, _DEFAULT_SHARE) if n_blocks > 1 else 1
    fitting = [c.keep for c in choices(n_blocks, width, weightings) if c.keep in ("all", length) and c.fits(budget)]
    if fitting or n_blocks == 1:
        return _explicit(n_blocks, width, budget, fitting[0] if fitting else "all", weightings)
    one_length = _spans_of(n_blocks, length)
    middle = one_length[len(one_length) // 2 :][:1]
    size = _mib(bytes_of(middle, width, weightings))
    return middle, f"one span of {length} blocks ({size}); raise the budget ({_mib(budget)}) for more"


def _explicit(n_blocks: int, width: int, budget: int, keep: KeepChoice, weightings: Sequence[Weighting]) -> tuple[list[Span], str]:
    spans = _spans_of(n_blocks, keep)
    if not spans and keep != "all":
        lengths = f"a length from 1 to {n_blocks - 1}, 'all' or 'auto'" if n_blocks > 1 else "'auto'"
        raise PlanError(f"A model of {n_blocks} block(s) has no span of {keep} to keep; set keep (calibration.keep) to {lengths}.")
    words = "all spans" if keep == "all" else f"all spans of {keep} blocks"
    size = bytes_of(spans, width, weightings)
    if 2 * size > budget:
        raise PlanError(
            f"To keep {words} ({len(spans)}) takes {size:,} bytes ({_mib(size)}), more than half of the memory budget of {budget:,} bytes "
            f"({_mib(budget)}); the other half is for tokens and batches. Set the budget (calibration.budget_gib) to "
            f"{_ceil(2 * size / GIB)} or more, or keep (calibration.keep) one length, or 'auto'."
        )
    return spans, f"{words}: {len(spans)} ({_mib(size)} of {_mib(budget)})"


def _ceil(gib: float) -> str:
    """Rounded up to hundredths, so that the figure that is named is enough."""
    return f"{-(-gib * 100 // 1) / 100:g}"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"
