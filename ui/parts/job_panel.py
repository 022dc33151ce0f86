"""The running job on the page: bar, amount, speed, time left, Cancel. It polls itself and wakes the page when the job ends."""

import sys
from dataclasses import dataclass

import streamlit as st

from ui.look.figures import duration, gib
from ui.session.hub import available_memory
from ui.session.jobs import Job, runner
from ui.session.state import Slot, Studio

_PERIOD = 0.5
_ENOUGH_HELP = (
    "Ends the pass and keeps what it has read: distances, and the sums that fits are made of. It reads on until a fit could be checked, "
    "too: the text has a held-out part, and some of it must have been read."
)


@dataclass(eq=False)
class JobPanel(Slot):
    """What this run of the page shows of the session's job."""

    settled: int = 0
    """id of the ended job that the page already shows"""
    drawn: bool = False
    seen: int = 0
    """pictures of the running job that this run shows"""
    follows: bool = False
    """whether the page redraws itself for each of them"""


def has_active_job(state: Studio) -> bool:
    job = runner().latest(state.owner)
    return job is not None and job.active


def settle(state: Studio) -> None:
    """Remember, at the start of a run, which ended job this run already shows, and that none is drawn yet."""
    job = runner().latest(state.owner)
    panel = state.slot(JobPanel)
    panel.settled = id(job) if job is not None and not job.active else 0
    panel.seen = job.pictures if job is not None else 0
    panel.drawn = panel.follows = False


def follow(state: Studio) -> None:
    """The page redraws itself whenever the running job has something new to show."""
    state.slot(JobPanel).follows = True


def show_failure(state: Studio) -> None:
    """The sentence of a job that failed or was cancelled, on every page until it is put away or another job starts."""
    job = runner().latest(state.owner)
    if job is None or job.state not in ("failed", "cancelled"):
        return
    said, button = st.columns([6, 1], vertical_alignment="center")
    if job.state == "failed":
        said.error(f"{job.title}: {job.error}", icon=":material/error:")
    else:
        said.info(f"{job.title}: {job.error}", icon=":material/cancel:")
    if button.button("Close", key=f"close_{id(job)}"):
        runner().forget(job)
        st.rerun()


def show_job(state: Studio, large: bool = False) -> None:
    """Draw this session's newest job once per run: large where a page waits for it, else small in the sidebar."""
    job, panel = runner().latest(state.owner), state.slot(JobPanel)
    if job is None or panel.drawn or job.state in ("failed", "cancelled"):
        return
    panel.drawn = True
    if not large:
        st.divider()
    every = _PERIOD if id(job) != panel.settled else None
    st.fragment(_draw, run_every=every)(state, job, large)


def _draw(state: Studio, job: Job, large: bool) -> None:
    panel = state.slot(JobPanel)
    if job.active:
        if panel.follows and panel.seen != job.pictures:
            st.rerun()
        _running(job)
        return
    if panel.settled != id(job):
        st.rerun()
    if job.state == "done" and not large:
        st.caption(f":material/check: {job.title} – done in {job.seconds:.1f} s")


def _running(job: Job) -> None:
    ahead = runner().ahead(job)
    st.markdown(f"**{job.title}**")
    if job.state == "waiting" and ahead:
        st.caption(f"Waiting for {ahead} other job{'s' if ahead != 1 else ''} on this server: {', '.join(runner().titles_ahead(job))}.")
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
        st.fragment(_load, run_every=2 * _PERIOD)()


def _load() -> None:
    queue = runner().queue()
    if not queue:
        return
    said = [f"{name}: {gib(used)} of {gib(total)}" for name, used, total in device_memory()]
    said.append(f"Main memory: {gib(available_memory())} free")
    if len(queue) > 1:
        said.append(f"Queue: {len(queue) - 1} job{'s' if len(queue) > 2 else ''} behind the one that runs")
    st.caption("  \n".join(said))


def device_memory() -> list[tuple[str, int, int]]:
    """(name, bytes used, bytes in all) of every graphics card; none before torch is loaded by something else."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_available():
        return []
    found = []
    for number in range(cuda.device_count()):
        free, total = cuda.mem_get_info(number)
        found.append((str(cuda.get_device_name(number)), total - free, total))
    return found


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
    job = runner().latest(state.owner)
    return job is not None and job.active and job.title == title
