"""The paired tests of a system against the original."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.benchmarks import words
from ui.look.systems import ORIGINAL

if TYPE_CHECKING:
    from replaceme_core.evaluation.evaluate import Paired, Scores

_LIMIT = 0.05
_COLUMNS = {"task": st.column_config.TextColumn(width=150, pinned=True)}


def paired(systems: "dict[str, Scores]") -> str:
    """One system against the original, in a sentence and task by task. Returns which one."""
    from replaceme_core.evaluation import paired as tests
    from replaceme_core.evaluation.tables import short

    st.markdown("### Which answers changed?")
    others = [name for name in systems if name != ORIGINAL]
    name = st.segmented_control("Against the original", others, default=others[-1], required=True, key="paired_with") or others[-1]
    found = tests.paired_all(systems[ORIGINAL], systems[name])
    if not found:
        st.caption("There are no question-by-question answers to compare: the two share no task, or the samples files were not given.")
        return name
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
    return name


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
    from replaceme_core.evaluation.scores import lower_is_better

    if p_value >= _LIMIT:
        return "may be chance"
    if test.test == "bootstrap":
        return "a loss" if (test.difference > 0) == lower_is_better(test.metric) else "a gain"
    return "a loss" if test.worse > test.better else "a gain"
