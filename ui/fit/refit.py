"""Refits on the Fit page: their settings, what they need, and what each block gained."""

from typing import TYPE_CHECKING, Any

import altair as alt
import pandas as pd
import streamlit as st

from ui.fit import words
from ui.fit.fields import AUTOMATIC, STEPS
from ui.look.chart_style import styled
from ui.look.figures import number
from ui.look.palette import Palette, palette
from ui.look.ruler import solved_in
from ui.parts.chart import show
from ui.session import live, methods
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import LinearTransform, RefitStep

_AHEAD = 4
"""blocks of lookahead that are offered; a plan may say more"""
_PARTS = {"neurons": "N", "attention output": "A", "writer": "W", "all weights, by gradient": "G"}


def solved(state: Studio, fitted: "LinearTransform | None" = None) -> tuple[int, ...] | None:
    """The blocks that the chosen refit is going to give new weights, or that `fitted` has given; None where the carrier gets a T."""
    if fitted is not None:
        return solved_in(fitted)
    if state.cut is None or state.shown is None or not methods.is_refit(state.method):
        return None
    from replaceme_core.refit.walk import reach

    return reach(state.cut, state.method, state.shown.n_blocks)


def to_beat(state: Studio) -> None:
    """Removal and the T that follows the slider, on the measure that the refit's report has too; nothing where they would keep the page waiting."""
    span, plain = state.span, methods.closed_form(state)
    if span is None or state.more or not live.can_fit(state, span) or live.expected_seconds(state, span, plain) > live.LONG:
        return
    report = live.transform(state, span, plain).report
    removed, one = st.columns(2)
    removed.metric("Held-out cosine, removed", f"{report.removal_cosine:.4f}")
    one.metric(
        "with one matrix T", f"{report.heldout_cosine:.4f}", delta=f"{report.heldout_cosine - report.removal_cosine:+.4f} to removal"
    )
    st.caption(words.TO_BEAT)


def ask(state: Studio) -> dict[str, Any]:
    """How far the refit goes, as a method section in plain data."""
    from replaceme_core.plans.defaults import RECOMMENDED
    from replaceme_core.solvers import METHODS

    names = methods.refits(state)
    name = st.selectbox(
        "How far",
        names,
        index=names.index(RECOMMENDED) if RECOMMENDED in names else 0,
        format_func=lambda name: " · ".join(filter(None, (METHODS[name].title, METHODS[name].note))),
        key="fit_refit",
        persist_state="session",
    )
    st.caption(METHODS[name].one_line)
    chosen: dict[str, Any] = {"name": name}
    left, right = st.columns(2)
    if "lookahead" in METHODS[name].takes and state.span is not None:
        ahead = left.selectbox(
            "Blocks of lookahead",
            [AUTOMATIC, *_lookaheads(state.span.carrier)],
            key="fit_lookahead",
            persist_state="session",
            help=words.LOOKAHEAD_HELP,
        )
        chosen |= {} if ahead == AUTOMATIC else {"lookahead": int(ahead)}
    if name == "deep_refit":
        steps = right.number_input("Steps on each block", 1, None, STEPS, 5, key="fit_refit_steps", persist_state="session")
        chosen["max_iterations"] = int(steps)
    chosen["attention"] = st.toggle(
        "Solve the attention's output too", value=True, key="fit_attention", persist_state="session", help=words.ATTENTION_HELP
    )
    _need(state, name)
    return chosen


def _lookaheads(carrier: int) -> list[int]:
    """The usual ones, and that of the plan, as far as there are blocks before the carrier."""
    held = st.session_state.get("fit_lookahead", AUTOMATIC)
    return sorted(n for n in {*range(_AHEAD + 1), *([] if held == AUTOMATIC else [held])} if n <= carrier)


def _need(state: Studio, method: str) -> None:
    from replaceme_core import memory, refit
    from replaceme_core.plans.defaults import tokens_for

    if state.resident is not None and state.calibration is not None:
        handle = state.resident.handle
        n_removed, n_spans = (len(state.cut), len(state.cut.spans)) if state.cut else (0, 1)
        needed = refit.needed_bytes(method, handle, state.calibration.n_tokens, handle.n_blocks - n_removed, n_spans)
        st.caption(f"Runs the model on the calibration set again and needs about {memory.size(needed)} beside it.")
        wanted = tokens_for(handle.widest, state.calibration.n_heldout_tokens / state.calibration.n_tokens)
        if state.calibration.n_tokens < wanted:
            st.caption(words.FEW_TOKENS.format(n=state.calibration.n_tokens, wanted=wanted))


def steps(fitted: "LinearTransform") -> None:
    """Error of every block's output before and after it was solved, as a picture and a table."""
    if not fitted.steps:
        return
    with st.container(key="stage_steps"), st.expander("What each block gained", expanded=True):
        show(step_chart(list(fitted.steps), palette()), alt="Error of every block before and after; the table holds the same figures.")
        st.caption(words.STEPS_CAPTION)
        if len(fitted.lookaheads) > 1:
            errors = fitted.lookaheads
            figures = ", ".join(f"with {blocks}: {error:.2%}" for blocks, error in errors.items())
            st.caption(
                f"Blocks solved before the carrier: {min(errors, key=errors.__getitem__)}. Held-out error at the end of the span, {figures}."
            )
        for remark in fitted.report.remarks:
            st.caption(remark)
        rows = [
            {
                "block": step.block,
                "part": _part(step),
                "error before": f"{step.before:.2%}",
                "error after": f"{step.after:.2%}",
                "ridge": "" if step.ridge is None else number(step.ridge),
            }
            for step in fitted.steps
        ]
        st.dataframe(rows, hide_index=True)


def _part(step: "RefitStep") -> str:
    if step.own_neurons is not None:
        return f"neurons, {step.own_neurons:,} its own"
    return step.part.replace("writer", "output projection")


def step_chart(taken: list["RefitStep"], colours: Palette) -> alt.LayerChart:
    """One line per block from the error before its first change to that after its last."""
    blocks = sorted({step.block for step in taken})
    rows = pd.DataFrame(
        [
            {
                "block": f"block {block}",
                "before": next(step.before for step in taken if step.block == block),
                "after": [step.after for step in taken if step.block == block][-1],
                "parts": " ".join(_PARTS.get(step.part, step.part) for step in taken if step.block == block),
            }
            for block in blocks
        ]
    )
    order = list(rows["block"])
    y = alt.Y("block:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False))
    tips = [
        alt.Tooltip("block:N"),
        alt.Tooltip("before:Q", format=".2%"),
        alt.Tooltip("after:Q", format=".2%"),
        alt.Tooltip("parts:N", title="solved"),
    ]
    base = alt.Chart(rows).encode(y=y, tooltip=tips)
    title = "held-out relative error of the residual stream after the block"
    x = alt.X("before:Q", title=title, axis=alt.Axis(format="%"), scale=alt.Scale(domainMin=0))
    line = base.mark_rule(color=colours.line, strokeWidth=4).encode(x=x, x2=alt.X2("after:Q"))
    before = base.mark_point(size=90, filled=False, strokeWidth=2, color=colours.cut, opacity=1).encode(x=x)
    after = base.mark_point(size=90, filled=True, color=colours.pruned, opacity=1).encode(x=alt.X("after:Q"))
    return styled(alt.layer(line, before, after), colours, height=30 * len(blocks) + 80)
