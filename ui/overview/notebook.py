"""Recent runs as a notebook of work: the list, one that is opened, and several side by side."""

from datetime import datetime
from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from replaceme_core.plans.methods import in_words
from ui.look.figures import cut_text
from ui.overview import plans
from ui.session.access import access
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.export.runs import RunSummary

MOST = 50


def recent_runs(state: Studio) -> None:
    """What the app and the command line wrote into runs/ and exports/, the newest first. A row that is chosen opens below."""
    from replaceme_core.export import runs

    found = sorted((run for folder in runs.FOLDERS for run in runs.list_runs(folder)), key=lambda run: -run.modified)[:MOST]
    if not found:
        return
    st.markdown("### Recent runs")
    st.caption("Choose a row to open it, or several to see them side by side.")
    event = st.dataframe(
        [_row(run) for run in found],
        hide_index=True,
        key="recent_runs",
        on_select="rerun",
        selection_mode="multi-row",
        column_config={
            "held-out error": st.column_config.TextColumn(
                help="Of the fit, on sequences it did not see. Training after it has no such figure."
            ),
            "KL": st.column_config.TextColumn(
                help="To the original, in nats per token: on test text, or held-out text where only the training measured it."
            ),
        },
    )
    chosen = [found[at] for at in event.selection.rows if at < len(found)]
    if len(chosen) == 1:
        open_run(state, chosen[0])
    elif chosen:
        side_by_side(chosen)


def _row(run: "RunSummary") -> dict[str, str]:
    return {
        "name": run.name,
        "KL": "–" if run.quality is None else f"{run.quality:.4f}",
        "held-out error": "–" if run.healed is not None else f"{run.heldout_error:.1%}",
        "removes": cut_text(run.cut),
        "method": in_words(run.method) + ("" if run.healed is None else ", healed (training)"),
        "when": datetime.fromtimestamp(run.modified).strftime("%Y-%m-%d %H:%M"),
        "folder": str(run.folder),
    }


def figures(run: "RunSummary") -> dict[str, str]:
    """All that is known of a run in figures; '–' where it was not measured."""
    interval = f" [{run.kl_low:.4f}, {run.kl_high:.4f}]" if run.kl_low is not None and run.kl_high is not None else ""
    return {
        "model": run.model or "–",
        **{key: value for key, value in _row(run).items() if key in ("removes", "method", "held-out error", "when")},
        "KL, nats per token [95 %]": "–" if run.kl is None else f"{run.kl:.4f}{interval}",
        "perplexity": "–" if run.perplexity is None else f"{run.perplexity:.3f}",
        "tokens of KL": "–" if run.n_tokens is None else f"{run.n_tokens:,} {run.part or 'held-out'}",
        "average accuracy": "–" if run.average is None else f"{run.average:.1%}",
    }


def open_run(state: Studio, run: "RunSummary") -> None:
    """One run: figures, curve, settings, and the way back into the app."""
    from replaceme_core.export import runs
    from ui.overview import curves  # brings the chart library, which a cold Overview does not wait for

    st.markdown(f"#### {run.name}")
    left, right = st.columns(2)
    left.dataframe([{"": key, "figure": value} for key, value in figures(run).items()], hide_index=True)
    with left:
        curves.draw(runs.curves(run.folder))
    with right:
        try:
            text = runs.plan_text(run.folder)
        except (ReplaceMeError, OSError, UnicodeDecodeError) as error:
            st.caption(str(error))
            return
        st.code(text, language="yaml", height=320)
        if not access().shared:
            plans.show(state, text, str(run.folder), "run_open", run.folder)


def side_by_side(chosen: "list[RunSummary]") -> None:
    """Several runs: their figures, what their plans do not have in common, and their curves in one chart."""
    from replaceme_core.export import runs
    from ui.overview import curves

    st.markdown(f"#### {len(chosen)} runs side by side")
    columns = [figures(run) for run in chosen]
    names = [str(run.folder) for run in chosen]
    st.dataframe(
        [{"": key, **{name: column[key] for name, column in zip(names, columns, strict=True)}} for key in columns[0]], hide_index=True
    )
    differ = runs.differences(run.folder for run in chosen)
    if differ:
        st.markdown("**What their plans do not have in common**")
        rows = [
            {"setting": key, **{name: "–" if value is None else str(value) for name, value in zip(names, values, strict=True)}}
            for key, values in differ.items()
        ]
        st.dataframe(rows, hide_index=True)
    else:
        st.caption("Their plans are the same.")
    curves.draw([curve for run in chosen for curve in runs.curves(run.folder)])
