"""Scores of several models as tables: long (one row per figure) and in the paper's layout (one row per model, one column per task).

CSV is long; LaTeX and Markdown have the paper's layout, in per cent, with the standard error and the accuracy relative to the original's.
"""

import csv
import io
import json
from typing import Any

from replaceme_core.evaluation.scores import PROBE, Scores, average_of, lower_is_better, primary_of

AVERAGE, KEPT = "average", "relative accuracy"


def short(task: str) -> str:
    """The task without its suite's prefix; what the probe asks is said to be written."""
    return f"{task.removeprefix(PROBE)}, written" if task.startswith(PROBE) else task.removeprefix("demo_").removeprefix("own_")


def labels(tasks: list[str]) -> list[str]:
    """Short names, whole ones where two would be the same."""
    names = [short(task) for task in tasks]
    return [name if names.count(name) == 1 else task for task, name in zip(tasks, names, strict=True)]


def share_kept(value: float, original: float | None, metric: str) -> float | None:
    """Share of the original's figure that is left; None for figures that have no zero to measure from, or where less is better."""
    return value / original if original and not lower_is_better(metric) else None


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


def long_rows(systems: dict[str, Scores], original: str | None = None) -> list[dict[str, Any]]:
    """One row per system, task and metric, with n, standard error, settings and the share of the original kept."""
    reference = systems.get(original or "")
    rows = []
    for name, scores in systems.items():
        inside = {task: group for group, tasks in scores.parts.items() for task in tasks}
        for task, metrics in scores.results.items():
            held = scores.tasks.get(task)
            for metric, score in metrics.items():
                base = reference.results.get(task, {}).get(metric) if reference is not None else None
                rows.append(
                    {
                        "system": name,
                        "task": task,
                        "group": inside.get(task, ""),
                        "metric": metric,
                        "value": score.value,
                        "stderr": score.stderr,
                        "n": score.n,
                        "kept": share_kept(score.value, base.value if base else None, metric),
                        "few_shot": held.few_shot if held else None,
                        "truncated_prompts": held.truncated if held else None,
                        "version": held.version if held else None,
                        **{key: scores.settings.get(key) for key in ("limit", "seed", "dtype", "lm_eval", "model_fingerprint")},
                    }
                )
    return rows


def to_csv(systems: dict[str, Scores], original: str | None = None) -> str:
    rows, out = long_rows(systems, original), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["system"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def paper_rows(systems: dict[str, Scores], original: str | None = None) -> tuple[list[str], list[list[str]]]:
    """Head and rows: a system's accuracy in per cent per task with its standard error, the average, and that relative to the original's."""
    tasks = [task for task in common_tasks(systems) if primary_of(next(iter(systems.values())).results[task])]
    means = averages(systems)
    base = means.get(original or "")
    rows = []
    for name, scores in systems.items():
        row = [name, *(_percent(scores, task) for task in tasks)]
        mean = means[name]
        row.append("–" if mean is None else _with_error(mean, average_error(scores, tasks)))
        row.append("–" if mean is None or not base else f"{100 * mean / base:.1f}")
        rows.append(row)
    return ["system", *labels(tasks), AVERAGE, f"{KEPT} %"], rows


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
    cut = {name: sum(c for c, _ in scores.truncated.values()) for name, scores in systems.items() if scores.truncated}
    if cut:
        lines.append("Prompts cut to the model's context: " + ", ".join(f"{name} {count}" for name, count in cut.items()) + ".")
    return "\n".join(lines)


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
    for task in common_tasks(systems):
        counts = {name: next((s.n for s in scores.results[task].values()), 0) for name, scores in systems.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} {value}" for name, value in counts.items())
            found.append(f"{short(task)}: the number of questions differs ({said}); the paired test uses those that both answered.")
    return found


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
