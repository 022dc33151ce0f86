"""What does test text say? Perplexity and KL with intervals, speed and memory as measured, every system beside the others."""

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from ui.compare import words
from ui.compare.figures import FIGURES, Figure, Measured
from ui.compare.generation import present
from ui.compare.jobs import MEASURING, measure_quality
from ui.compare.systems import Systems
from ui.look.layout import split
from ui.look.palette import palette
from ui.parts.chart import show
from ui.parts.intervals import interval_chart
from ui.parts.job_panel import has_active_job, is_running, show_job
from ui.parts.measure import ask_tokens
from ui.session.results import Results, quality_key
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.comparison.compare import Divergence, Speed

_TEXTS = {"calibration": "test part of the calibration set", "demo": "the demo's test documents"}


def heldout(state: Studio, found: Systems) -> None:
    """The settings, the job, and everything that was measured under these settings."""
    st.markdown("### What does test text say?")
    st.caption(words.HELDOUT.format(reference=found.reference))
    source, tokens, button = split("heldout", [3, 2, 2], "bottom")
    foreign = _foreign(state)  # the demo's documents mean nothing to another model
    offered = ["calibration"] if foreign else list(_TEXTS)
    texts = source.selectbox(
        "Test text", offered, format_func=_TEXTS.get, key=f"held_source_{foreign}", persist_state="session", index=len(offered) - 1
    )
    n_tokens = ask_tokens(tokens, "held_tokens", 2048, "Tokens")
    base = found.handles[found.reference]
    keys = {name: quality_key(base, handle, texts, n_tokens, state.calibration) for name, handle in found.handles.items()}
    found_rows = state.slot(Results).divergences
    done = found_rows.keys() >= set(keys.values())
    if button.button(
        "Measure on test text",
        type="primary" if present(state) and not done else "secondary",
        disabled=has_active_job(state) or done,
        width="stretch",
        help="Everything for these settings is measured." if done else None,
    ):
        measure_quality(state, found.handles, texts, n_tokens, found.reference)
        st.rerun()
    if is_running(state, MEASURING):
        show_job(state, large=True)
    shown = {name: found_rows[key] for name, key in keys.items() if key in found_rows}
    if shown:
        _figures(state, found, shown)


def _foreign(state: Studio) -> bool:
    resident = state.resident
    return resident is None or not resident.is_demo


def _figures(state: Studio, found: Systems, shown: "dict[str, Divergence]") -> None:
    """Charts, two beside each other; the table of all figures; and what they were measured on."""
    timed = state.slot(Results).timed_together(handle.fingerprint for handle in found.handles.values())
    systems = {name: Measured(found.handles[name], row, timed.get(found.handles[name].fingerprint)) for name, row in shown.items()}
    drawn = [(figure, rows) for figure in FIGURES if figure.chart and (rows := _rows(found, figure, systems)) is not None]
    for at in range(0, len(drawn), 2):
        for (figure, rows), place in zip(drawn[at : at + 2], split(f"figures_{at}", [1, 1]), strict=False):
            _chart(found, figure, rows, systems, place)
    table = [
        {"figure": figure.name} | {_called(found, name): figure.said(system, name == found.reference) for name, system in systems.items()}
        for figure in FIGURES
    ]
    st.dataframe(table, hide_index=True, height=38 + 35 * len(table), column_config={"figure": st.column_config.TextColumn(pinned=True)})
    first = next(iter(shown.values()))
    said = words.RATIO_HELP.format(reference=found.reference)
    st.caption(f"On {first.measured_on}, which no fit and no choice has read. {first.note + ' ' if first.note else ''}{said}")
    speed = next((system.speed for system in systems.values() if system.speed), None)
    if speed is not None:
        st.caption(_speed_note(speed, next(iter(found.handles.values())).dtype))


def _called(found: Systems, name: str) -> str:
    return f"{name} (reference)" if name == found.reference else name


def _rows(found: Systems, figure: Figure, systems: dict[str, Measured]) -> pd.DataFrame | None:
    """system, value, low, high of those that have the figure."""
    known = {name: figure.of(system, name == found.reference) for name, system in systems.items()}
    rows = [
        {"system": name, "value": told[0], **dict(zip(("low", "high"), told[1] or (None, None), strict=True))}
        for name, told in known.items()
        if told is not None
    ]
    return pd.DataFrame(rows) if rows else None


def _chart(found: Systems, figure: Figure, rows: pd.DataFrame, systems: dict[str, Measured], place: Any) -> None:
    title = figure.chart.format(reference=found.reference)
    told = "; ".join(f"{name} {figure.said(systems[name], name == found.reference)}" for name in rows["system"])
    form = figure.form if isinstance(figure.form, str) else ".3g"
    show(interval_chart(rows, found.names, title, palette(), form), place, alt=f"{title}: {told}")


def _speed_note(speed: "Speed", dtype: str) -> str:
    return (
        f"Speed, measured here: median of {speed.repeats} runs, the systems in turns (least–greatest), one text at a time: prefill of "
        f"{speed.prompt_tokens} random tokens, then {speed.new_tokens} generated. On {speed.device}, {dtype}. Weights and attention cache "
        f"(after {speed.prompt_tokens + speed.new_tokens} tokens) are counted from the tensors in memory."
    )
