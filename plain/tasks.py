"""Write the plain suite: `python -m plain.tasks`. A few seconds, no model needed; the same files every time.

Each family is a plain lm-eval task: a YAML file, and a JSONL file with `question`, `choices` and the index `answer`.
"""

import json
import shutil
from pathlib import Path

from plain import context, grammar, knowledge, numbers, spelling, stories
from plain.drafts import Item, Maker, items_of
from plain.words import passages

TASKS = Path(__file__).resolve().parent.parent / "assets" / "tasks" / "plain"
ITEMS = 160
SEED = "plain"

# family: (what makes its drafts, number of choices, what it asks)
FAMILIES: dict[str, tuple[Maker, int, str]] = {
    "capitals": (knowledge.capitals, 4, "the capital of a country, and the country of a capital"),
    "opposites": (knowledge.opposites, 4, "the opposite of a word, with a near word among the choices"),
    "animals": (knowledge.animals, 4, "kinds, young, voices, homes and legs of animals, and riddles about them"),
    "materials": (knowledge.materials, 4, "what things are made of"),
    "agreement": (grammar.agreement, 2, "the verb after a subject with another noun in between"),
    "reflexives": (grammar.reflexives, 2, "himself, herself, themselves after the one they stand for"),
    "determiners": (grammar.determiners, 2, "a and an, this and these, many and much, each and both before a noun"),
    "negation": (grammar.negation, 2, "ever and any under a negation, the verb after do not, neither with nor"),
    "counting": (numbers.counting, 4, "how a row of number words goes on, and how many things a list holds"),
    "sums": (numbers.sums, 4, "small sums, differences and products in words"),
    "spelling": (spelling.spelling, 4, "plurals and past tenses among misspelled ones"),
    "endings": (stories.endings, 4, "how a story of three sentences ends"),
    "pronouns": (stories.pronouns, 2, "whom a pronoun stands for, by gender or number"),
    "reading": (stories.reading, 4, "one detail of a passage of a few sentences"),
    "sentiment": (stories.sentiment, 2, "whether a review praises or blames"),
    "copying": (context.copying, 4, "the next word of a list that is repeated"),
    "finding": (context.finding, 4, "one of several facts that were just told"),
    "two_steps": (context.two_steps, 4, "a fact that takes two look-ups, in the text or in what everybody knows"),
}

CHOICE_TASK = """\
# {what}
task: plain_{family}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {family}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""

PERPLEXITY_TASK = """\
# Short passages of prose, written for this suite.
task: plain_perplexity
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


def items(family: str, count: int = ITEMS) -> list[Item]:
    """The items of a family, in the order of its file."""
    maker, choices, _ = FAMILIES[family]
    return items_of(maker, choices, count, f"{SEED}/{family}")


def write(folder: Path) -> None:
    """A YAML and a JSONL file per family, and the perplexity task. What the folder held before is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for family, (_, _, what) in FAMILIES.items():
        rows = [{"question": item.question, "choices": item.choices, "answer": item.answer} for item in items(family)]
        _write_jsonl(folder / f"{family}.jsonl", rows)
        task = CHOICE_TASK.format(family=family, what=f"{what[0].upper()}{what[1:]}.")
        (folder / f"{family}.yaml").write_text(task, encoding="utf-8")
    _write_jsonl(folder / "perplexity.jsonl", [{"text": text} for text in passages()])
    (folder / "perplexity.yaml").write_text(PERPLEXITY_TASK, encoding="utf-8")


def _write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write(TASKS)
