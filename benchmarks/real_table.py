"""Methods x benchmarks on a real language model: docs/results/real_table.md, made from benchmarks/real_table.jsonl.

    python -m benchmarks.real_table run --calibration wikitext2_valid.jsonl --text WikiText-2=wikitext2_test.jsonl --text C4=c4_heldout.jsonl \\
        --tasks FOLDER --limit 150 --blocks 8,6,11
    python -m benchmarks.real_table table
    python -m benchmarks.real_table lesson          # what a card of the lesson shows of it
    python -m benchmarks.real_table readme          # the five rows in README.md

`run` makes what is not in the file yet and goes on where it was stopped: the figures on text and those on benchmarks are rows of their own, and a
task that was answered is kept in the cache. FOLDER holds tasks in lm-eval's YAML. Without --tasks only the texts are measured. Methods of
ours stand at the suggested place (least distance among those that keep the attention sink); `paper` and its kin at the least distance.
"""

import json
import os
import re

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.leaderboard import README
from benchmarks.real_rows import BEGIN, END, MORE, ORIGINAL, OUT, Rows, full, short
from benchmarks.real_systems import systems
from replaceme_core import pipeline
from replaceme_core.artifacts import ModelHandle
from replaceme_core.baselines import Pruned
from replaceme_core.calibration.calibration import documents, read_file
from replaceme_core.calibration.parts import TextPart
from replaceme_core.cli.bar import Bar
from replaceme_core.comparison import compare
from replaceme_core.errors import Cancelled, ReplaceMeError
from replaceme_core.evaluation.evaluate import evaluate_all
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ModelSection
from replaceme_core.studies.leaderboard.contestants import Contestant, Setting
from replaceme_core.studies.leaderboard.run import Record
from replaceme_core.studies.leaderboard.standing import benchmarks

LESSON = OUT.parent.parent / "assets" / "lesson" / "smollm2" / "quality.json"
GROUP = 4
"""models that are asked at once: what they share is run once"""


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
    if tasks.startswith("probe"):
        raise click.BadParameter(
            "A row is of tasks that have an average, which the generative probe has not; `replaceme evaluate` asks it.",
            param_hint="--tasks",
        )
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
    """Writes what the lesson shows of the table: two places, four fits, two texts, the share of right answers to the most questions."""
    out.write_text(json.dumps(Rows(source).shown(blocks, Rows(MORE)), indent=1) + "\n", encoding="utf-8")


@main.command()
def readme() -> None:
    """Writes five rows between the marks of README.md."""
    old = README.read_text(encoding="utf-8")
    README.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{short(OUT, MORE)}\n{END}", old, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
