"""Benchmarks in a chat template: lm-eval's own figures with the same options, no second BOS, kept apart, and refusals in a sentence."""

import json
import shutil

import pytest
import yaml
from transformers import AutoTokenizer

from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation import tables
from replaceme_core.evaluation.evaluate import check, evaluate, known
from replaceme_core.evaluation.harness_files import from_files, to_files
from replaceme_core.evaluation.suites import identity
from replaceme_core.models.loading import load
from replaceme_core.plans.defaults import evaluation_for, tasks_for
from replaceme_core.plans.plan import EvaluationSection, ModelSection
from tests.core.evaluation.test_evaluate import CHOICE, ITEMS, ROWS, write_tasks
from tests.support.tiny_models import CHAT_TEMPLATE

WRITES = {
    "task": "toy_writes",
    **ROWS,
    "fewshot_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
    "metric_list": [{"metric": "exact_match"}],
}
WAYS = (
    {},
    {"apply_chat_template": True},
    {"apply_chat_template": True, "num_fewshot": 2, "system_instruction": "w3 w4"},
    {"apply_chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": False},
    {"system_instruction": "w3 w4"},
)


@pytest.fixture(scope="module")
def chat_folder(llama_folder, tmp_path_factory):
    folder = shutil.copytree(llama_folder, tmp_path_factory.mktemp("chat") / "tiny_chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chatty(chat_folder):
    return load(ModelSection(path=str(chat_folder), device="cpu"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder, _ = write_tasks(tmp_path_factory.mktemp("tasks"), fewshot_split="test")
    (folder / "writes.yaml").write_text(yaml.safe_dump(WRITES))
    return folder


def section_of(tasks, **ways):
    return EvaluationSection(tasks=str(tasks), batch_size=4, exact=True, **ways)


@pytest.mark.parametrize("ways", WAYS, ids=lambda ways: " ".join(ways) or "plain")
def test_figures_and_answers_are_those_of_lm_evals_own_model_with_the_same_options(chat_folder, chatty, tasks, ways, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)
    data = {"dataset_kwargs": {"data_files": {"test": str(tasks / "choice.jsonl")}}}
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(chat_folder), "dtype": "float32", "device": "cpu"},
        tasks=[CHOICE | data | {"fewshot_split": "test"}, WRITES | data],
        task_manager=TaskManager(include_defaults=False),
        batch_size=4,
        bootstrap_iters=1000,
        **ways,
    )
    ours = evaluate(chatty, section_of(tasks, **ways))
    for task, metric in (("toy_choice", "acc"), ("toy_choice", "acc_norm"), ("toy_writes", "exact_match")):
        assert ours.results[task][metric].value == theirs["results"][task][f"{metric},none"]
    for sample, row in zip(ours.samples["toy_choice"], theirs["samples"]["toy_choice"], strict=True):
        assert sample.text == row["arguments"][0][0]
        assert sample.logliks == [answer[0] for answer in row["filtered_resps"]]
    for sample, row in zip(ours.samples["toy_writes"], theirs["samples"]["toy_writes"], strict=True):
        assert (sample.text, sample.said) == (row["arguments"][0][0], row["filtered_resps"][0])
    asked = ours.samples["toy_choice"][0].text
    assert ("assistant: " in asked) is bool(ways.get("apply_chat_template"))
    assert ("w3 w4" in asked.partition("user: ")[0]) is ("system_instruction" in ways)
    turns = {True: 3, False: 1}[ways.get("num_fewshot") is not None and ways.get("fewshot_as_multiturn", True)]
    assert not ways.get("apply_chat_template") or asked.count("user: ") == turns


def test_the_model_reads_one_bos_though_the_template_writes_it(chatty, tasks, monkeypatch):
    from replaceme_core.evaluation.lm_eval_model import BorrowedLM

    seen = []
    call = BorrowedLM._model_call
    monkeypatch.setattr(BorrowedLM, "_model_call", lambda self, inps, *a, **k: seen.append(inps) or call(self, inps, *a, **k))
    evaluate(chatty, section_of(tasks, apply_chat_template=True, limit=2), reuse=False)
    bos = chatty.tokenizer.bos_token_id
    rows = [row.tolist() for batch in seen for row in batch]
    chats = [row for row in rows if chatty.tokenizer.decode(row).startswith("<s>user")]
    assert chats
    assert all(row.count(bos) == 1 and row[0] == bos for row in chats)


def test_kept_scores_are_of_one_way_to_ask_and_of_one_template(chatty, tasks):
    import copy
    import dataclasses

    ways = [section_of(tasks, limit=3, **way) for way in WAYS if "num_fewshot" not in way]
    for section in ways:
        assert known(chatty, section).missing, "not asked yet"
        evaluate(chatty, section)
    assert not any(known(chatty, section).missing for section in ways)
    assert len({identity(section) for section in ways}) == len({section.key for section in ways}) == len(ways)
    other = copy.deepcopy(chatty.tokenizer)
    other.chat_template = CHAT_TEMPLATE.replace("user", "asker").replace("assistant: ", "answer: ")
    changed = dataclasses.replace(chatty, tokenizer=other)
    assert not known(changed, ways[0]).missing
    assert known(changed, ways[1]).missing


def test_what_was_kept_before_there_were_templates_is_still_found(chatty, tasks, monkeypatch):
    """Plain questions have the key that they always had."""
    from replaceme_core.evaluation import store

    keys = []
    real = store.key_of
    monkeypatch.setattr(store, "key_of", lambda *parts: keys.append(parts) or real(*parts))
    known(chatty, section_of(tasks))
    assert {len(parts) for parts in keys} == {7}
    keys.clear()
    known(chatty, section_of("probe", apply_chat_template=True))
    assert {len(parts) for parts in keys} == {7}, "the probe is asked in plain text"


def test_a_model_without_a_template_and_one_that_refuses_a_system_message_are_sentences(llama, chatty, tasks):
    import copy
    import dataclasses

    for act in (check, evaluate):
        with pytest.raises(EvaluationError, match="has no chat template; leave apply_chat_template out"):
            act(llama, section_of(tasks, apply_chat_template=True))
    strict = copy.deepcopy(chatty.tokenizer)
    strict.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
    refusing = dataclasses.replace(chatty, tokenizer=strict)
    check(refusing, section_of(tasks, apply_chat_template=True))
    with pytest.raises(EvaluationError, match=r"refuses a question \(TemplateError: no system\); leave system_instruction out"):
        evaluate(refusing, section_of(tasks, apply_chat_template=True, system_instruction="w3"))


def test_a_template_cannot_reach_python(chatty, tasks):
    import copy
    import dataclasses

    evil = copy.deepcopy(chatty.tokenizer)
    evil.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(EvaluationError, match="SecurityError"):
        evaluate(dataclasses.replace(chatty, tokenizer=evil), section_of(tasks, apply_chat_template=True))


def test_the_check_before_a_run_writes_the_first_question_in_the_template(chatty, tasks):
    check(chatty, section_of(tasks, apply_chat_template=True, num_fewshot=1, seed=77))


def test_settings_say_how_it_was_asked_in_tables_and_in_files_there_and_back(chatty, tasks):
    plain = evaluate(chatty, section_of(tasks, limit=3))
    chat = evaluate(chatty, section_of(tasks, limit=3, apply_chat_template=True, num_fewshot=1, system_instruction="w3"))
    told = {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": "w3"}
    assert {key: chat.settings[key] for key in told} == told
    assert json.loads(json.dumps(chat.to_data()))["settings"]["chat_template_sha"]
    said = tables.unequal({"plain": plain, "chat": chat})
    assert any(line == "The use of the chat template differs (plain: no, chat: yes), so that the figures do not compare." for line in said)
    assert "chat template; few-shot examples as turns" in tables.notes({"chat": chat})
    assert "chat template" not in tables.notes({"plain": plain})
    assert "apply_chat_template" in tables.to_csv({"chat": chat}).splitlines()[0]
    files = to_files(chat)
    name = next(name for name in files if name.startswith("results"))
    back = from_files(name, files[name].encode())
    assert {key: back.settings[key] for key in told} == told
    assert back.settings["chat_template_sha"] == chat.settings["chat_template_sha"]
    theirs = json.loads(files[name]) | {"chat_template": None, "chat_template_sha": None, "fewshot_as_multiturn": False}
    assert from_files(name, json.dumps(theirs).encode()).settings["apply_chat_template"] is False
    assert len(chat.samples["toy_choice"]) == 3 < ITEMS


def test_the_demo_suite_is_for_the_demo_and_plain_english_for_any_other_model():
    assert [tasks_for(path) for path in ("demo", "smollm2", "./folder", "org/name")] == ["demo", "plain", "plain", "plain"]
    assert evaluation_for(EvaluationSection(limit=3), "smollm2") == EvaluationSection(tasks="plain", limit=3)
    assert evaluation_for(EvaluationSection(tasks="demo"), "smollm2").tasks == "demo"
    assert evaluation_for(None, "smollm2") is None
