"""The demo: a reproducible corpus, a split that holds, tasks that lm-eval reads, and a model that has learnt."""

import json
import re
from itertools import islice
from pathlib import Path

import pytest
import torch

from demo import probe, tokenizer
from demo.corpus import documents
from demo.documents import BENCH, CALIBRATION, TRAIN, side
from demo.tasks import ASSETS, FAMILIES, items
from demo.world import vocabulary

torch.set_num_threads(1)
TASKS, MODEL = ASSETS / "tasks", ASSETS / "model"
SETS = ("stories", "questions", "facts", "mixture", "random")


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contexts(text: str) -> set[str]:
    """What the split is decided on: the first line of a document, or each line of one without a context."""
    lines = [re.sub(r"(\?) \S+$", r"\1", line) for line in text.split("\n")]
    return set(lines) if "?" in lines[0] else {lines[0]}


def test_one_seed_gives_one_corpus_and_another_seed_another():
    first, again, other = (list(islice(documents(seed), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_answer_is_among_distinct_choices():
    for document in islice(documents("choices"), 2000):
        for ask in document.asks:
            if ask.choices:
                assert ask.answer in ask.choices
                assert len(set(ask.choices)) == len(ask.choices)


@pytest.mark.parametrize("owner", [TRAIN, CALIBRATION, BENCH])
def test_a_stream_yields_contexts_of_its_own_side_only(owner):
    for document in islice(documents("sides", owner), 300):
        assert {side(key) for key in contexts(document.text)} <= {owner}


def test_shipped_items_and_heldout_text_belong_to_the_bench_side():
    for family in FAMILIES:
        for row in rows(TASKS / f"{family}.jsonl"):
            whole = f"{row['question']} {row['choices'][row['answer']]}."  # what training would read, where there is no question line
            keys = [whole] if family == "arithmetic" else contexts(row["question"])
            assert {side(key) for key in keys} == {BENCH}


def test_no_shipped_item_occurs_in_a_sample_of_the_training_stream():
    shipped = {row["question"] for family in FAMILIES for row in rows(TASKS / f"{family}.jsonl")}
    shipped |= {row["text"] for row in rows(ASSETS / "heldout.jsonl")}
    for document in islice(documents("0/0/0"), 10_000):
        assert document.text not in shipped
        assert not shipped & {document.item(ask) for ask in document.asks}


@pytest.mark.parametrize("family", ["find", "order", "analogy"])
def test_shipped_tasks_are_what_the_builder_writes(family):
    assert rows(TASKS / f"{family}.jsonl")[:5] == items(family, count=5)


def test_every_family_has_200_distinct_items_with_balanced_answers():
    for family in FAMILIES:
        shipped = rows(TASKS / f"{family}.jsonl")
        assert len({row["question"] for row in shipped}) >= 200
        first = sum(row["answer"] == 0 for row in shipped) / len(shipped)
        assert first < 0.5, family


def test_calibration_sets_parse_and_differ():
    texts = {name: [row["text"] for row in rows(ASSETS / "calibration" / f"{name}.jsonl")] for name in SETS}
    for name, found in texts.items():
        assert len(set(found)) > 300, name
        assert all(text.strip() for text in found)
    assert not any("?" in text for text in texts["stories"] + texts["random"])
    assert all("?" in text for text in texts["questions"])
    heldout = {row["text"] for row in rows(ASSETS / "heldout.jsonl")}
    assert all(heldout.isdisjoint(found) for found in texts.values())


def test_every_word_of_the_world_is_one_token_and_any_text_survives():
    tok = tokenizer.build()
    assert all(len(tok.tokenize(word)) == 1 for word in vocabulary())
    for text in ("Anna has the key.\nWho has the key?", "naïve 😀 日本 {x: 1}"):
        assert tok.decode(tok(text)["input_ids"]).strip() == text


def test_every_task_loads_through_lm_eval():
    from lm_eval.tasks import TaskManager

    # Relative data files are resolved by replaceme_core.evaluation.evaluate; here the working folder does it.
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    names = {f"demo_{family}" for family in FAMILIES} | {"demo_perplexity"}
    assert names <= set(manager.all_tasks)


@pytest.fixture(scope="module")
def shipped_model():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto"), AutoTokenizer.from_pretrained(MODEL)


def test_the_model_is_small_bf16_and_uses_the_same_tokenizer(shipped_model):
    model, tok = shipped_model
    assert model.config.model_type == "llama"
    assert 12 <= model.config.num_hidden_layers <= 16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 40e6
    assert tok.get_vocab() == tokenizer.build().get_vocab()


def test_the_model_has_learnt_what_it_is_asked(shipped_model):
    model, tok = shipped_model
    scores = probe.accuracies(model.float(), tok, each=40)
    asked = [family for family in FAMILIES if family != "arithmetic"]  # it has no question line, see below
    assert sum(scores[family] for family in asked) / len(asked) > 0.7
    for family in asked:
        assert scores[family] > 0.45, scores


def test_the_model_has_learnt_bare_arithmetic(shipped_model):
    model, tok = shipped_model
    correct = 0
    for row in rows(TASKS / "arithmetic.jsonl")[:40]:
        with torch.no_grad():
            logits = model.float()(input_ids=torch.tensor([tok(row["question"])["input_ids"]])).logits[0, -1]
        choices = [tok(choice)["input_ids"][0] for choice in row["choices"]]
        correct += int(logits[choices].argmax()) == row["answer"]
    assert correct >= 30
