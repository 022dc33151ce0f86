"""The parts of the Benchmarks page: the suite, grouped bars, the table, the paired test and its flips."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from ui import flips_view, words
from ui.access import access
from ui.chart_style import show
from ui.flips_view import short
from ui.job_panel import has_active_job, show_job
from ui.layout import split
from ui.palette import palette
from ui.score_charts import score_chart
from ui.scoring import run_benchmarks, settings_key
from ui.state import Studio
from ui.work import ORIGINAL

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.evaluate import Scores
    from replaceme_core.plan import EvaluationSection

PAPER = "arc_challenge,arc_easy,boolq,copa,hellaswag,openbookqa,piqa,race,sciq,truthfulqa_mc2,winogrande"
_SUITES = {"demo": "Demo suite (offline)", "paper": "The usual suite (needs a network)", "own": "Other lm-eval tasks"}


def ask(state: Studio, columns: "dict[str, ModelHandle]") -> "EvaluationSection | None":
    """Suite and size, the run button, and the job while it runs."""
    suites = ["demo"] if access().shared else list(_SUITES)
    suite = st.segmented_control(
        "Suite", suites, format_func=_SUITES.get, default="demo", required=True, key="bench_suite", persist_state="session"
    )
    size, button, _ = split("suite", [2, 2, 3], "bottom")
    limit = size.number_input(
        "Questions per task",
        0,
        100_000,
        50,
        10,
        key="bench_limit",
        persist_state="session",
        help="0: all of them. Fewer is faster, with wider error bars.",
    )
    tasks = {"demo": _demo_tasks, "own": _own_tasks}.get(suite or "demo", lambda: PAPER)()
    if not tasks:
        st.caption("Name at least one task to go on.")
        return None
    from replaceme_core.plan import EvaluationSection

    section = EvaluationSection(tasks=tasks, limit=int(limit) or None)
    missing = [name for name, handle in columns.items() if (handle.fingerprint, settings_key(section)) not in state.scores]
    label = f"Run on {len(missing)} model{'s' if len(missing) != 1 else ''}" if missing else "All results are here"
    if button.button(
        label,
        type="primary" if missing else "secondary",
        disabled=not missing or has_active_job(state),
        width="stretch",
        icon=":material/play_arrow:",
    ):
        run_benchmarks(state, columns, section)
        st.rerun()
    if has_active_job(state):
        show_job(state, large=True)
    return section


def _own_tasks() -> str:
    return st.text_input(
        "Task names, separated by commas", placeholder="lambada_openai, piqa", key="bench_tasks", persist_state="session"
    ).strip()


def _demo_tasks() -> str:
    """'demo', or 'demo:a,b' where only some tasks are chosen."""
    from replaceme_core import evaluate

    with st.expander("Choose tasks"):
        names = [short(task) for task in evaluate.list_tasks("demo")]
        chosen = st.pills(
            "Tasks", names, selection_mode="multi", key="bench_demo_tasks", persist_state="session", help="None chosen: all of them."
        )
    return f"demo:{','.join(chosen)}" if chosen and len(chosen) < len(names) else "demo"


def results(state: Studio, columns: "dict[str, ModelHandle]", section: "EvaluationSection") -> None:
    """Everything that is scored under these settings."""
    key = settings_key(section)
    scored = {
        name: state.scores[(handle.fingerprint, key)] for name, handle in columns.items() if (handle.fingerprint, key) in state.scores
    }
    if not scored:
        st.caption("Nothing is scored with these settings yet. Results stay as long as the app runs.")
        return
    _averages(scored)
    rows = _rows(scored)
    if not rows.empty:
        show(score_chart(rows, list(columns), palette()))
        first = next(iter(scored))
        n_questions = int(rows.loc[rows["system"] == first, "n"].sum())
        st.caption(f"{words.BENCHMARK_HELP} {n_questions:,} questions in {rows['task'].nunique()} tasks.")
    with st.expander("The figures as a table", expanded=False):
        st.dataframe(_table(scored), hide_index=True)
    if ORIGINAL in scored and len(scored) > 1:
        flips_view.paired(scored)


def _averages(scored: "dict[str, Scores]") -> None:
    original = scored.get(ORIGINAL)
    for column, (name, scores) in zip(st.columns(max(3, len(scored))), scored.items(), strict=False):
        kept = None
        if original is not None and name != ORIGINAL and original.average and scores.average is not None:
            kept = f"{scores.average / original.average:.0%} of the original"
        column.metric(
            name,
            f"{scores.average:.1%}" if scores.average is not None else "–",
            delta=kept,
            delta_color="off",
            delta_arrow="off",
            help="Mean accuracy over the tasks.",
        )


def _rows(scored: "dict[str, Scores]") -> pd.DataFrame:
    rows = []
    for name, scores in scored.items():
        for task in scores.results:
            score = scores.primary(task)
            if score is not None:
                error = score.stderr or 0.0
                rows.append(
                    {
                        "task": short(task),
                        "system": name,
                        "value": score.value,
                        "stderr": error,
                        "low": max(0.0, score.value - error),
                        "high": min(1.0, score.value + error),
                        "n": score.n,
                    }
                )
    return pd.DataFrame(rows)


def _table(scored: "dict[str, Scores]") -> pd.DataFrame:
    """Every metric with n, standard error and the share of the original's that is left."""
    original, rows = scored.get(ORIGINAL), []
    for name, scores in scored.items():
        for task, metrics in scores.results.items():
            for metric, score in metrics.items():
                base = original.results.get(task, {}).get(metric) if original else None
                rows.append(
                    {
                        "task": short(task),
                        "metric": metric,
                        "system": name,
                        "value": f"{score.value:.3f}",
                        "standard error": f"{score.stderr:.3f}" if score.stderr is not None else "–",
                        "n": score.n,
                        "kept": f"{score.value / base.value:.0%}" if base and base.value and "perplexity" not in metric else "–",
                    }
                )
    return pd.DataFrame(rows).sort_values(["task", "metric"], kind="stable")
