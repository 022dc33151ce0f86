"""The paired tests of a system against the original, and the questions whose answers changed."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.benchmarks import words
from ui.look.layout import split
from ui.look.systems import ORIGINAL

if TYPE_CHECKING:
    from replaceme_core.evaluation.evaluate import Paired, Sample, Scores

_LIMIT = 0.05
_SHOWN = 50
_DIRECTIONS = {"all": "Both ways", "worse": "Right → wrong", "better": "Wrong → right"}
_COLUMNS = {"task": st.column_config.TextColumn(width=150, pinned=True)}
Flip = tuple[str, "Sample", "Sample"]


def paired(systems: "dict[str, Scores]") -> None:
    """One system against the original: in a sentence, task by task, and the questions behind it."""
    from replaceme_core.evaluation import paired as tests
    from replaceme_core.evaluation.tables import short

    st.markdown("### Which answers changed?")
    others = [name for name in systems if name != ORIGINAL]
    name = st.segmented_control("Against the original", others, default=others[-1], required=True, key="paired_with") or others[-1]
    found = tests.paired_all(systems[ORIGINAL], systems[name])
    if not found:
        st.caption("There are no question-by-question answers to compare: the two share no task, or the samples files were not given.")
        return
    flipped = {task: test for (task, _), test in found.items() if test.test == "McNemar"}
    if flipped:
        overall = tests.paired_overall(flipped)
        st.markdown(
            f"**{overall.worse}** answers turned from right to wrong, **{overall.better}** from wrong to right: "
            f"over all tasks this **{'is ' if overall.p_value < _LIMIT else ''}{_reading(overall, overall.p_value)}** "
            f"(p {_p(overall.p_value)}, n = {overall.n:,})."
        )
    ranked = sorted(found.items(), key=lambda item: (item[1].test != "McNemar", -(item[1].worse + item[1].better)))
    st.dataframe([_row(short(task), metric, test) for (task, metric), test in ranked], hide_index=True, column_config=_COLUMNS)
    st.caption(words.TESTS_HELP)
    if flipped:
        _flips(systems[ORIGINAL], systems[name], [task for (task, _), test in ranked if test.test == "McNemar"])


def _row(task: str, metric: str, test: "Paired") -> dict[str, object]:
    flips = test.test == "McNemar"
    interval = "" if test.low is None else f" [{test.low:+.3g}, {test.high:+.3g}]"
    return {
        "task": task,
        "figure": metric,
        "n": test.n,
        "right → wrong": test.worse if flips else None,
        "wrong → right": test.better if flips else None,
        "change": f"{100 * test.difference:+.1f} points" if flips else f"{test.difference:+.3g}{interval}",
        "p": _p(test.p_value),
        "p, corrected": _p(test.adjusted if test.adjusted is not None else test.p_value),
        "reads as": _reading(test, test.adjusted if test.adjusted is not None else test.p_value),
    }


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _reading(test: "Paired", p_value: float) -> str:
    if p_value >= _LIMIT:
        return "may be chance"
    if test.test == "bootstrap":
        return "a loss" if test.difference > 0 else "a gain"
    return "a loss" if test.worse > test.better else "a gain"


def _flips(original: "Scores", other: "Scores", tasks: list[str]) -> None:
    """The questions that flipped, filtered by task and direction."""
    from replaceme_core.evaluation.tables import short

    left, right = split("flips", [1, 1], "bottom")
    chosen = left.multiselect("Read the flips of", tasks, format_func=short, placeholder="all tasks", key="flip_tasks")
    direction = right.segmented_control(
        "Direction", list(_DIRECTIONS), format_func=_DIRECTIONS.get, default="all", required=True, key="flip_direction"
    )
    flips = _found(original, other, chosen or tasks, direction or "all")
    if not flips:
        st.caption("No answer changed here.")
        return
    st.caption(f"{len(flips):,} questions" + (f", the first {_SHOWN} are shown." if len(flips) > _SHOWN else "."))
    with st.container(height=420, border=True):
        for task, before, now in flips[:_SHOWN]:
            st.markdown(f"**{short(task)}** · " + (":orange[right → wrong]" if before.correct else ":blue[wrong → right]"))
            st.text(before.text[-600:])
            st.caption(f"before: **{_said(before.given)}** · now: **{_said(now.given)}** · right: **{_said(before.right)}**")
            st.divider()


def _found(original: "Scores", other: "Scores", tasks: list[str], direction: str) -> list[Flip]:
    from replaceme_core.evaluation.paired import common

    wanted = {"all": (True, False), "worse": (True,), "better": (False,)}[direction]
    return [
        (task, before, now)
        for task in tasks
        for before, now in common(original, other, task)
        if before.correct != now.correct and bool(before.correct) in wanted
    ]


def _said(text: str) -> str:
    """An answer as one line, without signs that Markdown would read."""
    line = " ".join(text.split())[:120]
    return "".join(f"\\{sign}" if sign in "*_`[]<>$#~|:\\" else sign for sign in line) or "–"
