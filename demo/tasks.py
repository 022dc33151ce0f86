"""Write everything in assets/demo but the model: `python -m demo.tasks`. A minute at most, no model needed.

Benchmark items and held-out text come from the bench side of the split, calibration sets from the calibration
side (see documents.side): no context of theirs can occur in training, nor in one another.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from demo import puzzles, stories, tokenizer
from demo.corpus import MIX, Maker, documents
from demo.documents import BENCH, CALIBRATION, Ask, Document, choose
from demo.world import vocabulary

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "demo"
ITEMS = 200
CALIBRATION_TOKENS, HELDOUT_TOKENS, PERPLEXITY_TOKENS = 40_000, 30_000, 8_000

# The families that the shipped model has learnt; README.md lists those it has not, which the corpus holds as well.
# family: (what makes its documents, smallest number of choices, what it asks)
FAMILIES: dict[str, tuple[Maker, int, str]] = {
    "where": (stories.bench_story, 3, "where somebody who moved is now (the last of several places)"),
    "holder": (stories.bench_story, 3, "who has a thing, after gifts"),
    "find": (stories.bench_story, 3, "where a held thing is: its holder, then the holder's place (two steps)"),
    "nth": (puzzles.lists, 4, "the first, second, ... or last item of a list"),
    "chain": (puzzles.chains, 4, "the end of a chain of pushes told out of order (two steps)"),
    "order": (puzzles.orders, 3, "oldest, middle, youngest from two comparisons (two steps)"),
    "count": (puzzles.counts, 4, "how many things somebody has"),
    "sums": (puzzles.sums, 4, "how many are left: two numbers from the text and one sum or difference"),
    "arithmetic": (puzzles.arithmetic, 4, "the last of a row of bare sums and differences"),
    "facts": (puzzles.facts, 3, "which animal a fact of the world is about"),
    "analogy": (puzzles.analogies, 4, "a world relation from two pairs, applied to a third"),
}

CALIBRATION_MIXES: dict[str, dict[Maker, float]] = {
    "stories": {stories.plain_story: 1},
    "questions": {
        stories.story: 4,
        puzzles.colours: 1,
        puzzles.words: 1,
        puzzles.lists: 1,
        puzzles.causes: 1,
        puzzles.chains: 1,
    },
    "facts": {
        puzzles.facts: 2,
        puzzles.sayings: 1,
        puzzles.analogies: 2,
        puzzles.arithmetic: 2,
        puzzles.sums: 2,
        puzzles.counts: 1,
    },
    "mixture": MIX,
}


def items(family: str, seed: str = "tasks", count: int = ITEMS) -> list[dict]:
    """`count` distinct items of a family, one per document: question, choices and the answer's index."""
    maker, fewest, _ = FAMILIES[family]
    found: dict[str, dict] = {}
    for document in documents(f"{seed}/{family}", BENCH, {maker: 1}):
        ask = _last_equation(document) if family == "arithmetic" else _first_ask(document, family, fewest)
        if ask and ask.question not in found:
            found[ask.question] = {"question": ask.question, "choices": list(ask.choices), "answer": ask.choices.index(ask.answer)}
        if len(found) == count:
            return list(found.values())
    raise AssertionError("documents() never ends")


def _first_ask(document: Document, family: str, fewest: int) -> Ask | None:
    """The document's first question of the family, with its context."""
    asks = [ask for ask in document.asks if ask.family == family and len(ask.choices) >= fewest]
    return replace(asks[0], question=document.item(asks[0])) if asks else None


def _last_equation(document: Document) -> Ask:
    """Bare arithmetic has no question line: the row of equations is shown up to its last result."""
    question, _, answer = document.context.removesuffix(".").rpartition(" = ")
    near = [str(number) for number in range(max(0, int(answer) - 3), min(20, int(answer) + 3) + 1)]
    return Ask(f"{question} =", answer, choose(random.Random(question), answer, near), "arithmetic")


def texts(seed: str, on_side: str, mix: dict[Maker, float], tokens: int) -> Iterator[str]:
    """Distinct document texts, about `tokens` tokens of them in all."""
    tok, seen, used = tokenizer.build(), set(), 0
    for document in documents(seed, on_side, mix):
        if document.text not in seen:
            seen.add(document.text)
            used += len(tok(document.text)["input_ids"])
            yield document.text
        if used >= tokens:
            return


def random_words(seed: str, tokens: int, per_row: int = 60) -> Iterator[str]:
    """Rows of random words of the world: a calibration set with the vocabulary and nothing else."""
    rng, words = random.Random(seed), vocabulary()
    for _ in range(tokens // (per_row + 1)):
        yield " ".join(rng.choices(words, k=per_row))


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """One JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


CHOICE_TASK = """\
# {what}
task: demo_{family}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {family}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""

PERPLEXITY_TASK = """\
# Held-out documents of the whole mix.
task: demo_perplexity
dataset_path: json
dataset_kwargs: {data_files: {test: perplexity.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
metadata:
  version: 1.0
"""


def write_tasks(folder: Path) -> None:
    """A YAML and a JSONL file per family, and the perplexity task."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for family, (_, _, what) in FAMILIES.items():
        write_jsonl(folder / f"{family}.jsonl", items(family))
        yaml = CHOICE_TASK.format(family=family, what=what[0].upper() + what[1:] + ".")
        (folder / f"{family}.yaml").write_text(yaml, encoding="utf-8")
    rows = [{"text": text} for text in texts("perplexity", BENCH, MIX, PERPLEXITY_TOKENS)]
    write_jsonl(folder / "perplexity.jsonl", rows)
    (folder / "perplexity.yaml").write_text(PERPLEXITY_TASK, encoding="utf-8")


def main() -> None:
    """Write tasks, calibration sets and held-out text under assets/demo."""
    write_tasks(ASSETS / "tasks")
    for name, mix in CALIBRATION_MIXES.items():
        rows = [{"text": text} for text in texts(f"calibration/{name}", CALIBRATION, mix, CALIBRATION_TOKENS)]
        write_jsonl(ASSETS / "calibration" / f"{name}.jsonl", rows)
    rows = [{"text": text} for text in random_words("calibration/random", CALIBRATION_TOKENS)]
    write_jsonl(ASSETS / "calibration" / "random.jsonl", rows)
    rows = [{"text": text} for text in texts("heldout", BENCH, MIX, HELDOUT_TOKENS)]
    write_jsonl(ASSETS / "heldout.jsonl", rows)


if __name__ == "__main__":
    main()
