"""Every question that the systems were asked: filtered by task, by who changed the answer and by margin, and read in full."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from ui.benchmarks import words
from ui.look.layout import split
from ui.look.systems import ORIGINAL
from ui.parts.rows import chosen_row

if TYPE_CHECKING:
    from replaceme_core.evaluation.evaluate import Sample, Scores


@dataclass(frozen=True, eq=False)
class Item:
    """One question as every system answered it that was asked."""

    task: str
    samples: "dict[str, Sample]"

    @property
    def first(self) -> "Sample":
        return next(iter(self.samples.values()))


Filter = Callable[["Sample | None", "Sample | None"], bool]
FILTERS: dict[str, tuple[str, Filter]] = {
    "all": ("All questions", lambda _before, _now: True),
    "flips": ("Changed", lambda before, now: before is not None and now is not None and before.correct != now.correct),
    "worse": (
        "Right → wrong",
        lambda before, now: before is not None and now is not None and before.correct is True and now.correct is False,
    ),
    "better": (
        "Wrong → right",
        lambda before, now: before is not None and now is not None and before.correct is False and now.correct is True,
    ),
    "wrong": ("Wrong", lambda _before, now: now is not None and now.correct is False),
}
"""which questions are listed: of the original's answer and of the other system's"""


def items_of(systems: "dict[str, Scores]", tasks: Iterable[str]) -> list[Item]:
    """The questions of these tasks, the answers to one question together: those of one number, filter and, where it is known, content."""
    found = []
    for task in tasks:
        by_number: dict[tuple[int, str], dict[str, dict[str, Sample]]] = {}
        for name, scores in systems.items():
            for sample in scores.samples.get(task, []):
                known = by_number.setdefault((sample.doc_id, sample.filter), {})
                known.setdefault(_content(known, sample.doc_hash), {})[name] = sample
        found += [Item(task, samples) for known in by_number.values() for samples in known.values()]
    return found


def _content(known: Iterable[str], own: str) -> str:
    """The content under which a question is listed: its own, or that of its number where one of the two is not known."""
    contents = list(known)
    if own:
        return "" if "" in contents and own not in contents else own
    return contents[0] if contents else ""


def margin(sample: "Sample") -> float | None:
    """By how many nats the right choice is ahead of the best wrong one; below 0 it is behind. None where there are no choices."""
    if not 0 <= sample.target < len(sample.logliks):
        return None
    wrong = [value for at, value in enumerate(sample.logliks) if at != sample.target]
    return sample.logliks[sample.target] - max(wrong) if wrong else None


def rows_of(items: list[Item], names: list[str], other: str) -> pd.DataFrame:
    """One row per question: what it ends with, the right answer, the margin of `other`, a mark for every system."""
    from replaceme_core.evaluation.tables import short

    marks = {True: "✓", False: "✗", None: "–"}
    return pd.DataFrame(
        [
            {
                "task": short(item.task),
                "no": item.first.doc_id,
                "question": " ".join(item.first.text[-160:].split()),
                "right": " ".join(item.first.right.split()),
                "margin": margin(item.samples[other]) if other in item.samples else None,
                **{name: marks[item.samples[name].correct] if name in item.samples else "" for name in names},
            }
            for item in items
        ]
    )


def browse(systems: "dict[str, Scores]", other: str) -> None:
    """The filters, the list, and the chosen question in full."""
    tasks = list(dict.fromkeys(task for scores in systems.values() for task, samples in scores.samples.items() if samples))
    if not tasks:
        return
    st.markdown("### Read the questions")
    found = _filtered(systems, other, tasks)
    st.caption(f"{len(found):,} questions. {words.ITEMS_HELP.format(other=other)}")
    if not found:
        return
    names = list(systems)
    columns = {
        "task": st.column_config.TextColumn(width=120, pinned=True),
        "no": st.column_config.NumberColumn(width=50),
        "question": st.column_config.TextColumn(width=190),
        "margin": st.column_config.NumberColumn("margin, nats", format="%.2f", width=90, help=words.MARGIN_HELP.format(other=other)),
    }
    picked = chosen_row(rows_of(found, names, other), f"bench_items_{other}_{len(found)}", columns, words.ITEMS_ALT)
    _read(found[picked or 0], names)


def _filtered(systems: "dict[str, Scores]", other: str, tasks: list[str]) -> list[Item]:
    from replaceme_core.evaluation.tables import short

    which, of_tasks, close = split("items", [4, 3, 2], "bottom")
    compared = ORIGINAL in systems and other != ORIGINAL
    offered = [name for name in FILTERS if compared or name in ("all", "wrong")]
    kind = which.segmented_control(
        "Which", offered, format_func=lambda name: FILTERS[name][0], default=offered[1], required=True, wrap=True, key="bench_items_kind"
    )
    chosen = of_tasks.multiselect("Tasks", tasks, format_func=short, placeholder="all tasks", key="flip_tasks")
    nearest = close.number_input(
        "Margin below, nats", 0.0, None, None, 0.5, placeholder="any", key="bench_items_margin", help=words.MARGIN_HELP.format(other=other)
    )
    passes = FILTERS[kind or "all"][1]
    return [
        item
        for item in items_of(systems, chosen or tasks)
        if passes(item.samples.get(ORIGINAL), item.samples.get(other)) and (nearest is None or _is_close(item.samples.get(other), nearest))
    ]


def _is_close(sample: "Sample | None", nearest: float) -> bool:
    found = margin(sample) if sample is not None else None
    return found is not None and abs(found) < nearest


def _read(item: Item, names: list[str]) -> None:
    """The whole prompt, and what every system made of it: the log-likelihood of each choice, or its own words."""
    from replaceme_core.evaluation.tables import short

    sample, answered = item.first, [name for name in names if name in item.samples]
    with st.container(border=True, key="stage_item"):
        st.markdown(f"**{short(item.task)}**, question {sample.doc_id}")
        st.text(sample.text)
        if sample.choices:
            st.table(_choices(item, answered), alt="log-likelihood of every choice by system")
            st.caption(words.LOGLIKS_HELP)
        else:
            st.markdown("Wanted:")
            st.text(sample.right or "–")
            for name in answered:
                st.markdown("Said by a system:")
                st.text(f"{name}: {item.samples[name].given or '–'}")


def _choices(item: Item, names: list[str]) -> pd.DataFrame:
    """A row per choice, a column per system; ► is the system's answer."""
    rows = {}
    for at, choice in enumerate(item.first.choices):
        told = f"{at + 1}. {' '.join(choice.split())}" + (" (right)" if at == item.first.target else "")
        rows[_plain(told)] = {
            _plain(name): (f"{own.logliks[at]:.2f}" if at < len(own.logliks) else "–") + (" ►" if own.answer == at else "")
            for name in names
            if (own := item.samples[name])
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _plain(text: str) -> str:
    """A text without signs that Markdown would read."""
    return "".join(f"\\{sign}" if sign in "*_`[]<>$#~|:\\" else sign for sign in text)
