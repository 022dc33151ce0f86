"""Measure a model on the plain suite, beside two controls: `python -m plain.measure --model FOLDER --write`.

Controls, item by item: the right answer's number is another item's (labels in another order), and the question is another item's (the
model sees the same choices after a question that has nothing to do with them). Finished tasks are kept, so that a run goes on.
"""

import argparse
import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plain.tasks import CHOICE_TASK, FAMILIES, SEED, Item, items

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "plain_suite.md"
_MARKS = ("<!-- measured -->\n", "<!-- end -->\n")


@dataclass(frozen=True)
class Row:
    """One family. Shares of n items; `p`: exact McNemar test of the items against those of either control."""

    family: str
    n: int
    chance: float
    acc: float
    acc_norm: float
    relabelled: float
    misplaced: float
    p_relabelled: float
    p_misplaced: float

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of acc_norm."""
        return wilson(self.acc_norm, self.n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n (Wilson 1927)."""
    z = 1.959964
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def moved(count: int, seed: str) -> list[int]:
    """An order of `count` items in which none keeps its place."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return [order[(order.index(place) + 1) % count] for place in range(count)]


def misplaced(family: str) -> list[Item]:
    """The family's items, each with the question of another."""
    own = items(family)
    order = moved(len(own), f"{SEED}/{family}/questions")
    return [Item(own[order[place]].question, item.choices, item.answer) for place, item in enumerate(own)]


def write_control(folder: Path) -> None:
    """The families with misplaced questions as a folder of tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        rows = [{"question": item.question, "choices": item.choices, "answer": item.answer} for item in misplaced(family)]
        (folder / f"{family}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task = CHOICE_TASK.format(family=family, what="Control: every question is another item's.").replace(
            "task: plain_", "task: control_"
        )
        (folder / f"{family}.yaml").write_text(task, encoding="utf-8")


def rows(scores: Any, control: Any) -> list[Row]:
    """What was measured, family by family. `scores`, `control`: `Scores` of the suite and of `write_control`."""
    found = []
    for family, (_, choices, _) in FAMILIES.items():
        samples, others = scores.samples[f"plain_{family}"], control.samples[f"control_{family}"]
        right = [bool(sample.correct) for sample in samples]
        order = moved(len(samples), f"{SEED}/{family}/labels")
        relabelled = [sample.answer == samples[order[place]].target for place, sample in enumerate(samples)]
        elsewhere = [bool(sample.correct) for sample in others]
        likeliest = [max(range(choices), key=sample.logliks.__getitem__) == sample.target for sample in samples]
        shares = (sum(each) / len(samples) for each in (likeliest, right, relabelled, elsewhere))
        found.append(Row(family, len(samples), 1 / choices, *shares, mcnemar(right, relabelled), mcnemar(right, elsewhere)))
    return found


def mcnemar(right: list[bool], other: list[bool]) -> float:
    """The exact test on the items that flip, two-sided."""
    from scipy.stats import binomtest

    only = sum(a and not b for a, b in zip(right, other, strict=True))
    other_only = sum(b and not a for a, b in zip(right, other, strict=True))
    return float(binomtest(only, only + other_only).pvalue) if only + other_only else 1.0


def table(found: list[Row]) -> str:
    """The rows in Markdown, in per cent."""
    lines = [
        "| family | chance | acc | acc_norm | 95 % interval | labels in another order | another item's question | p | p |",
        "|---|" + "---:|" * 8,
    ]
    for row in found:
        low, high = row.interval
        shares = " | ".join(f"{100 * share:.1f}" for share in (row.acc, row.acc_norm))
        controls = " | ".join(f"{100 * share:.1f}" for share in (row.relabelled, row.misplaced))
        tests = " | ".join(f"{p:.0e}" if p < 0.001 else f"{p:.3f}" for p in (row.p_relabelled, row.p_misplaced))
        lines.append(f"| {row.family} | {100 * row.chance:.0f} | {shares} | {100 * low:.1f} to {100 * high:.1f} | {controls} | {tests} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write it into the page where asked."""
    from replaceme_core.cli.bar import Bar
    from replaceme_core.evaluation.evaluate import evaluate
    from replaceme_core.models.loading import load
    from replaceme_core.plans.plan import EvaluationSection, ModelSection
    from replaceme_core.storage.cache import cache_folder

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a folder or a Hugging Face id")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=int, help="items per family, the first ones")
    parser.add_argument("--write", action="store_true", help="into docs/results/plain_suite.md")
    asked = parser.parse_args()
    folder = cache_folder() / "plain_control"
    write_control(folder)
    bar, handle = Bar(), load(ModelSection(path=asked.model, dtype=asked.dtype))
    scores, control = (evaluate(handle, EvaluationSection(tasks=tasks, limit=asked.limit), bar) for tasks in ("plain", str(folder)))
    bar.close()
    found = rows(scores, control)
    text = f"{table(found)}\n\n{_said(found, scores.results['plain_perplexity'])}\n"
    print(text)
    if asked.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(f"(?s){_MARKS[0]}.*{_MARKS[1]}", lambda _: f"{_MARKS[0]}\n{text}\n{_MARKS[1]}", page), encoding="utf-8")


def _said(found: list[Row], prose: Any) -> str:
    """The table in one sentence or two."""
    above = [row for row in found if row.p_relabelled < 0.001 and row.interval[0] > row.chance]
    whole = sum(row.acc_norm == 1 for row in found)
    mean = sum(row.acc_norm for row in found) / len(found)
    return (
        f"n = {found[0].n} items a family. Mean acc_norm {100 * mean:.1f} %. {len(above)} of {len(found)} families are far above chance "
        f"(p < 0.001 against their own labels in another order, and the interval above chance); {whole} at 100 %. "
        f"Prose: {prose['bits_per_byte'].value:.3f} bits per byte, perplexity {prose['word_perplexity'].value:.1f} a word."
    )


if __name__ == "__main__":
    main()
