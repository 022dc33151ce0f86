"""The paired test of a system against the original, and the questions whose answers changed."""

from typing import TYPE_CHECKING

import streamlit as st

from ui import words
from ui.work import ORIGINAL

if TYPE_CHECKING:
    from replaceme_core.evaluate import Paired, Sample, Scores

_LIMIT = 0.05
_SHOWN = 50


def short(task: str) -> str:
    """The task without the suite's prefix."""
    return task.removeprefix("demo_")


def paired(scored: "dict[str, Scores]") -> None:
    """The exact McNemar test of one system against the original, task by task, and the questions behind it."""
    from replaceme_core import evaluate

    st.markdown("### Which answers changed?")
    others = [name for name in scored if name != ORIGINAL]
    name = st.segmented_control("Against the original", others, default=others[-1], required=True, key="paired_with") or others[-1]
    tests = evaluate.paired(scored[ORIGINAL], scored[name])
    if not tests:
        st.caption("These tasks have no question-by-question answers to compare.")
        return
    ranked = sorted(tests, key=lambda task: -(tests[task].worse + tests[task].better))
    overall = evaluate.paired_overall(tests)
    st.markdown(
        f"**{overall.worse}** answers turned from right to wrong, **{overall.better}** from wrong to right: "
        f"over all tasks this **{'is ' if overall.p_value < _LIMIT else ''}{_reading(overall)}** (p = {overall.p_value:.3f})."
    )
    table = [
        {
            "task": short(task),
            "right → wrong": tests[task].worse,
            "wrong → right": tests[task].better,
            "p-value": f"{tests[task].p_value:.3f}",
            "reads as": _reading(tests[task]),
        }
        for task in ranked
    ]
    st.dataframe(table, hide_index=True)
    st.caption(f"{words.PAIRED_HELP} With {len(tests)} tasks, about {_LIMIT * len(tests):.1f} would pass below {_LIMIT} by chance alone.")
    _flips(scored[ORIGINAL], scored[name], ranked)


def _reading(test: "Paired") -> str:
    if test.p_value >= _LIMIT:
        return "may be chance"
    return "a loss" if test.worse > test.better else "a gain"


def _flips(original: "Scores", other: "Scores", tasks: list[str]) -> None:
    """The text of the questions of one task that flipped, the task with most flips first."""
    task = st.selectbox("Read the flips of", tasks, format_func=short, key="flip_task")
    after = {sample.doc_id: sample for sample in other.samples.get(task or "", [])}
    before = [sample for sample in original.samples.get(task or "", []) if sample.doc_id in after]
    flips = [sample for sample in before if sample.correct != after[sample.doc_id].correct]
    if not flips:
        st.caption("No answer changed on this task.")
        return
    with st.container(height=320, border=True):
        for sample in flips[:_SHOWN]:
            now = after[sample.doc_id]
            st.markdown("**right → wrong**" if sample.correct else "**wrong → right**")
            st.text(sample.text[-600:])
            st.caption(
                f"before: {_choice(sample, sample.answer)} · now: {_choice(now, now.answer)} · right: {_choice(sample, sample.target)}"
            )


def _choice(sample: "Sample", index: int) -> str:
    return sample.choices[index].strip() if 0 <= index < len(sample.choices) else "?"
