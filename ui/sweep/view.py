"""What the Sweep page shows: the running queue, quality against depth or time, the table twin, and what the cuts really gain."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from ui.look.layout import split
from ui.look.palette import palette
from ui.parts.chart import clicked, show
from ui.parts.job_panel import has_active_job, is_running, show_job
from ui.parts.links import link
from ui.parts.rows import chosen_row
from ui.session.state import Studio
from ui.session.variants import free_name, put_last, variant_name
from ui.sweep import words
from ui.sweep.charts import gain_chart, gain_rows, method_text, pareto_chart, point_rows, removed_text
from ui.sweep.jobs import SWEEP, make_current
from ui.sweep.state import SweepState

if TYPE_CHECKING:
    from replaceme_core.studies.sweep.points import Against, PointResult, Quality
    from replaceme_core.studies.sweep.store import SweepFolder

_PERIOD = 2.0
_QUALITIES = {"kl": "KL", "kept": "relative accuracy"}
_AGAINST = {"depth": "depth removed", "ms": "ms per token"}


def found_of(state: Studio) -> "SweepFolder | None":
    """The sweep of the chosen folder, if it is one of the loaded model."""
    from replaceme_core.studies.sweep.store import Store

    found = Store(state.slot(SweepState).folder).found() if state.slot(SweepState).folder else None
    return found if found is not None and found.index.model_fingerprint == state.model else None


def progress(state: Studio) -> None:
    """The job, and what is finished so far, which grows under it."""
    if not is_running(state, SWEEP):
        if has_active_job(state):
            show_job(state, large=True)
        return
    show_job(state, large=True)
    st.fragment(_growing, run_every=_PERIOD)(state)


def _growing(state: Studio) -> None:
    found = found_of(state)
    if found is None or not found.made:
        st.caption("The first points are on their way; each appears here as soon as it is finished.")
        return
    st.caption(
        f"{len(found.results)} of {len(found.index.points)} points are finished. Click them once the sweep has ended or was stopped."
    )
    rows = point_rows(found.made, "kl", "depth")
    show(pareto_chart(rows, "kl", "depth", 0.0, palette()), alt="KL against blocks removed, of the points that are finished.")


def results(state: Studio) -> None:
    """Picture, table, gains and failures of the chosen folder."""
    found = None if is_running(state, SWEEP) else found_of(state)
    if found is None or not found.results:
        return
    if found.unfinished:
        st.info(
            f"{found.unfinished} of {len(found.index.points)} points are not done yet: resume the sweep below.",
            icon=":material/pause_circle:",
        )
    if found.made:
        quality, against = _switches(found.made)
        picked = _picture(state, found.made, quality, against)
        _current(state, found)
        _take(state, found, picked)
        _gains(found)
    failed = [result for result in found.results if result.error]
    if failed:
        with st.expander(f"{len(failed)} point(s) could not be made", icon=":material/error:"):
            for result in failed:
                st.markdown(f"- **{method_text(result)}, {removed_text(result)}**: {result.error}")
    for note in found.index.notes:
        st.caption(f":material/info: {note}")


def _switches(made: "list[PointResult]") -> "tuple[Quality, Against]":
    """What is drawn against what, of what was measured."""
    qualities = [name for name in _QUALITIES if name == "kl" or any(result.kept for result in made)]
    sides = [name for name in _AGAINST if name == "depth" or any(result.speed for result in made)]
    left, right = split("switches", [1, 1])
    quality = left.segmented_control(
        "Quality", qualities, default="kl", required=True, format_func=_QUALITIES.get, key="sweep_quality", persist_state="session"
    )
    against = right.segmented_control(
        "Against", sides, default="depth", required=True, format_func=_AGAINST.get, key="sweep_against", persist_state="session"
    )
    return (quality if quality in qualities else "kl"), (against if against in sides else "depth")


def _picture(state: Studio, made: "list[PointResult]", quality: "Quality", against: "Against") -> str | None:
    """Chart and table; the key of the point that was picked on either."""
    from replaceme_core.studies.sweep.points import original_ms

    rows = point_rows(made, quality, against, state.slot(SweepState).current)
    start = original_ms(made) if against == "ms" else 0.0
    st.markdown(f"**{words.CLICK}**")
    chart, table = st.tabs(["Chart", "Table"])
    with chart:
        event = show(
            pareto_chart(rows, quality, against, start, palette()),
            key=f"sweep_points_{state.slot(SweepState).nonce}_{quality}_{against}",
            on_select="rerun",
            selection_mode="point",
            alt="Quality against depth or time; the table holds the same figures.",
        )
        first = made[0]
        n = f"On {first.quality.measured_on}" if quality == "kl" else f"n = {first.kept.n_items} questions" if first.kept else ""
        said = [words.FRONT_KL if quality == "kl" else words.FRONT_KEPT, f"{n}.", words.LEAST_OF_SEVERAL]
        st.caption(" ".join(said + ([words.MS_HELP] if against == "ms" else [])))
    with table:
        row = _table(state, rows)
    point = clicked(event, "point", "key", kind=str)
    if point is not None:
        return str(point[0])
    return None if row is None else str(rows["key"].iloc[row])


def _table(state: Studio, rows: pd.DataFrame) -> int | None:
    """The same points; a row is chosen with the mouse or the keyboard."""
    shown = pd.DataFrame(
        {
            "": ["●" if current else "" for current in rows["current"]],
            "front": ["★" if front else "" for front in rows["front"]],
            "removes": rows["removes"],
            "method": rows["method"],
            "blocks": rows["blocks"],
            "KL (95 %)": rows["kl_range"],
            "relative accuracy (95 %)": rows["kept_range"],
            "perplexity": rows["perplexity"],
            "ms per token (range)": rows["ms_range"],
            "prefill, ms": rows["prefill"],
            "peak memory": rows["peak"],
            "parameters": rows["parameters"],
            "on disk": rows["disk"],
            "fitted in": rows["fitted"],
        }
    )
    columns = {"": st.column_config.TextColumn(width=30), "perplexity": st.column_config.NumberColumn(format="%.3f")}
    return chosen_row(
        shown, f"sweep_table_{state.slot(SweepState).nonce}", columns, "the points of the chart; choose a row to take its point"
    )


def _take(state: Studio, found: "SweepFolder", picked: str | None) -> None:
    """Make the picked point the current variant: at once if it is kept already, else by a job."""
    result = next((result for result in found.made if result.planned.key == picked), None)
    if result is None or has_active_job(state) or state.calibration is None:
        return
    state.slot(SweepState).nonce += 1
    if state.calibration.fingerprint != found.index.calibration_fingerprint:
        st.rerun()
    name = state.slot(SweepState).kept.get(result.planned.key, "")
    if name in state.variants:
        put_last(state, name)
        state.slot(SweepState).current = result.planned.key
        state.choose_cut(result.planned.cut)
    else:
        make_current(state, result, free_name(state, variant_name(result.planned.cut, result.planned.section.label)))
    for place in ("compare", "benchmarks"):  # the pages after this one show it first
        st.session_state.pop(f"variants_{place}", None)
    st.rerun()


def _current(state: Studio, found: "SweepFolder") -> None:
    """Which variant the last click made, and where to go with it."""
    if state.calibration is not None and state.calibration.fingerprint != found.index.calibration_fingerprint:
        st.info(words.OTHER_TEXT.format(text=found.index.calibration), icon=":material/info:")
        return
    name = state.slot(SweepState).kept.get(state.slot(SweepState).current, "")
    result = next((result for result in found.made if result.planned.key == state.slot(SweepState).current), None)
    if result is None or name not in state.variants:
        return
    same = state.variants[name].handle.fingerprint == result.weights
    with st.container(border=True):
        said, compare, export = split("sweep_current", [6, 2, 2], "center")
        weights = (
            "Its weights are those that were measured."
            if same
            else "It was fitted anew; its weights differ from those measured in the last digits."
        )
        said.markdown(f":material/check_circle: **{name}** is the current variant, checked. {weights}")
        with compare:
            link("pages/4_Compare.py", label="Compare it", icon=":material/arrow_forward:")
        with export:
            link("pages/6_Export.py", label="Export it", icon=":material/save:")


def _gains(found: "SweepFolder") -> None:
    """Speed, memory and size against the share of depth removed, beside the ideal line."""
    timed = [result for result in found.made if result.speed is not None]
    if not timed:
        return
    st.markdown("### What is really gained?")
    kind = st.segmented_control(
        "Gain", ["time", "memory and disk"], default="time", required=True, key="sweep_gain", label_visibility="collapsed"
    )
    rows = gain_rows(timed, found.index.n_blocks, kind != "time")
    if not rows.empty:
        show(gain_chart(rows, kind != "time", palette()), alt="Gain against the share of depth removed; the table holds the same figures.")
    speed = timed[0].speed
    devices = " and ".join(sorted({result.speed.device for result in timed}))
    st.caption(
        f"{words.GAIN} Measured on {devices}: median of {speed.timing.repeats} repeats in turn with the original, lines from the least to "
        f"the most of them; prefill of {speed.timing.prompt_tokens} tokens, then {speed.timing.new_tokens} generated, one text at a time."
    )
    with st.expander("The gains as a table"):
        st.dataframe([_gain_row(result, found.index.n_blocks) for result in timed], hide_index=True)


def _gain_row(result: "PointResult", n_blocks: int) -> dict[str, str]:
    speed, share = result.speed, result.n_removed / n_blocks
    times = {
        name: f"× {r.median:.2f} ({r.low:.2f}–{r.high:.2f})"
        for name, r in (("generation", speed.decode.ratio), ("prefill", speed.prefill.ratio))
    }
    peak = f"{speed.pruned_peak_bytes / speed.original_peak_bytes:.1%}" if speed.pruned_peak_bytes else "not measured"
    return {
        "removes": removed_text(result),
        "method": method_text(result),
        "depth removed": f"{share:.1%}",
        "ideal": f"× {1 / (1 - share):.2f}",
        **times,
        "tokens/s": f"{speed.decode.pruned.median:.0f} (original {speed.decode.original.median:.0f})",
        "peak memory": peak,
        "size on disk": f"{speed.pruned_disk_bytes / speed.original_disk_bytes:.1%}",
    }
