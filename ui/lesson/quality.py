"""The card on a real model: where its blocks go and what stands in for them, as measured for docs/results/real_table.md."""

import json
from functools import cache
from typing import Any

import streamlit as st

from replaceme_core.span import Span
from ui.lesson import words
from ui.lesson.charts import Bar, bars, bars_words
from ui.lesson.data import FOLDER, REAL, Traces, traces
from ui.lesson.parts import lead
from ui.look.figures import span_text
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.ruler import ruler
from ui.parts.chart import show
from ui.session.state import Studio

_TONES = {"paper_drop": "cut", "drop": "cut"}


@cache
def measured() -> dict[str, Any]:
    """The bundled figures; read once per process."""
    found: dict[str, Any] = json.loads((FOLDER / REAL / "quality.json").read_text(encoding="utf-8"))
    return found


def quality(_state: Studio, _traces: Traces) -> None:
    """Of the real model, whatever the switch says: a small one has no attention sink to lose."""
    found = measured()
    rows = {row["name"]: row for row in found["rows"]}
    nearest, suggested = (Span(*map(int, rows[name]["span"].split(":"))) for name in ("paper", "drop"))
    n_blocks = traces(REAL).stream.n_blocks
    said, picture = split("card", [2, 3])
    with picture:
        text = st.segmented_control(
            "Measured on",
            list(found["tokens"]),
            format_func=words.TEXTS.get,
            default=next(iter(found["tokens"])),
            required=True,
            wrap=True,
            key="lesson_quality_text",
            persist_state="session",
        ) or next(iter(found["tokens"]))  # fmt: skip
        kl = {name: row["kl"][text] for name, row in rows.items()}
        shown = [
            Bar(f"{span_text(place)}: {words.STAND_INS[name]}", *kl[name], _TONES.get(name, "pruned"), f"{rows[name]['right']:.1%} right")
            for name, place in ((name, nearest if name.startswith("paper") else suggested) for name in rows)
        ]
        show(bars(shown, palette(), row_height=46, letter=0.022), alt=bars_words(shown))
        st.caption(
            f"SmolLM2-135M-Instruct, fitted on {found['calibration_tokens']:,} tokens of WikiText-2, measured on {found['tokens'][text]:,} others; lines: "
            f"95 %. Right: of {found['questions']:,} questions of {found['tasks']} public benchmarks; the original {found['right']:.1%}, guessing "
            f"{found['guessed']:.1%}."
        )
    with said:
        lead(11, blocks=words.number(len(suggested)).capitalize(), of=words.number(n_blocks))
        st.markdown("**1. Where?** " + words.SINK.format(nearest=span_text(nearest).capitalize(), first=nearest.start))
        for place, why in ((nearest, "least distance"), (suggested, "least distance that keeps the sink")):
            name = f"{span_text(place)}: {why}"
            ruler(n_blocks, place.blocks, name, compact=True)
            st.caption(name)
        figures = {name: kl[name][0] for name in ("drop", "least_squares", "refit", "exchange_refit", "paper")}
        st.markdown("**2. What instead?** " + words.INSTEAD.format(there=span_text(suggested), **figures))
        st.markdown("**3. And the answers?** " + words.ANSWERS.format(p=found["p"], **{name: row["right"] for name, row in rows.items()}))
