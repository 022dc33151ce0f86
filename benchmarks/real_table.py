"""Methods x benchmarks on a real language model: docs/results/real_table.md, made from benchmarks/real_table.jsonl.

    python -m benchmarks.real_table run --calibration wikitext2_valid.jsonl --text WikiText-2=wikitext2_test.jsonl --text C4=c4_heldout.jsonl \\
        --tasks FOLDER --limit 150 --blocks 8,6,11
    python -m benchmarks.real_table table
    python -m benchmarks.real_table lesson          # what a card of the lesson shows of it

`run` makes what is not in the file yet and goes on where it was stopped: the figures on text and those on benchmarks are rows of their own, and a
task that was answered is kept in the cache. FOLDER holds tasks in lm-eval's YAML. Without --tasks only the texts are measured. Methods of
ours stand at the suggested place (least distance among those that keep the attention sink); `paper` and its kin at the least distance.
"""

import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from plain.tasks import FAMILIES
from replaceme_core import pipeline
from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.baselines import Pruned
from replaceme_core.baselines.interface import cut_of
from replaceme_core.calibration.calibration import documents, read_file
from replaceme_core.calibration.parts import TextPart
from replaceme_core.cli.bar import Bar
from replaceme_core.comparison import compare
from replaceme_core.comparison.intervals import bracketed
from replaceme_core.errors import Cancelled, ReplaceMeError
from replaceme_core.evaluation.evaluate import evaluate_all
from replaceme_core.evaluation.paired import mcnemar
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ModelSection
from replaceme_core.selection import sinks, spans
from replaceme_core.studies.leaderboard import contestants
from replaceme_core.studies.leaderboard.contestants import Contestant, Setting
from replaceme_core.studies.leaderboard.run import Record, read
from replaceme_core.studies.leaderboard.standing import benchmarks, kept

OUT = Path(__file__).resolve().parent / "real_table.jsonl"
MORE = OUT.with_name("real_table_400.jsonl")
"""more questions, fewer methods"""
LESSON = OUT.parent.parent / "assets" / "lesson" / "smollm2" / "quality.json"
HEALED_TOKENS = 512
"""of a step of healing: four times as many take more than an hour for this model on one core"""
GROUP = 4
"""models that are asked at once: what they share is run once"""
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


def least(setting: Setting, n_blocks: int) -> Span:
    """The paper's choice: least cosine distance, whatever it does to a sink."""
    return spans.best(setting.measured.distances["all"], n_blocks)


def _own(name: str, title: str, method: str, where: Any) -> Contestant:
    return Contestant(name, title, "ours", "", "", "", contestants.of_method(method, where))


def systems() -> list[Contestant]:
    """The leaderboard's, and the paper's pipeline whole: its place as well as its fit."""
    two = _own(
        "two_spans", "two spans, weighted least squares", "weighted_least_squares",
        lambda setting, n: spans.several(sinks.kept(setting.measured), n, 2),
    )  # fmt: skip
    paper = [
        _own("paper_drop", "removed at the least distance", "drop", least),
        _own("paper", "the paper's place and least squares", "least_squares", least),
        _own("paper_cosine", "the paper's place and cosine", "cosine", least),
    ]
    ours, field = ([row for row in contestants.find(None) if row.group == group] for group in ("ours", "field"))
    after = [
        replace(
            _own(f"{name}_healed", f"{title}, healed", name, contestants.place),
            make=contestants.healed(name, HEALED_TOKENS), training=True, optional=True,
        )
        for name, title in (("drop", "removed"), ("least_squares", "least squares"), ("local_refit", "refit around the cut"))
    ]  # fmt: skip
    return [*ours, *paper, two, *field, *after]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--model", default="smollm2", show_default=True)
@click.option("--calibration", "source", default="smollm2:prose", show_default=True, help="A file, or a source of the library.")
@click.option("--tokens", default=17408, show_default=True, help="Of train and held-out part: ten for each unknown of a refit of SmolLM2.")
@click.option("--text", "texts", multiple=True, help="NAME=FILE, several times: KL and perplexity are measured on each.")
@click.option("--test-tokens", default=4096, show_default=True, help="Of each text.")
@click.option("--tasks", default="", help="As in a plan, such as a folder of lm-eval YAML tasks.")
@click.option("--limit", default=150, show_default=True, help="Questions a task, the first ones.")
@click.option("--blocks", default="8,6,11", show_default=True, help="To remove.")
@click.option("--methods", default="", help="Names separated by commas; default: all but the healed ones.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def run(
    model: str,
    source: str,
    tokens: int,
    texts: tuple[str, ...],
    test_tokens: int,
    tasks: str,
    limit: int,
    blocks: str,
    methods: str,
    out: Path,
) -> None:
    """Makes the rows that are not in the file yet."""
    bar = Bar()
    handle = loading.load(ModelSection(path=model), bar)
    calibration = pipeline.prepare_for(handle, CalibrationSection(source=source, max_tokens=tokens))
    measured = measure(handle, calibration, progress=bar)
    setting = Setting(handle, calibration, measured)
    parts = [text_of(handle, said, test_tokens) for said in texts]
    section = EvaluationSection(tasks=tasks, limit=limit) if tasks else None
    shared = {
        "model_fingerprint": handle.fingerprint,
        "calibration_fingerprint": calibration.fingerprint,
        "calibration_tokens": calibration.n_tokens,
    }
    record = Record(out, shared)
    chosen = [row for row in systems() if (row.name in methods.split(",") if methods else not row.optional)]
    for length in map(int, blocks.split(",")):
        wanted = {row.name: _missing(record, row.name, length, parts, section) for row in chosen}
        missing = [row for row in chosen if wanted[row.name]]
        for first in range(0, len(missing), GROUP):
            group = missing[first : first + GROUP]
            made = _made(setting, length, group, record, bar)
            for part in parts:
                named = [(name, pruned) for name, pruned in made if part.name in wanted[name]]
                _on_text(handle, part, named, length, record, bar)
            if section is not None and made:
                _on_benchmarks(handle, section, made, length, record, bar)
    bar.close()


def text_of(handle: ModelHandle, said: str, n_tokens: int) -> TextPart:
    name, _, path = said.partition("=")
    return documents(handle.tokenizer, n_tokens, read_file(Path(path), tokenizer=handle.tokenizer), name)


def _key(name: str, of: str) -> str:
    """A row of the file stands for one method, one depth, and one text or the benchmarks."""
    return f"{name}|{of}"


def _missing(record: Record, name: str, length: int, parts: list[TextPart], section: EvaluationSection | None) -> list[str]:
    of = [part.name for part in parts] + (["benchmarks"] if section is not None else [])
    return [each for each in of if record.done(_key(name, each), length) is None]


def _made(setting: Setting, length: int, group: list[Contestant], record: Record, bar: Bar) -> list[tuple[str, Pruned]]:
    found = []
    for row in group:
        try:
            pruned = row.make(setting, length, bar)
        except Cancelled:
            raise
        except ReplaceMeError as error:
            record.add({"method": _key(row.name, "failed"), "n_removed": length, "error": str(error)})
            continue
        if record.done(_key(row.name, "made"), length) is None:
            facts = {"removed": list(pruned.removed), "seconds": pruned.seconds, "notes": list(pruned.notes), "training": pruned.training}
            record.add({"method": _key(row.name, "made"), "n_removed": length, "parameters_removed": pruned.n_parameters_removed} | facts)
        found.append((row.name, pruned))
    return found


def _on_text(handle: ModelHandle, part: TextPart, made: list[tuple[str, Pruned]], length: int, record: Record, bar: Bar) -> None:
    if not made:
        return
    original, *rows = compare.divergence(handle, [pruned.handle for _, pruned in made], part, bar)
    if record.done(_key(ORIGINAL, part.name), 0) is None:
        record.add({"method": _key(ORIGINAL, part.name), "n_removed": 0} | asdict(original))
    for (name, _), row in zip(made, rows, strict=True):
        record.add({"method": _key(name, part.name), "n_removed": length} | asdict(row))


def _on_benchmarks(
    handle: ModelHandle, section: EvaluationSection, made: list[tuple[str, Pruned]], length: int, record: Record, bar: Bar
) -> None:
    """The original's answers are kept, so that it is asked once."""
    names = [(ORIGINAL, 0), *((name, length) for name, _ in made)]
    for (name, removed), scores in zip(names, evaluate_all([handle, *(pruned.handle for _, pruned in made)], section, bar), strict=True):
        if isinstance(scores, ReplaceMeError):
            record.add({"method": _key(name, "benchmarks"), "n_removed": removed, "error": str(scores)})
        elif record.done(_key(name, "benchmarks"), removed) is None:
            record.add({"method": _key(name, "benchmarks"), "n_removed": removed} | benchmarks(scores))


@main.command()
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def table(out: Path) -> None:
    """The tables in Markdown: one of all methods for each number of blocks, and one of the tasks."""
    click.echo(full(out))


@main.command()
@click.option("--source", default=OUT, show_default=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--blocks", default=8, show_default=True)
@click.option("--out", default=LESSON, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def lesson(source: Path, blocks: int, out: Path) -> None:
    """Writes what the lesson shows of the table: two places, four fits, two texts, the share of right answers, and what more questions say."""
    shown = Rows(source).shown(blocks) | {"more": Rows(MORE).answered(blocks)}
    out.write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")


def full(path: Path) -> str:
    """Everything that the file says, in Markdown."""
    found = Rows(path)
    return "\n\n".join(part for length in found.lengths for part in (found.about(length), found.of_tasks(length)) if part)


class Rows:
    """The rows of a file, by method, what they are of and depth."""

    def __init__(self, path: Path) -> None:
        rows = [row for row in read(path) if "error" not in row]
        self._by = {(*row["method"].split("|"), row["n_removed"]): row for row in rows}
        self.texts = list(dict.fromkeys(of for _, of, _ in self._by if of not in ("made", "failed", "benchmarks")))
        self.lengths = sorted({length for _, of, length in self._by if of == "made"})

    def shown(self, length: int) -> dict[str, Any]:
        """The rows that tell the story of one depth, KL as value and interval, five digits each."""
        original = self._by[ORIGINAL, "benchmarks", 0]
        rows = []
        for name in ("paper_drop", "paper", "drop", "least_squares", "refit", "local_refit"):
            found = {text: self._by[name, text, length] for text in self.texts}
            kl = {text: [float(f"{row[key]:.5g}") for key in ("kl", "kl_low", "kl_high")] for text, row in found.items()}
            asked, (span,) = self._by[name, "benchmarks", length], cut_of(self._by[name, "made", length]["removed"]).spans
            rows.append({"name": name, "span": str(span), "kl": kl, "right": round(asked["average"], 4)})
        return {
            "made": "python -m benchmarks.real_table lesson",
            "calibration_tokens": original["settings"]["calibration_tokens"],
            "tokens": {text: self._by["drop", text, length]["n_tokens"] for text in self.texts},
            "questions": original["n_items"],
            "tasks": len(original["tasks"]),
            "right": round(original["average"], 4),
            "guessed": round(_guessed(original), 4),
            "rows": rows,
        }

    def answered(self, length: int) -> dict[str, Any]:
        """Whether a refit around the cut answers more than removal does."""
        removed, own = (self._by[name, "benchmarks", length] for name in ("drop", "local_refit"))
        better, worse = _differing(removed, own)
        shares = {name: round(row["average"], 4) for name, row in (("drop", removed), ("local_refit", own))}
        return {"questions": own["n_items"], "p": float(f"{mcnemar(worse, better):.2g}")} | shares

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

    def _scored(self, name: str, length: int, depth: int) -> list[str]:
        row = self._by.get((name, "benchmarks", length))
        if row is None:
            return [""] * 5
        share = kept(row, self._by[ORIGINAL, "benchmarks", 0])
        tested = [_paired(self._by.get((base, "benchmarks", depth)), row) if base != name else "" for base in ("drop", "least_squares")]
        said = bracketed(share["kept"], share["kept_low"], share["kept_high"], ".1%") if share["kept"] is not None else ""
        return [f"{row['average']:.1%}", said, self._above(row), *(tested if name != ORIGINAL else ["", ""])]

    def _above(self, row: dict[str, Any]) -> str:
        """What is left of the original's lead on guessing, where that is known of every task."""
        if not {task.removeprefix("real_") for task in row["tasks"]} <= set(CHANCE):
            return ""
        guessed = _guessed(row)
        return f"{(row['average'] - guessed) / (self._by[ORIGINAL, 'benchmarks', 0]['average'] - guessed):.0%}"

    def of_tasks(self, length: int) -> str:
        """Share of right answers, a column for every task."""
        whole = self._by.get((ORIGINAL, "benchmarks", 0))
        rows = [(row.title, self._by.get((row.name, "benchmarks", length))) for row in systems()]
        if whole is None or not any(found for _, found in rows):
            return ""
        tasks = list(whole["tasks"])
        items = ", ".join(f"{task.removeprefix('real_')} {whole['tasks'][task]['n']}" for task in tasks)
        lines = [f"Questions: {items}.", "", "| method | " + " | ".join(task.removeprefix("real_") for task in tasks) + " |"]
        lines.append("|---" * (len(tasks) + 1) + "|")
        for title, found in [("the original", whole), *rows]:
            if found:
                lines.append(f"| {title} | " + " | ".join(f"{found['tasks'][task]['value']:.1%}" for task in tasks) + " |")
        return "\n".join(lines)


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
    """Questions that only the second answers rightly, and only the first."""
    pairs = [pair for task, bits in own["answers"].items() for pair in zip(base["answers"][task], bits, strict=True)]
    return pairs.count(("0", "1")), pairs.count(("1", "0"))


if __name__ == "__main__":
    main()
