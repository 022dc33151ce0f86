"""The search for places on the Blocks page: its settings, quality against depth as a chart, and the table twin."""

from typing import TYPE_CHECKING, Any

import altair as alt
import pandas as pd
import streamlit as st

from ui.blocks import words
from ui.blocks.clicks import places_key
from ui.blocks.state import MeasuredState
from ui.look.chart_style import styled
from ui.look.figures import amount, cut_text
from ui.look.layout import split
from ui.look.palette import Palette, palette
from ui.parts.chart import clicked, show
from ui.parts.job_panel import has_active_job, show_job
from ui.session.jobs import Job, runner
from ui.session.methods import structures
from ui.session.state import Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.studies.planner import Aim, Places, Point

_MOST = 10
_STEP, _ROOM = 0.16, 0.8
"""blocks between points that remove as many blocks, and what all of them take at most"""
_METHODS = {"weighted_least_squares": "a transform (seconds)", "sequential_refit": "a sequential refit (minutes)"}


def find_places(state: Studio, aim: "Aim") -> Job:
    """The search as a job; what it found is shown on the Blocks page."""
    resident, calibration, measurement = state.resident, state.calibration, state.measurement

    def work(job: Job) -> None:
        from replaceme_core.studies import planner

        if resident is None or calibration is None or measurement is None:
            raise RuntimeError("a search needs a measured model")
        found = planner.search(resident.handle, calibration, measurement, aim, job)
        if state.measurement is measurement:
            state.slot(MeasuredState).places = found

    return submit(state, words.PLACES, work, str(aim))


def places(state: Studio) -> None:
    """The settings and the button; then what was found."""
    resident = state.resident
    if state.span is None or resident is None or state.reads_images or resident.merges_on_disk:
        return
    st.markdown("### How much, and where?")
    st.caption(words.PLACES_HELP)
    _ask(state)
    job = runner().latest(state.owner, "long")
    if job is not None and job.active and job.title == words.PLACES:
        show_job(state, large=True)
    found = state.slot(MeasuredState).places
    if found is None:
        return
    for note in found.notes:
        st.info(note, icon=":material/info:")
    picture, table = st.tabs(["Chart", "Table"])
    with picture:
        event = show(
            places_chart(found, state.removed or [], palette()),
            key=f"places_{places_key(state)}_{state.cut}",
            on_select="rerun",
            selection_mode="place",
            alt="KL against blocks removed; the table holds the same figures.",
        )
        st.caption(f"{words.PLACES_CAPTION} Measured on {found.original.measured_on}. {found.original.note}")
    with table:
        picked = _table(state, found)
    place = clicked(event, "place", "place")
    _take(state, found, picked if place is None else place[0])


def _ask(state: Studio) -> None:
    from replaceme_core.plans.plan import MethodSection
    from replaceme_core.studies.planner import Aim

    k_box, method_box, several_box, button = split("search", [2, 3, 3, 3], "bottom")
    k = k_box.number_input("Places of each", 1, _MOST, 3, key="places_k", persist_state="session")
    names = list(_METHODS) if structures(state) != ["diagonal"] else ["weighted_least_squares"]
    name = method_box.selectbox(
        "In their place", names, format_func=_METHODS.get, key=f"places_method_{state.model}", persist_state="session"
    )
    several = several_box.toggle("Also two spans at once", key="places_several", help=words.SEVERAL_HELP, persist_state="session")
    if button.button(words.PLACES, icon=":material/travel_explore:", disabled=has_active_job(state), width="stretch"):
        structure = {"structure": structures(state)[0]} if name == "weighted_least_squares" else {}
        find_places(state, Aim(k=int(k), spans=2 if several else 1, method=MethodSection.parse({"name": name, **structure})))
        st.rerun()


def places_rows(found: "Places", removed: list[int]) -> pd.DataFrame:
    """One row per measured cut; `chosen` is the one that removes these blocks. `x` sets those of as many blocks side by side."""
    rows = pd.DataFrame([_row(point, number, removed) for number, point in enumerate(found.points)])
    same = rows.groupby("blocks")["place"]
    most = same.size().max()
    rows["x"] = rows["blocks"] + (same.rank() - (same.transform("size") + 1) / 2) * min(_STEP, _ROOM / most)
    return rows


def _row(point: "Point", number: int, removed: list[int]) -> dict[str, Any]:
    quality, cut = point.quality, point.candidate.cut
    removes = cut_text(cut, " and ")
    return {
        "place": number,
        "removes": removes,
        "blocks": len(cut),
        "kl": quality.kl,
        "low": quality.kl_low,
        "high": quality.kl_high,
        "perplexity": quality.perplexity,
        "parameters": amount(point.n_parameters),
        "named": point.candidate.criterion,
        "front": point.on_front,
        "chosen": cut.blocks == removed,
        "said": f"place: {number}; {removes}; KL {quality.kl:.3f}",
    }


def places_chart(found: "Places", removed: list[int], colours: Palette) -> alt.LayerChart:
    """KL with its interval against the number of removed blocks; the front is joined, the chosen cut is outlined."""
    rows = places_rows(found, removed)
    front = pd.concat([pd.DataFrame([{"x": 0.0, "kl": 0.0}]), rows[rows["front"]]])
    x = alt.X("x:Q", title="blocks removed", axis=alt.Axis(tickMinStep=1, format="d", grid=False), scale=alt.Scale(nice=False, padding=18))
    title = "KL to the original (nats per token)"
    y = alt.Y("kl:Q", title=title, scale=alt.Scale(domainMin=0))
    tips = [
        alt.Tooltip("removes:N"),
        alt.Tooltip("kl:Q", title="KL", format=".4f"),
        alt.Tooltip("low:Q", title="from", format=".4f"),
        alt.Tooltip("high:Q", title="to", format=".4f"),
        alt.Tooltip("perplexity:Q", format=".3f"),
        alt.Tooltip("parameters:N", title="parameters left"),
        alt.Tooltip("named:N", title="named by"),
    ]
    colour = alt.ColorValue(colours.muted, condition={"test": "datum.front", "value": colours.pruned})
    base = alt.Chart(rows)
    points = (
        alt.Chart(rows, name="places")
        .mark_point(filled=True, size=130, opacity=1, cursor="pointer")
        .encode(x=x, y=y, color=colour, description=alt.Description("said:N"), tooltip=tips)
        .add_params(alt.selection_point(name="place", fields=["place"], empty=False))
    )
    quiet = {"tooltip": None, "aria": False}
    layers = [
        alt.Chart(front).mark_line(color=colours.pruned, strokeWidth=2, **quiet).encode(x=x, y=y),
        base.mark_rule(strokeWidth=2, opacity=0.6, **quiet).encode(x=x, y=alt.Y("low:Q", title=title), y2=alt.Y2("high:Q"), color=colour),
        alt.Chart(rows[rows["chosen"]]).mark_point(shape="square", size=330, color=colours.cut, strokeWidth=3, **quiet).encode(x=x, y=y),
        points,
    ]
    return styled(alt.layer(*layers), colours, height=330)


def _table(state: Studio, found: "Places") -> int | None:
    rows = places_rows(found, state.removed or [])
    shown = pd.DataFrame(
        {
            "": ["●" if chosen else "" for chosen in rows["chosen"]],
            "best here": ["★" if front else "" for front in rows["front"]],
            "removes": rows["removes"],
            "blocks": rows["blocks"],
            "KL": rows["kl"],
            "from": rows["low"],
            "to": rows["high"],
            "perplexity": rows["perplexity"],
            "parameters left": rows["parameters"],
            "named by": rows["named"],
        }
    )
    figures = {name: st.column_config.NumberColumn(format="%.4f") for name in ("KL", "from", "to")}
    event = st.dataframe(
        shown,
        hide_index=True,
        key=f"places_table_{places_key(state)}_{state.cut}",
        on_select="rerun",
        selection_mode="single-row",
        column_config={"": st.column_config.TextColumn(width=30), "perplexity": st.column_config.NumberColumn(format="%.3f"), **figures},
    )
    return next(iter(event["selection"]["rows"]), None)


def _take(state: Studio, found: "Places", number: int | None) -> None:
    """Make a measured cut the present one."""
    if number is None or not 0 <= number < len(found.points):
        return
    cut = found.points[number].candidate.cut
    if cut != state.cut:
        state.choose_cut(cut)
        st.rerun()
