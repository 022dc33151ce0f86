"""What a cut saves: depth, parameters, memory, and the time per token, which a job measures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ui.look.figures import amount, gib
from ui.session.jobs import Job
from ui.session.results import Results
from ui.session.state import Studio
from ui.session.variants import cut_of
from ui.session.work import require_resident, submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut


@dataclass(frozen=True)
class Savings:
    """In the words that the pages show."""

    depth: float
    """share of the blocks"""
    n_parameters: int
    parameters: str
    parameters_help: str
    n_bytes: float
    memory: str
    memory_help: str


@dataclass(frozen=True)
class TimePerToken:
    """Milliseconds of greedy decoding, one sequence; medians."""

    before: float
    after: float
    spread: str
    """the least and the greatest of both, and on what"""

    @property
    def share(self) -> float:
        return self.after / self.before - 1


def cut(state: Studio, chosen: "Cut | None") -> Savings | None:
    """What the blocks of a cut weigh in the loaded model."""
    resident = state.resident
    if resident is None or chosen is None:
        return None
    handle = resident.handle
    saved = sum(resident.block_parameters[block] for block in chosen.blocks)
    whole = handle.n_bytes  # asked once: it goes through all tensors
    n_bytes = whole * saved / handle.n_parameters
    return Savings(
        depth=len(chosen) / handle.n_blocks,
        n_parameters=saved,
        parameters=amount(saved),
        parameters_help=f"{saved / handle.n_parameters:.1%} of {amount(handle.n_parameters)}",
        n_bytes=n_bytes,
        memory=gib(n_bytes),
        memory_help=f"of {gib(whole)} in {handle.dtype}",
    )


def time_per_token(state: Studio, chosen: "Cut | None") -> TimePerToken | None:
    """Of the original and of the cut; None until both were timed in one run."""
    resident = state.resident
    made = resident.cuts.get(chosen) if resident is not None and chosen is not None else None
    if resident is None or made is None:
        return None
    pair = (resident.handle.fingerprint, made.handle.fingerprint)
    speeds = state.slot(Results).timed_together(pair)
    if len(speeds) < len(pair):
        return None
    before, after = (speeds[fingerprint] for fingerprint in pair)
    old, new = ("–".join(f"{1000 / rate:.1f}" for rate in reversed(speed.decode_range)) for speed in (before, after))
    spread = f"Medians of {after.repeats} runs, in turns (from {old} to {new} ms); one sequence on {after.device}."
    return TimePerToken(1000 / before.decode_tokens_per_s, 1000 / after.decode_tokens_per_s, spread)


def time_cuts(state: Studio, cuts: "list[Cut]") -> Job:
    """Time per token of the original and of the model without the blocks of each cut (a transform adds nothing to it)."""
    resident = require_resident(state)

    def work(job: Job) -> None:
        from replaceme_core.comparison import compare

        handles = [resident.handle, *(cut_of(state, resident, cut, job).handle for cut in cuts)]
        speeds = compare.speeds(handles, progress=job)
        timings = state.slot(Results).timings
        timings.append({handle.fingerprint: speed for handle, speed in zip(handles, speeds, strict=True)})

    return submit(state, "Timing", work, str(cuts))
