"""What places cost, measured: how far it has come, what it suggests, and what the two layers of the matrix show of it."""

import time
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ui.blocks import words
from ui.look.figures import blocks_count, duration, span_text
from ui.session import costs, live
from ui.session.jobs import Job
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.comparison.places import Choice

_PERIOD, REDRAWN = 1.0, 5.0
"""seconds between two looks at the job, and between two pictures of the whole page"""


def suggestion(state: Studio, layer: str) -> None:
    """What the suggested place was chosen by: measured cost, or the distance alone, and then what is still to come."""
    if state.span is None or state.partial is not None:
        return
    if not costs.can_measure(state):
        st.caption(f":material/straighten: {words.ONLY_DISTANCE}")
        return
    length, own = len(state.span), state.slot(costs.CostState)
    job = costs.begin(state, length)
    own.told = (costs.n_known(state), time.monotonic())
    found = costs.choice(state, length)
    if found is not None:
        if state.suggest_measured(found.best.span):
            st.rerun()
        _said(found, costs.kind_of(state, state.span) != costs.REMOVED)
    waits = costs.waits(state, length)
    st.fragment(_progress, run_every=_PERIOD if job is not None or waits else None)(
        state, job, costs.is_complete(state, length), layer, waits
    )


def _said(choice: "Choice", fitted: bool) -> None:
    how = words.CHOICE_FITTED if fitted else words.CHOICE_REMOVED
    with st.container(border=True, key="measured_choice"):
        by = "by distance, and measured" if choice.stands else "by measured cost"
        st.markdown(f":material/target: **Suggested, {by}**: {choice.sentence}")
        st.caption(f"{how} {words.CHOICE_HELP} {choice.best.quality.note}".rstrip())


def _progress(state: Studio, job: Job | None, is_complete: bool, layer: str, waits: bool) -> None:
    """How far the measuring has come; wakes the page for new figures where it shows them, at the end, and when its turn has come."""
    if not costs.can_measure(state) or state.span is None:
        return
    length, own = len(state.span), state.slot(costs.CostState)
    if waits:
        if not costs.waits(state, length):
            st.rerun()
        st.caption(f":material/hourglass_top: {'' if is_complete else f'{words.ONLY_DISTANCE} '}{words.COST_WAITS}")
        return
    if job is not None:
        shown, drawn = own.told
        more = layer in COST_LAYERS and costs.n_known(state) > shown and time.monotonic() - drawn > REDRAWN
        if more or not job.active or costs.is_complete(state, length) != is_complete:
            st.rerun()
        _running(state, job, is_complete)
        return
    _waiting(state, is_complete)


def _running(state: Studio, job: Job, is_complete: bool) -> None:
    if state.span is None:
        return
    left = f", {duration(job.seconds_left)} left" if job.seconds_left is not None else ""
    count = f"{job.done:,.0f} of {job.total:,.0f} figures{left}" if job.total else "starting"
    first = "" if is_complete else f"{words.ONLY_DISTANCE} "
    with st.container(horizontal=True, vertical_alignment="center", key="measuring"):
        st.caption(f":material/speed: {first}What places cost is being measured: {count}.", width="stretch")
        if st.button("Stop", key=f"stop_{id(job)}", icon=":material/stop:", disabled=job.enough.is_set(), help=words.STOP_HELP):
            costs.stop(state)
            st.rerun()


def _waiting(state: Studio, is_complete: bool) -> None:
    """Stopped, failed, too long to begin by itself, or behind something that somebody asked for."""
    if state.span is None:
        return
    length = len(state.span)
    left = sum(1 for _ in costs.pending(state, length))
    if not left:
        return
    failed, first = costs.failure(state), "" if is_complete else f"{words.ONLY_DISTANCE} "
    said = f"{first}Measuring {'the rest' if is_complete else f'what the places of {blocks_count(length)} cost'} takes about "
    said += f"{duration(costs.seconds(state, length))} in the background."
    with st.container(horizontal=True, vertical_alignment="center", key="measuring"):
        st.caption(f":material/straighten: {f'Measuring what places cost failed: {failed} ' if failed else ''}{said}", width="stretch")
        if st.button("Measure", key=f"measure_costs_{state.model}", icon=":material/speed:", help=words.COST_HELP):
            costs.go_on(state)
            st.rerun()


def values(state: Studio, kind: str | None = None) -> np.ndarray | None:
    """[start, end] KL, NaN where it is not measured, with the closed-form T (kind None) or removed; None where nothing can be measured."""
    if not costs.can_measure(state) or state.span is None:
        return None
    n_blocks = live.measured(state).n_blocks
    found = costs.matrix(state, kind or costs.fitted_kind(state))
    return np.full((n_blocks + 1, n_blocks + 1), np.nan) if found is None else found.values.numpy()


def texts(state: Studio, kind: str | None, shape: tuple[int, ...]) -> np.ndarray:
    """[start, end] what the tooltip says: KL, its interval, and on how many tokens."""
    said = np.full(shape, "not measured", dtype=object)
    if not costs.can_measure(state) or state.span is None:
        return said
    known, kind = costs.costs(state), kind or costs.fitted_kind(state)
    from replaceme_core.comparison.intervals import bracketed

    for tail in known.of(kind):
        quality = tail.quality
        figures = bracketed(quality.kl, quality.kl_low, quality.kl_high, ".3f")
        said[tail.span.start, tail.span.end] = f"{figures} on {quality.n_tokens:,} held-out tokens"
    for (span, own), why in list(known.failed.items()):
        if own == kind:
            said[span.start, span.end] = f"failed: {why}"
    return said


COST_LAYERS = ("cost_fitted", "cost_removed")


def caption(state: Studio) -> str:
    """What the picture of a layer of measured cost is of."""
    if state.span is None:
        return ""
    n = sum(1 for _ in costs.pending(state, len(state.span)))
    return words.COST_CELLS if not n else f"{words.COST_CELLS} {n:,} figures are still to come for {span_text(state.span)} and its like."
