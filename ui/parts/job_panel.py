"""The running jobs on the page: bar, amount, speed, time left, Cancel. Each polls itself and wakes the page when it ends."""

import time
from dataclasses import dataclass, field

import streamlit as st

from replaceme_core import memory
from ui.look.figures import duration, gib, took
from ui.session.jobs import Job, runner
from ui.session.state import Slot, Studio
from ui.session.turns import LANES, Lane

_PERIOD = 0.5
_LATER = 1.5
"""seconds between two looks at a job that is under way for long: each of them costs the browser, which shares the processor with the job"""
_LONG = 10.0
"""seconds from which a job is"""
_ENOUGH_HELP = (
    "Ends the pass and keeps what it has read: distances, and the sums that fits are made of. It reads on until a fit could be checked, "
    "too: the text has a held-out part, and some of it must have been read."
)


@dataclass(eq=False)
class JobPanel(Slot):
    """What this run of the page shows of the session's jobs."""

    settled: set[int] = field(default_factory=set)
    """ids of the ended jobs that the page already shows"""
    drawn: set[int] = field(default_factory=set)
    """ids of the jobs that it has drawn"""
    seen: int = 0
    """pictures of the running long job that this run shows"""
    follows: bool = False
    """whether the page redraws itself for each of them"""


def has_active_job(state: Studio, lane: Lane | None = None) -> bool:
    """Whether this session has to wait with new work. Short work waits for short work only, and for what changes the model or the measurement."""
    return any(lane in (None, job.lane) or job.moves for job in runner().active(state.owner))


def _latest(state: Studio) -> list[Job]:
    """The newest job of every lane, the newest of all first."""
    found = [job for lane in LANES if (job := runner().latest(state.owner, lane)) is not None]
    return sorted(found, key=lambda job: -job.asked_at)


def settle(state: Studio) -> None:
    """Remember, at the start of a run, which ended jobs this run already shows, and that none is drawn yet."""
    long, panel = runner().latest(state.owner, "long"), state.slot(JobPanel)
    panel.settled = {id(job) for job in _latest(state) if not job.active}
    panel.seen = long.pictures if long is not None else 0
    panel.drawn, panel.follows = set(), False


def follow(state: Studio) -> None:
    """The page redraws itself whenever the running job has something new to show."""
    state.slot(JobPanel).follows = True


def show_failure(state: Studio) -> None:
    """The sentences of jobs that failed or were cancelled, on every page until they are put away or another job of their lane starts."""
    for job in _latest(state):
        if job.state in ("failed", "cancelled"):
            _failure(job)


def _failure(job: Job) -> None:
    said, button = st.columns([6, 1], vertical_alignment="center")
    if job.state == "failed":
        said.error(f"{job.title}: {job.error}", icon=":material/error:")
    else:
        said.info(f"{job.title}: {job.error}", icon=":material/cancel:")
    if button.button("Close", key=f"close_{id(job)}"):
        runner().forget(job)
        st.rerun()


def show_job(state: Studio, large: bool = False) -> None:
    """Draw this session's jobs once per run: large where a page waits for them, else small in the sidebar. Of those that have ended, the newest."""
    panel = state.slot(JobPanel)
    for place, job in enumerate(_latest(state)):
        if id(job) in panel.drawn or job.state in ("failed", "cancelled") or (place and not job.active):
            continue
        panel.drawn.add(id(job))
        with st.container():
            if not large:
                st.divider()
            period = period_of(job)
            st.fragment(_draw, run_every=period if id(job) not in panel.settled else None)(state, job, large, period)


def period_of(job: Job) -> float:
    """Seconds until the next look at it."""
    return _PERIOD if time.monotonic() - job.asked_at < _LONG else _LATER


def _draw(state: Studio, job: Job, large: bool, period: float) -> None:
    panel = state.slot(JobPanel)
    if job.active:
        _running(job)  # first: a press on Cancel that brought this run must not be lost to the next
        if period != period_of(job) or (panel.follows and job.lane == "long" and panel.seen != job.pictures):
            st.rerun()
        return
    if id(job) not in panel.settled:
        st.rerun()
    if job.state == "done" and not large:
        st.caption(f":material/check: {job.title} – done in {took(job.seconds)}")


def _running(job: Job) -> None:
    ahead = runner().ahead(job)
    st.markdown(f"**{job.title}**")
    if job.state == "waiting" and ahead:
        st.caption(f"Waiting for {ahead} other job{'s' if ahead != 1 else ''} on this server: {', '.join(runner().titles_ahead(job))}.")
    elif job.state == "waiting":
        st.caption("Starts after the present step of what is running.")
    elif job.paused:
        st.caption("Lets a short job go first.")
    st.progress(job.fraction, text=progress_line(job))
    with st.container(horizontal=True):
        if job.stoppable:
            _enough(job)
        if st.button("Cancel", key=f"cancel_{id(job)}", disabled=job.cancel.is_set(), icon=":material/close:"):
            job.cancel.set()
    if job.cancel.is_set():
        st.caption("Stopping after the present step …")
    elif job.enough.is_set():
        st.caption(
            "Ending after the present stretch …" if job.can_end else "Ending as soon as held-out text has been read, to check a fit on …"
        )


def show_load() -> None:
    """While something runs: memory of the graphics cards and of the machine, and the queue."""
    queue = runner().queue()
    if queue:
        st.fragment(_load, run_every=2 * max(map(period_of, queue)))()


def _load() -> None:
    queue = runner().queue()
    if not queue:
        return
    said = [f"{name}: {gib(total - free)} of {gib(total)}" for name, free, total in memory.cards()]
    said.append(f"Main memory: {gib(memory.of('cpu')[0])} free")
    if len(queue) > 1:
        said.append(f"Queue: {len(queue) - 1} job{'s' if len(queue) > 2 else ''} beside the one that runs")
    st.caption("  \n".join(said))


def _enough(job: Job) -> None:
    """The button that ends the work with what it has."""
    if st.button("Enough", key=f"enough_{id(job)}", disabled=job.enough.is_set(), icon=":material/done:", help=_ENOUGH_HELP):
        job.enough.set()


def progress_line(job: Job) -> str:
    """What a person reads under the bar, for example 'measuring: 4,096 of 16,384 tokens · 9,300 tokens/s · 2 s left'."""
    parts = [job.what or "starting"]
    if job.total:
        parts[0] += f": {job.done:,.0f} of {job.total:,.0f} {job.unit}"
    if job.rate and job.unit:
        parts.append(_pace(job.rate, job.unit))
    if job.seconds_left is not None:
        parts.append(f"{duration(job.seconds_left)} left")
    return " · ".join(parts)


def _pace(rate: float, unit: str) -> str:
    """'9,300 tokens/s', or '20 s each' of what is slow."""
    return f"{duration(1 / rate)} each" if rate < 0.5 else f"{rate:.1f} {unit}/s" if rate < 10 else f"{rate:,.0f} {unit}/s"


def is_running(state: Studio, title: str) -> bool:
    """Whether this session's newest job is one of this title and not over."""
    return any(job.title == title for job in runner().active(state.owner))
