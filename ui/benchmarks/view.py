"""The parts of the Benchmarks page: run, averages, grouped bars, the table in the paper's layout, every figure."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from ui.benchmarks import files as score_files_view
from ui.benchmarks import flips as flips_view
from ui.benchmarks import items as items_view
from ui.benchmarks import jobs as benchmark_runs
from ui.benchmarks import words
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.systems import ORIGINAL
from ui.parts.chart import show
from ui.parts.intervals import interval_chart, score_chart
from ui.parts.job_panel import follow, has_active_job, show_job
from ui.session.results import Results
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.evaluation.evaluate import Scores
    from replaceme_core.plans.plan import EvaluationSection


def run_button(state: Studio, columns: "dict[str, ModelHandle]", section: "EvaluationSection") -> None:
    """The button that scores what is missing, and the job while it runs."""
    found = benchmark_runs.scored(state, columns, section)
    missing = [name for name, scores in found.items() if scores.missing]
    begun = any(scores.results for scores in found.values())
    models = f"{len(missing)} model{'s' if len(missing) != 1 else ''}"
    label = "All results are here" if not missing else f"Go on with {models}" if begun else f"Run on {models}"
    button, said = split("run", [2, 5], "center")
    if button.button(
        label,
        type="primary" if missing else "secondary",
        disabled=not missing or has_active_job(state),
        width="stretch",
        icon=":material/play_arrow:",
    ):
        benchmark_runs.run(state, columns, section)
        st.rerun()
    if missing and begun and not has_active_job(state):
        left = max(len(scores.missing) for scores in found.values())
        said.caption(f"{left} task{'s are' if left != 1 else ' is'} still to be asked; what was finished is kept.")
    else:
        said.caption(words.KEPT_CAPTION)
    if has_active_job(state):
        follow(state)
        show_job(state, large=True)


def from_files(state: Studio) -> None:
    """Scores from files alone, while the form does not say yet what to ask."""
    score_files_view.files(state, benchmark_runs.imported(state))


def results(state: Studio, columns: "dict[str, ModelHandle]", section: "EvaluationSection") -> None:
    """Everything that is scored under these settings, and what was read from files."""
    known = {name: scores for name, scores in benchmark_runs.scored(state, columns, section).items() if scores.results}
    systems = known | benchmark_runs.imported(state)
    if not systems:
        st.caption("Nothing is scored with these settings yet.")
        score_files_view.files(state, {})
        return
    names = list(columns) + [name for name in systems if name not in columns]
    _notices(systems)
    _averages(systems)
    rows = _rows(systems)
    if not rows.empty:
        show(score_chart(rows, names, palette()), alt=f"{_spoken(rows)} The table holds every figure.")
        first = rows[rows["system"] == rows["system"].iloc[0]]
        st.caption(f"{words.BARS_HELP} {int(first['n'].sum()):,} questions in {first['task'].nunique()} tasks.")
    _writing(systems, names)
    _paper_table(state, columns, systems)
    other = flips_view.paired(systems) if ORIGINAL in systems and len(systems) > 1 else list(systems)[-1]
    items_view.browse(systems, other)
    score_files_view.files(state, systems)


def _notices(systems: "dict[str, Scores]") -> None:
    """What makes the figures doubtful: a limit, cut prompts, unequal settings, missing tasks."""
    from replaceme_core.evaluation import tables

    tasks = tables.common_tasks(systems)
    doubts = [said for scores in systems.values() if (said := tables.doubtful_average(scores, tasks))]
    if doubts:
        st.info(doubts[0], icon=":material/straighten:")
    cut = [f"{name}, {tables.short(task)}: {a} of {b}" for name, scores in systems.items() for task, (a, b) in scores.truncated.items()]
    if cut:
        st.warning(f"Prompts longer than the model reads were cut on the left: {'; '.join(cut[:6])}.", icon=":material/content_cut:")
    for said in tables.unequal(systems)[:4]:
        st.warning(said, icon=":material/balance:")
    if len(tasks) < max(len(scores.shown) for scores in systems.values()):
        st.caption(f"Averages are over the {len(tasks)} tasks that all systems have.")


def _averages(systems: "dict[str, Scores]") -> None:
    from replaceme_core.evaluation import tables

    means, tasks = tables.averages(systems), tables.common_tasks(systems)
    base = means.get(ORIGINAL)
    if not any(mean is not None for mean in means.values()):
        return
    for column, (name, mean) in zip(st.columns(max(3, len(means))), means.items(), strict=False):
        error = tables.average_error(systems[name], tasks)
        said = f"{mean:.1%}" if mean is not None else "–"
        kept = f"{mean / base:.1%} of the original" if base and mean is not None and name != ORIGINAL else None
        column.metric(name, said, delta=kept, delta_color="off", delta_arrow="off", help=_average_help(error))


def _average_help(error: float | None) -> str:
    return "Mean accuracy over the tasks, a group counting once." + (f" Standard error {100 * error:.1f} points." if error else "")


def _rows(systems: "dict[str, Scores]") -> pd.DataFrame:
    """Accuracy of each task that is not the probe's, for the chart."""
    from replaceme_core.evaluation import tables
    from replaceme_core.evaluation.scores import PROBE

    rows = []
    for name, scores in systems.items():
        for task in scores.shown:
            score = scores.primary(task)
            if score is not None and not task.startswith(PROBE):
                rows.append(_bar(tables.short(task), name, score, scores.samples.get(task, [])))
    return pd.DataFrame(rows)


def _bar(task: str, system: str, score, samples: list) -> dict[str, object]:
    error = score.stderr or 0.0
    chance = [1 / len(sample.choices) for sample in samples if sample.choices]
    return {
        "task": task,
        "system": system,
        "value": score.value,
        "stderr": error,
        "low": max(0.0, score.value - error),
        "high": min(1.0, score.value + error),
        "n": score.n,
        "chance": sum(chance) / len(chance) if chance else None,
    }


def _spoken(rows: pd.DataFrame) -> str:
    """The bars in words: the mean of every system over the tasks shown."""
    means = rows.groupby("system", sort=False)["value"].mean()
    return "Means over the tasks: " + ", ".join(f"{name} {value:.1%}" for name, value in means.items()) + "."


def _writing(systems: "dict[str, Scores]", names: list[str]) -> None:
    """The generative probe: right answers beside the repetition rate."""
    from replaceme_core.evaluation.scores import PROBE

    right, repeated = [], []
    for name, scores in systems.items():
        for task in (task for task in scores.results if task.startswith(PROBE)):
            score = scores.primary(task)
            if score is not None:
                right.append(_bar(task.removeprefix(PROBE), name, score, []))
            else:
                repeated.append(_bar(task.removeprefix(PROBE), name, scores.results[task]["repetition"], []))
    if not right and not repeated:
        return
    st.markdown("### Can it still generate?")
    left, side = split("writing", [3, 2])
    if right:
        show(
            score_chart(pd.DataFrame(right), names, palette(), "generated right"),
            left,
            alt=f"Generated right. {_spoken(pd.DataFrame(right))}",
        )
    if repeated:
        chart = interval_chart(pd.DataFrame(repeated), names, "repetition (lower is better)", palette())
        show(chart, side if right else left, alt=f"Repetition. {_spoken(pd.DataFrame(repeated))}")
    frame = pd.DataFrame(right + repeated)
    st.caption(f"{words.WRITING_SAID} {int(frame['n'].iloc[0])} prompts of each kind; lines: one standard error.")


def _paper_table(state: Studio, columns: "dict[str, ModelHandle]", systems: "dict[str, Scores]") -> None:
    """The paper's table turned: a row per task, so that nothing is cut off, a column per system; average and relative accuracy come first."""
    from replaceme_core.evaluation import tables

    st.markdown("### The table")
    held = state.slot(Results)
    measured = held.on_one_text(state.model, {name: columns[name].fingerprint for name in systems if name in columns})
    head, rows = tables.paper_rows(systems, ORIGINAL, measured)
    ends = tables.ends(head)
    order = [*ends, *(name for name in head if name not in ("system", *ends))]
    turned = pd.DataFrame(rows, columns=head).set_index("system").T.loc[order].rename_axis("task").rename_axis(None, axis="columns")
    st.dataframe(
        turned.reset_index(),
        hide_index=True,
        height=38 + 35 * len(turned),
        column_config={"task": st.column_config.TextColumn(width=150, pinned=True)},
    )
    lines = tables.notes(systems).splitlines()
    said = next((row for row in measured.values() if row), None)
    lines.append(
        f"Perplexity and KL (nats per token) on {said.measured_on}, as Compare measured them."
        if said
        else "Perplexity and KL on test text stand here once they are measured on the Compare page."
    )
    st.caption(" ".join(lines))
    with st.expander("Every figure, with its settings"):
        figures = pd.DataFrame(tables.long_rows(systems, ORIGINAL))
        st.dataframe(figures, hide_index=True, column_config={"kept": st.column_config.NumberColumn(format="percent")})
