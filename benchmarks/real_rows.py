"""The rows that benchmarks/real_table.py has made, read: tables in Markdown, what a card of the lesson shows, paired tests."""

from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.real_systems import systems
from plain.tasks import FAMILIES
from replaceme_core.baselines.interface import cut_of
from replaceme_core.comparison.intervals import bracketed
from replaceme_core.evaluation.paired import mcnemar
from replaceme_core.studies.leaderboard.run import read
from replaceme_core.studies.leaderboard.standing import kept

OUT = Path(__file__).resolve().parent / "real_table.jsonl"
MORE = OUT.with_name("real_table_400.jsonl")
"""more questions, fewer methods"""
BEGIN, END = "<!-- real table: python -m benchmarks.real_table readme -->", "<!-- real table end -->"
SHORT = ("paper", "drop", "least_squares", "exchange_refit")
"""rows of the README: the paper's pipeline whole, then nothing, its fit and what the app recommends at the suggested place"""
ORIGINAL = "original"
CHANCE = {
    "arc_challenge": 0.25,
    "boolq": 0.5,
    "copa": 0.5,
    "hellaswag": 0.25,
    "lambada": 0.0,
    "mmlu_cloze": 0.25,
    "piqa": 0.5,
    "winogrande": 0.5,
} | {f"plain_{family}": 1 / choices for family, (_, choices, _) in FAMILIES.items()}
"""what guessing gives, by task: a small model is not far above it, and a share of all right answers then says little"""


def full(path: Path) -> str:
    """Everything that the file says, in Markdown."""
    found = Rows(path)
    return "\n\n".join(part for length in found.lengths for part in (found.about(length), found.of_tasks(length)) if part)


def short(path: Path, more: Path, length: int = 8) -> str:
    """The table of the README: KL of one file, right answers of the other."""
    return "\n".join(Rows(path).in_short(Rows(more), length))


class Rows:
    """The rows of a file, by method, what they are of and depth."""

    def __init__(self, path: Path) -> None:
        rows = [row for row in read(path) if "error" not in row]
        self._by = {(*row["method"].split("|"), row["n_removed"]): row for row in rows}
        self.texts = list(dict.fromkeys(of for _, of, _ in self._by if of not in ("made", "failed", "benchmarks")))
        self.lengths = sorted({length for _, of, length in self._by if of == "made"})

    def shown(self, length: int, more: "Rows") -> dict[str, Any]:
        """The rows that tell the story of one depth, KL as value and interval, five digits each; right answers to the questions of `more`."""
        original = more._by[ORIGINAL, "benchmarks", 0]
        rows = []
        for name in ("paper_drop", "paper", "drop", "least_squares", "refit", "exchange_refit"):
            found = {text: self._by[name, text, length] for text in self.texts}
            kl = {text: [float(f"{row[key]:.5g}") for key in ("kl", "kl_low", "kl_high")] for text, row in found.items()}
            asked, (span,) = more._by[name, "benchmarks", length], cut_of(self._by[name, "made", length]["removed"]).spans
            rows.append({"name": name, "span": str(span), "kl": kl, "right": round(asked["average"], 4)})
        better, worse = _differing(*(more._by[name, "benchmarks", length] for name in ("drop", "exchange_refit")))
        return {
            "made": "python -m benchmarks.real_table lesson",
            "calibration_tokens": self._by[ORIGINAL, self.texts[0], 0]["settings"]["calibration_tokens"],
            "tokens": {text: self._by["drop", text, length]["n_tokens"] for text in self.texts},
            "questions": original["n_items"],
            "tasks": len(original["tasks"]),
            "right": round(original["average"], 4),
            "guessed": round(_guessed(original), 4),
            "p": float(f"{mcnemar(worse, better):.2g}"),
            "rows": rows,
        }

    def in_short(self, more: "Rows", length: int) -> list[str]:
        """KL on each text with its interval, and the right answers to the questions of `more`."""
        titles = {row.name: row.title for row in systems()}
        asked = more._by[ORIGINAL, "benchmarks", 0]
        names = ["method", "blocks removed", *(f"KL, {text}" for text in self.texts), f"right answers of {asked['n_items']:,}"]
        lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        lines.append("| " + " | ".join(["the original", "", *("0" for _ in self.texts), f"{asked['average']:.1%}"]) + " |")
        for name in SHORT:
            texts = [self._by[name, text, length] for text in self.texts]
            kl = [bracketed(row["kl"], row["kl_low"], row["kl_high"], ".2f") for row in texts]
            where = _ranges(self._by[name, "made", length]["removed"])
            lines.append("| " + " | ".join([titles[name], where, *kl, f"{more._by[name, 'benchmarks', length]['average']:.1%}"]) + " |")
        return lines

    def about(self, length: int) -> str:
        """KL and perplexity on each text, and the benchmark average with its paired tests."""
        asked = self._by.get((ORIGINAL, "benchmarks", 0))
        head = ["method", "blocks removed", *(f"KL, {text} [95 %] | perplexity" for text in self.texts)]
        head += ["benchmarks", "kept [95 %]", "kept above chance", "p, removal", "p, least squares"] if asked else []
        names = " | ".join(head)
        lines = [f"### {length} blocks removed", "", f"| {names} | seconds, pass included |", "|---" * (names.count("|") + 2) + "|"]
        lines.append(self._line(ORIGINAL, 0, "the original", length))
        lines += [self._line(row.name, length, row.title, length) for row in systems() if (row.name, "made", length) in self._by]
        return "\n".join(lines)

    def _line(self, name: str, length: int, title: str, depth: int) -> str:
        made = self._by.get((name, "made", length), {})
        where = _ranges(made.get("removed", [])) or ("" if name == ORIGINAL else "none, narrowed")
        cells = [title + (" (trains)" if made.get("training") else ""), where]
        for text in self.texts:
            row = self._by.get((name, text, length))
            cells += [bracketed(row["kl"], row["kl_low"], row["kl_high"], ".3f"), f"{row['perplexity']:.1f}"] if row else ["", ""]
        if (ORIGINAL, "benchmarks", 0) in self._by:
            cells += self._scored(name, length, depth)
        return f"| {' | '.join(cells)} | {made['seconds']:.0f} |" if made else f"| {' | '.join(cells)} | |"

    def _whole(self, depth: int) -> dict[str, Any] | None:
        """The original on the questions that the methods of this depth were asked: of each task the first, as many as any of them."""
        whole = self._by.get((ORIGINAL, "benchmarks", 0))
        asked = [row["answers"] for (name, of, length), row in self._by.items() if of == "benchmarks" and length == depth]
        return shortened(whole, {task: max(len(each[task]) for each in asked) for task in whole["tasks"]}) if whole and asked else whole

    def _scored(self, name: str, length: int, depth: int) -> list[str]:
        whole = self._whole(depth)
        row = whole if name == ORIGINAL else self._by.get((name, "benchmarks", length))
        if row is None or whole is None:
            return [""] * 5
        share = kept(row, whole)
        tested = [_paired(self._by.get((base, "benchmarks", depth)), row) if base != name else "" for base in ("drop", "least_squares")]
        said = bracketed(share["kept"], share["kept_low"], share["kept_high"], ".1%") if share["kept"] is not None else ""
        fewer = f" of {row['n_items']}" if row["n_items"] < whole["n_items"] else ""
        return [f"{row['average']:.1%}{fewer}", said, self._above(row, whole), *(tested if name != ORIGINAL else ["", ""])]

    def _above(self, row: dict[str, Any], whole: dict[str, Any]) -> str:
        """What is left of the original's lead on guessing, on the questions that the row was asked, where guessing is known of every task."""
        if not {task.removeprefix("real_") for task in row["tasks"]} <= set(CHANCE):
            return ""
        guessed, same = _guessed(row), shortened(whole, {task: len(points) for task, points in row["answers"].items()})["average"]
        return f"{(row['average'] - guessed) / (same - guessed):z.0%}" if same > guessed else ""

    def of_tasks(self, length: int) -> str:
        """Share of right answers, a column for every task."""
        whole = self._whole(length)
        rows = [(row.title, self._by.get((row.name, "benchmarks", length))) for row in systems()]
        if whole is None or not any(found for _, found in rows):
            return ""
        tasks = list(whole["tasks"])
        items = ", ".join(f"{task.removeprefix('real_')} {whole['tasks'][task]['n']}" for task in tasks)
        lines = [f"Questions: {items}.", "", "| method | " + " | ".join(task.removeprefix("real_") for task in tasks) + " |"]
        lines.append("|---" * (len(tasks) + 1) + "|")
        for title, found in [("the original", whole), *rows]:
            if found:
                fewer = f" ({found['n_items']} questions)" if found["n_items"] < whole["n_items"] else ""
                lines.append(f"| {title}{fewer} | " + " | ".join(f"{found['tasks'][task]['value']:.1%}" for task in tasks) + " |")
        return "\n".join(lines)


def shortened(row: dict[str, Any], most: dict[str, int]) -> dict[str, Any]:
    """A row of benchmarks as if only the first questions of each task had been asked."""
    answers = {task: points[: most[task]] for task, points in row["answers"].items()}
    tasks = {task: row["tasks"][task] | {"value": fmean(map(float, points)), "n": len(points)} for task, points in answers.items()}
    average, n_items = fmean(task["value"] for task in tasks.values()), sum(task["n"] for task in tasks.values())
    return row | {"answers": answers, "tasks": tasks, "average": average, "n_items": n_items}


def _guessed(row: dict[str, Any]) -> float:
    """The average over the row's tasks that guessing gives."""
    return fmean(CHANCE[task.removeprefix("real_")] for task in row["tasks"])


def _ranges(blocks: list[int]) -> str:
    """1, 2, 3, 7 as 1-3, 7."""
    return (
        ", ".join(str(span.start) if len(span) == 1 else f"{span.start}-{span.end - 1}" for span in cut_of(blocks).spans) if blocks else ""
    )


def _paired(base: dict[str, Any] | None, own: dict[str, Any]) -> str:
    """The exact McNemar test on the questions of all tasks, with the sign of the difference."""
    if base is None:
        return ""
    better, worse = _differing(base, own)
    return f"{'+' if better >= worse else '-'} {mcnemar(worse, better):.2g}"


def _differing(base: dict[str, Any], own: dict[str, Any]) -> tuple[int, int]:
    """Questions that only the second answers rightly, and only the first, of those that both were asked: the first of each task."""
    pairs = [pair for task, bits in own["answers"].items() for pair in zip(base["answers"][task], bits, strict=False)]
    return pairs.count(("0", "1")), pairs.count(("1", "0"))
