"""The parts of the Benchmarks page: the suite, grouped bars, the table, the paired test and its flips."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from ui import words
from ui.access import access
from ui.job_panel import has_active_job, show_job
from ui.palette import palette
from ui.score_charts import score_chart
from ui.state import Studio
from ui.work import ORIGINAL, run_benchmarks, settings_key

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.evaluate import Sample, Scores
    from replaceme_core.plan import EvaluationSection

PAPER = "arc_challenge,arc_easy,boolq,copa,hellaswag,openbookqa,piqa,race,sciq,truthfulqa_mc2,winogrande"
_SUITES = {"demo": "Demo suite (offline)", "paper": "The usual suite (needs a network)", "own": "Other lm-eval tasks"}


def ask(state: Studio, columns: "dict[str, ModelHandle]") -> "EvaluationSection | None":
    """Suite and size, the run button, and the job while it runs."""
    suites = ["demo"] if access().shared else list(_SUITES)
    choice, size, button = st.columns([4, 2, 2], vertical_alignment="bottom")
    suite = choice.segmented_control(
        "Suite", suites, format_func=_SUITES.get, default="demo", required=True, key="bench_suite", persist_state="session"
    )
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
    tasks = {"demo": "demo", "paper": PAPER}.get(suite or "demo", "")
    if suite == "own":
        tasks = st.text_input(
            "Task names, separated by commas", placeholder="lambada_openai, piqa", key="bench_tasks", persist_state="session"
        ).strip()
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
        st.altair_chart(score_chart(rows, list(columns), palette()), width="stretch")
        st.caption(words.BENCHMARK_HELP)
    with st.expander("The figures as a table", expanded=False):
        st.dataframe(_table(scored), hide_index=True)
    if ORIGINAL in scored and len(scored) > 1:
        _paired(scored)


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
                        "task": task.removeprefix("demo_"),
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
                        "task": task,
                        "metric": metric,
                        "system": name,
                        "value": f"{score.value:.3f}",
                        "standard error": f"{score.stderr:.3f}" if score.stderr is not None else "–",
                        "n": score.n,
                        "kept": f"{score.value / base.value:.0%}" if base and base.value and "perplexity" not in metric else "–",
                    }
                )
    return pd.DataFrame(rows).sort_values(["task", "metric"], kind="stable")


def _paired(scored: "dict[str, Scores]") -> None:
    """The paired test of one system against the original, and the questions behind it."""
    from replaceme_core import evaluate

    st.markdown("### Which answers changed?")
    others = [name for name in scored if name != ORIGINAL]
    name = st.segmented_control("Against the original", others, default=others[-1], required=True, key="paired_with") or others[-1]
    tests = evaluate.paired(scored[ORIGINAL], scored[name])
    if not tests:
        st.caption("These tasks have no question-by-question answers to compare.")
        return
    table = [
        {
            "task": task,
            "right → wrong": test.worse,
            "wrong → right": test.better,
            "p-value": f"{test.p_value:.3f}",
            "reads as": "a real loss"
            if test.p_value < 0.05 and test.worse > test.better
            else "a real gain"
            if test.p_value < 0.05
            else "may be chance",
        }
        for task, test in tests.items()
    ]
    st.dataframe(table, hide_index=True)
    st.caption(words.PAIRED_HELP)
    _flips(scored[ORIGINAL], scored[name], list(tests))


def _flips(original: "Scores", other: "Scores", tasks: list[str]) -> None:
    task = st.selectbox("Read the flips of", tasks, key="flip_task")
    after = {sample.doc_id: sample for sample in other.samples.get(task or "", [])}
    flips = [
        (sample, after[sample.doc_id])
        for sample in original.samples.get(task or "", [])
        if sample.doc_id in after and sample.correct != after[sample.doc_id].correct
    ]
    if not flips:
        st.caption("No answer changed on this task.")
        return
    with st.container(height=320, border=True):
        for before, now in flips[:50]:
            st.markdown("**right → wrong**" if before.correct else "**wrong → right**")
            st.text(before.text[-600:])
            st.text(f"answer before: {_answer(before)}    now: {_answer(now)}    right: {_choice(before, before.target)}")
            st.divider()


def _answer(sample: "Sample") -> str:
    return _choice(sample, sample.answer)


def _choice(sample: "Sample", index: int) -> str:
    return sample.choices[index].strip() if 0 <= index < len(sample.choices) else "?"
