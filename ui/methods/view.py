"""The parts of the Methods page: what to compare, the job, the chart, the table and who wins."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from replaceme_core.plans.defaults import tasks_for
from ui.look.layout import split
from ui.look.palette import palette
from ui.methods import words
from ui.methods.chart import chart_rows, methods_chart
from ui.methods.jobs import METHODS, rows_file, rows_of, run_methods
from ui.parts.chart import show
from ui.parts.job_panel import has_active_job, is_running, show_job
from ui.parts.measure import ask_shares, ask_tokens
from ui.parts.quantised import prunes_in_memory
from ui.session.methods import refits
from ui.session.state import Studio

_ITEMS = 10


def can_compare(state: Studio) -> bool:
    return prunes_in_memory(state, words.NOT_IN_MEMORY)


def ask(state: Studio) -> Path:
    """The settings and the button; the file of the rows that belong to them."""
    from replaceme_core.plans.plan import EvaluationSection
    from replaceme_core.selection import spans
    from replaceme_core.studies.leaderboard import contestants
    from replaceme_core.studies.leaderboard.run import Aim

    st.caption(words.INTRO)
    known = {row.name: row for row in contestants.table()}
    names = st.multiselect(
        "Methods", list(known), default=_usual(state), format_func=lambda name: _named(known[name]), key="methods_names",
        persist_state="session", help=words.METHODS_HELP,
    )  # fmt: skip
    n_blocks = state.resident.handle.n_blocks if state.resident else 0
    suite = tasks_for(state.resident.section.path if state.resident else "")
    shares_box, tokens_box, items_box = split("methods_settings", [3, 2, 2], "bottom")
    shares = ask_shares(shares_box, n_blocks, "methods", [0.25], words.SHARES_HELP)
    tokens = ask_tokens(tokens_box, "methods_tokens", 1024, help=words.TOKENS_HELP)
    items = int(
        items_box.number_input(
            f"Questions per task ({suite})", 0, 10_000, _ITEMS, 10, key=f"methods_items_{suite}", persist_state="session",
            help=words.ITEMS_HELP[suite],
        )
    )  # fmt: skip
    path = rows_file(state, tokens, items)
    wanted = [known[name] for name in names]
    lengths = {spans.length_of_share(n_blocks, share) for share in shares}
    done = {(row["method"], row["n_removed"]) for row in rows_of(path) if "error" not in row}
    left = [name for name in names for length in lengths if (name, length) not in done]
    label = "Choose methods and shares" if not names or not shares else f"Compare: {len(left)} to make" if left else "All rows are here"
    if st.button(label, type="primary" if left else "secondary", icon=":material/play_arrow:", disabled=not left or has_active_job(state)):
        evaluation = EvaluationSection(tasks=suite, limit=items) if items else None
        run_methods(state, Aim(tuple(wanted), tuple(sorted(shares)), evaluation), tokens, path)
        st.rerun()
    return path


def _usual(state: Studio) -> list[str]:
    """Plain removal, least squares, what Fit recommends where it can be solved, and two of the field's."""
    from replaceme_core.plans.defaults import RECOMMENDED

    return ["drop", "weighted_least_squares", *(name for name in refits(state) if name == RECOMMENDED), "uidl", "llm_pruner"]


def _named(row: Any) -> str:
    marks = ["trains"] * row.training + ["in memory"] * (not row.plain) + ["width"] * (row.kind == "width")
    return row.title + (f" ({', '.join(marks)})" if marks else "")


def results(state: Studio, path: Path) -> None:
    """The job while it runs, and the rows that are finished."""
    if has_active_job(state):
        show_job(state, large=True)
    rows = rows_of(path)
    made = [row for row in rows if "error" not in row]
    if len(made) < 2:
        if not is_running(state, METHODS):
            st.caption("Nothing is compared with these settings yet.")
        _failures(rows)
        return
    for said in winners(made):
        st.markdown(said)
    figures = {"kl": "KL", "kept": "relative accuracy"} if any(row.get("kept") is not None for row in made) else {"kl": "KL"}
    figure = st.segmented_control(
        "Figure", list(figures), default="kl", required=True, format_func=figures.get, key="methods_figure", persist_state="session"
    )
    table = chart_rows(made, figure if figure in figures else "kl")
    show(methods_chart(table, figure if figure in figures else "kl", palette()), alt="Each method's figure; the table holds the same.")
    st.caption(f"{words.CHART} n = {_amount(made[0])}.")
    st.markdown("### The table")
    st.dataframe(table_of(made), hide_index=True, column_config={"method": st.column_config.TextColumn(pinned=True)})
    st.caption(f"{words.FIGURES} Measured on {made[0]['device']}.")
    _failures(rows)


def _amount(row: dict[str, Any]) -> str:
    items = f", {row['n_items']:,} questions" if "n_items" in row else ""
    return f"{row['settings']['test_tokens']:,} {row['settings']['part']} tokens of {row['settings']['text']}{items}"


def _failures(rows: list[dict[str, Any]]) -> None:
    for row in (row for row in rows if "error" in row):
        st.warning(f"{row['title']}, {row['n_removed']} blocks: {row['error']}", icon=":material/error:")


def winners(rows: list[dict[str, Any]]) -> list[str]:
    """For every share one sentence: who has the least KL, and whether the best of the other side is told apart from it."""
    said = []
    for length in sorted({row["n_removed"] for row in rows if row["n_removed"]}):
        ranked = sorted((row for row in rows if row["n_removed"] == length), key=lambda row: float(row["kl"]))
        best = ranked[0]
        whose = "a method of the field" if best["group"] == "field" else "a method of this project"
        text = f"**{length} blocks or as many parameters: {best['title']} wins on KL** ({best['kl']:.3f}), {whose}"
        other = next((row for row in ranked if row["group"] != best["group"]), None)
        if other is not None:
            apart = best["kl_high"] is not None and other["kl_low"] is not None and best["kl_high"] < other["kl_low"]
            side = "this project's" if other["group"] == "ours" else "the field's"
            verdict = "the intervals do not overlap" if apart else "the intervals overlap, so that the order is not certain"
            text += f"; the best of {side} here is {other['title']} ({other['kl']:.3f}): {verdict}"
        said.append(f"{text}.")
    return said


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One line per row, the original first, then by share and KL."""
    ordered = sorted(rows, key=lambda row: (row["n_removed"], row.get("kl") or 0.0))
    kept = any(row.get("kept") is not None for row in rows)
    return pd.DataFrame(
        [
            {"method": row["title"], "blocks": f"−{row['n_removed']}" if row["n_removed"] else "", "KL (95 %)": _interval(row, "kl", ".3f")}
            | ({"relative accuracy (95 %)": _interval(row, "kept", ".1%")} if kept else {})
            | {
                "parameters": f"−{abs(row['share_removed']):.1%}" if row["n_removed"] else "",
                "ms/token": f"{row['ms_per_token']:.2f}",
                "seconds": f"{row['seconds']:.1f}" if row["n_removed"] else "",
                "trains": "yes" if row["training"] else "no" if row["n_removed"] else "",
                "perplexity": f"{row['perplexity']:.2f}",
                "MiB": f"{row['bytes'] / 2**20:.1f}",
                "plain model": "yes" if row["plain"] else "no",
                "arXiv": row["arxiv"],
            }
            for row in ordered
        ]
    )


def _interval(row: dict[str, Any], name: str, form: str) -> str:
    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "–"
    return f"{value:{form}}" if low is None or high is None or not row["n_removed"] else f"{value:{form}} [{low:{form}}, {high:{form}}]"
