"""Scores as files: downloads of what the page shows, and results of lm-eval from elsewhere to set beside them."""

import io
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from ui.benchmarks import words
from ui.benchmarks.jobs import imported
from ui.look.systems import ORIGINAL
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.evaluation.evaluate import Scores


def files(state: Studio, systems: "dict[str, Scores]") -> None:
    """Take the figures with you, or bring some from a cluster."""
    with st.expander("Files: take these scores with you, or set scores from elsewhere beside them", icon=":material/folder_open:"):
        if systems:
            _downloads(systems)
        _bring(state)


def _downloads(systems: "dict[str, Scores]") -> None:
    from replaceme_core.evaluation import tables

    kinds: list[tuple[str, str, Callable[[], str | bytes]]] = [
        ("CSV, every figure", "scores.csv", lambda: tables.to_csv(systems, ORIGINAL)),
        ("LaTeX", "scores.tex", lambda: tables.to_latex(systems, ORIGINAL)),
        ("Markdown", "scores.md", lambda: tables.to_markdown(systems, ORIGINAL)),
        ("lm-eval JSON (zip)", "scores.zip", lambda: _zip(systems)),
    ]
    for column, (label, name, make) in zip(st.columns(len(kinds)), kinds, strict=True):
        column.download_button(label, make, name, on_click="ignore", width="stretch", icon=":material/download:", key=f"save_{name}")


def _zip(systems: "dict[str, Scores]") -> bytes:
    """One folder per system, as lm-eval's --output_path writes them."""
    from replaceme_core.evaluation import harness_files

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, scores) in enumerate(systems.items(), start=1):
            folder = f"{number}_" + "".join(sign if sign.isalnum() else "_" for sign in name)
            for file, text in harness_files.to_files(scores).items():
                archive.writestr(f"{folder}/{file}", text)
    return out.getvalue()


def _bring(state: Studio) -> None:
    from replaceme_core.evaluation import harness_files

    given = st.file_uploader(
        "Scores from elsewhere", type=["json", "jsonl"], accept_multiple_files=True, key="bench_import", help=words.IMPORT_HELP
    )
    results = [file for file in given or [] if file.name.endswith(".json")]
    samples = {file.name: file.getvalue() for file in given or [] if file.name.endswith(".jsonl")}
    if samples and not results:
        st.caption("Add the results_*.json that belongs to these samples.")
    if results and st.button(f"Set {len(results)} beside these", icon=":material/add:"):
        for file in results:
            stem = file.name.removesuffix(".json").removeprefix("results_")
            own = {name: data for name, data in samples.items() if len(results) == 1 or name.endswith(f"_{stem}.jsonl")}
            scores = harness_files.from_files(file.name, file.getvalue(), own)
            imported(state)[f"file: {scores.model}" + ("" if len(results) == 1 else f", {stem}")] = scores
        st.rerun()
    for name, scores in list(imported(state).items()):
        said, button = st.columns([5, 1], vertical_alignment="center")
        items = sum(map(len, scores.samples.values()))
        said.caption(f"**{name}** · {len(scores.shown)} tasks · " + (f"{items:,} answers" if items else "no samples, so no paired test"))
        if button.button("Remove", key=f"drop_{name}"):
            del imported(state)[name]
            st.rerun()
