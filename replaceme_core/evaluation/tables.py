"""Scores of several models as tables: long (one row per figure) and in the paper's layout (one row per model, one column per task).

CSV is long; LaTeX and Markdown have the paper's layout, in per cent, with the standard error and the accuracy relative to the original's.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from replaceme_core.evaluation.scores import PROBE, Score, Scores, TaskScores, average_of, primary_of

AVERAGE, KEPT, RELATIVE = "average", "kept", "relative accuracy, %"
TOLD = ("apply_chat_template", "fewshot_as_multiturn", "system_instruction")
"""how a question is put"""


def short(task: str) -> str:
    """The task without its suite's prefix; what the probe asks is said to be generated."""
    return f"{task.removeprefix(PROBE)}, generated" if task.startswith(PROBE) else re.sub("^(demo|plain|own)_", "", task)


def labels(tasks: list[str]) -> list[str]:
    """Short names, whole ones where two would be the same."""
    names = [short(task) for task in tasks]
    return [name if names.count(name) == 1 else task for task, name in zip(tasks, names, strict=True)]


def share_kept(value: float, original: float | None, less_is_better: bool) -> float | None:
    """Share of the original's figure that is left; None for figures that have no zero to measure from, or where less is better."""
    return value / original if original and not less_is_better else None


def common_tasks(systems: dict[str, Scores]) -> list[str]:
    """Tasks that every system has a result of, in the order of the first."""
    first, *rest = systems.values()
    return [task for task in first.shown if all(task in other.results for other in rest)]


def averages(systems: dict[str, Scores]) -> dict[str, float | None]:
    """Mean accuracy over the tasks that all systems have, so that the averages compare."""
    tasks = set(common_tasks(systems))
    found = {}
    for name, scores in systems.items():
        results = {task: metrics for task, metrics in scores.results.items() if task in tasks}
        found[name] = average_of(Scores(name, results, None, {}))
    return found


def average_error(scores: Scores, tasks: list[str]) -> float | None:
    """Standard error of the average: tasks are independent samples."""
    errors = [score.stderr for task in tasks if not task.startswith(PROBE) and (score := scores.primary(task)) is not None]
    if not errors or any(error is None for error in errors):
        return None
    return float(sum(error**2 for error in errors if error is not None) ** 0.5 / len(errors))


@dataclass(frozen=True)
class System:
    """One system of a table: its scores, its average and the original's over the tasks that all have."""

    name: str
    scores: Scores
    tasks: list[str]
    average: float | None
    original: float | None
    quality: Any = None
    """`perplexity` and `kl` on held-out text, where they were measured"""


@dataclass(frozen=True)
class Figure:
    """One figure of a system: a metric of a task; `kept` is the share of the original's."""

    system: System
    task: str
    metric: str
    score: Score
    group: str
    kept: float | None

    @property
    def settings(self) -> TaskScores | None:
        return self.system.scores.tasks.get(self.task)


@dataclass(frozen=True)
class Column:
    """A column: its name, its value, and how it is written. To add one is to add a record.

    One of a `figure` stands in the table of all figures (CSV, and on the page). One of a `system` stands in the paper's layout (page,
    LaTeX, Markdown) and, beside every figure of that system, in the table of all figures too, unless `long` is False.
    """

    name: str
    figure: Callable[[Figure], Any] | None = None
    system: Callable[[System], Any] | None = None
    written: Callable[[Any, System], str] = lambda value, _: str(value)
    long: bool = True
    optional: bool = False
    """left out where no system has it"""


def _setting(key: str) -> Column:
    return Column(key, lambda row: row.system.scores.settings.get(key))


COLUMNS = (
    Column("system", lambda row: row.system.name, lambda system: system.name),
    Column("task", lambda row: row.task),
    Column("group", lambda row: row.group),
    Column("metric", lambda row: row.metric),
    Column("value", lambda row: row.score.value),
    Column("stderr", lambda row: row.score.stderr),
    Column("n", lambda row: row.score.n),
    Column(KEPT, lambda row: row.kept),
    Column("few_shot", lambda row: row.settings.few_shot if row.settings else None),
    Column("truncated_prompts", lambda row: row.settings.truncated if row.settings else None),
    Column("version", lambda row: row.settings.version if row.settings else None),
    *map(_setting, ("limit", "seed", "dtype", "lm_eval", "model_fingerprint", *TOLD)),
    Column(
        AVERAGE, system=lambda system: system.average, long=False,
        written=lambda mean, system: _with_error(mean, average_error(system.scores, system.tasks)),
    ),
    Column(
        RELATIVE, system=lambda system: system.average / system.original if system.average is not None and system.original else None,
        written=lambda share, _: f"{100 * share:.1f}", long=False,
    ),
    Column(
        "perplexity", system=lambda system: system.quality and system.quality.perplexity, written=lambda value, _: f"{value:.2f}",
        long=False, optional=True,
    ),
    Column(
        "KL", system=lambda system: system.quality and system.quality.kl, written=lambda value, _: f"{value:.3f}", long=False, optional=True
    ),
)  # fmt: skip
"""tasks stand between the system and the other columns of the paper's layout"""


def _systems(systems: dict[str, Scores], original: str | None, quality: Mapping[str, Any]) -> list[System]:
    tasks = [task for task in common_tasks(systems) if primary_of(next(iter(systems.values())).results[task])] if systems else []
    means = averages(systems) if systems else {}
    base = means.get(original or "")
    return [System(name, scores, tasks, means[name], base, quality.get(name)) for name, scores in systems.items()]


def long_rows(systems: dict[str, Scores], original: str | None = None) -> list[dict[str, Any]]:
    """One row per system, task and metric, with n, standard error, settings and the share of the original kept."""
    reference = systems.get(original or "")
    rows = []
    for system in _systems(systems, original, {}):
        inside = {task: group for group, tasks in system.scores.parts.items() for task in tasks}
        for task, metrics in system.scores.results.items():
            for metric, score in metrics.items():
                base = reference.results.get(task, {}).get(metric) if reference is not None else None
                kept = share_kept(score.value, base.value if base else None, system.scores.less_is_better(task, metric))
                figure = Figure(system, task, metric, score, inside.get(task, ""), kept)
                rows.append({column.name: _long(column, figure) for column in COLUMNS if column.figure or column.long})
    return rows


def _long(column: Column, figure: Figure) -> Any:
    if column.figure is not None:
        return column.figure(figure)
    return column.system(figure.system) if column.system is not None else None


def to_csv(systems: dict[str, Scores], original: str | None = None) -> str:
    rows, out = long_rows(systems, original), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["system"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def paper_rows(
    systems: dict[str, Scores], original: str | None = None, quality: Mapping[str, Any] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Head and rows: a system's accuracy in per cent per task with its standard error, then the columns of the system.

    `quality`: perplexity and KL on held-out text by system, where they were measured.
    """
    found = _systems(systems, original, quality or {})
    first, *others = (column for column in COLUMNS if column.system is not None)
    shown = [column for column in others if not column.optional or any(_value(column, system) is not None for system in found)]
    rows = [
        [
            _written(first, system),
            *(_percent(system.scores, task) for task in system.tasks),
            *(_written(column, system) for column in shown),
        ]
        for system in found
    ]
    return [first.name, *labels(found[0].tasks), *(column.name for column in shown)], rows


def ends(head: list[str]) -> list[str]:
    """Those columns of a head of `paper_rows` that are of the whole system."""
    return [column.name for column in COLUMNS[1:] if column.system is not None and column.name in head]


def _value(column: Column, system: System) -> Any:
    return None if column.system is None else column.system(system)


def _written(column: Column, system: System) -> str:
    value = _value(column, system)
    return "–" if value is None else column.written(value, system)


def to_markdown(systems: dict[str, Scores], original: str | None = None) -> str:
    head, rows = paper_rows(systems, original)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{table}\n\n{notes(systems)}\n"


def to_latex(systems: dict[str, Scores], original: str | None = None) -> str:
    """A `tabular` for the package booktabs, with the settings as a comment."""
    head, rows = paper_rows(systems, original)
    lines = [" & ".join(_tex(cell) for cell in line) + r" \\" for line in [head, *rows]]
    body = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*(f"% {line}" for line in notes(systems).splitlines()), *body]) + "\n"


def notes(systems: dict[str, Scores]) -> str:
    """What the figures were measured with, one line per kind of setting."""
    first = next(iter(systems.values()))
    n = {task: next((s.n for s in first.results[task].values()), 0) for task in common_tasks(systems)}
    shots = {short(task): k for task, k in first.settings.get("few_shot", {}).items() if task in n and k}
    lines = [
        "Accuracy in per cent, ± one standard error; average over tasks, a group counts once.",
        f"Questions: {_counts(n)}.",
        "Few-shot examples before each question: " + (", ".join(f"{task} {k}" for task, k in shots.items()) or "none") + ".",
        f"lm-eval {first.settings.get('lm_eval')}, limit {first.settings.get('limit') or 'none'}, seed {first.settings.get('seed')}.",
    ]
    lines += _told(first)
    cut = {name: sum(c for c, _ in scores.truncated.values()) for name, scores in systems.items() if scores.truncated}
    if cut:
        lines.append("Prompts cut to the model's context: " + ", ".join(f"{name} {count}" for name, count in cut.items()) + ".")
    return "\n".join(lines)


def _told(scores: Scores) -> list[str]:
    """How the questions were put, where it was not as plain text."""
    chat, turns, system = (scores.settings.get(key) for key in TOLD)
    said = (
        f"Asked in the model's chat template; few-shot examples {'as turns of their own' if turns else 'in one message'}." if chat else ""
    )
    return [line for line in (said, f"System instruction: {system}" if system else "") if line]


def _counts(n: dict[str, int]) -> str:
    """'40 of each task', or every task with its own number."""
    if len(set(n.values())) == 1:
        return f"{next(iter(n.values()))} of each task"
    return ", ".join(f"{short(task)} {count:,}" for task, count in n.items())


FORMATS = {".csv": to_csv, ".tex": to_latex, ".md": to_markdown}


def unequal(systems: dict[str, Scores]) -> list[str]:
    """Sentences about settings that differ between systems, so that their figures do not compare."""
    found = []
    for key, word in (("few_shot", "number of few-shot examples"), ("versions", "version of the task")):
        for task in common_tasks(systems):
            values = {name: scores.settings.get(key, {}).get(task) for name, scores in systems.items()}
            if len({json.dumps(value) for value in values.values() if value is not None}) > 1:
                said = ", ".join(f"{name} {value}" for name, value in values.items())
                found.append(f"{short(task)}: the {word} differs ({said}), so that the figures do not compare.")
    for key, word in zip(TOLD, ("use of the chat template", "form of the few-shot examples", "system instruction"), strict=True):
        told = {name: scores.settings.get(key) for name, scores in systems.items() if key in scores.settings}
        if len({json.dumps(value) for value in told.values()}) > 1:
            said = ", ".join(f"{name}: {_yes(value)}" for name, value in told.items())
            found.append(f"The {word} differs ({said}), so that the figures do not compare.")
    for task in common_tasks(systems):
        counts = {name: next((s.n for s in scores.results[task].values()), 0) for name, scores in systems.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} {value}" for name, value in counts.items())
            found.append(f"{short(task)}: the number of questions differs ({said}); the paired test uses those that both answered.")
    return found


def _yes(value: Any) -> str:
    return {True: "yes", False: "no", None: "none"}.get(value, str(value))


def doubtful_average(scores: Scores, tasks: list[str]) -> str | None:
    """A warning where a limit leaves so few questions that the average says little: more than 2 points to either side at 95 %."""
    error = average_error(scores, tasks)
    asked = {task: scores.tasks[task] for task in tasks if task in scores.tasks}
    cut = [task for task, held in asked.items() if held.n_all > next((s.n for s in held.metrics.values()), 0)]
    if not cut or error is None or 1.96 * error <= 0.02:
        return None
    return (
        f"The limit leaves few questions: the average is known to ±{196 * error:.1f} points only (95 %), so that smaller differences say "
        f"nothing. {len(cut)} of {len(asked)} tasks were not asked in full; lm-eval takes the first questions, not a random choice."
    )


def _percent(scores: Scores, task: str) -> str:
    score = scores.primary(task)
    return "–" if score is None else _with_error(score.value, score.stderr)


def _with_error(value: float, stderr: float | None) -> str:
    return f"{100 * value:.1f}" + ("" if stderr is None else f" ± {100 * stderr:.1f}")


def _tex(cell: str) -> str:
    for sign in ("\\", "&", "%", "$", "#", "_", "{", "}"):
        cell = cell.replace(sign, r"\textbackslash{}" if sign == "\\" else f"\\{sign}")
    return cell.replace("±", r"$\pm$").replace("–", "--")
