"""What the plan's `tasks` stands for: suites, names with their number of examples, files of own questions."""

import json
from pathlib import Path

import pytest

from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation import own_items, suites
from replaceme_core.evaluation.evaluate import evaluate, list_tasks
from replaceme_core.evaluation.suites import entries, presets
from replaceme_core.evaluation.task_index import Known, folders_of, index, search
from replaceme_core.plans.plan import EvaluationSection


def asked(tasks: str, **settings):
    return [(entry.name, entry.num_fewshot, entry.limit) for entry in entries(EvaluationSection(tasks=tasks, **settings))]


def test_the_papers_suite_is_winogrande_with_five_examples_and_six_tasks_without():
    assert asked("replaceme") == [
        ("winogrande", 5, None),
        *[(name, 0, None) for name in ("boolq", "race", "openbookqa", "piqa", "sciq", "lambada_openai")],
    ]
    assert [name for name, *_ in asked("replaceme-table")] == ["boolq", "hellaswag", "piqa", "mmlu"]


def test_every_task_of_every_suite_is_known_to_the_installed_lm_eval():
    known = index()
    for name in presets():
        missing = [task for task, *_ in asked(name) if task not in known]
        assert missing == [], name
    assert len(known) > 10_000
    assert "no_such_task_xyz" not in known


def test_an_override_wins_over_an_entrys_own_settings():
    assert asked("winogrande@5, piqa", num_fewshot=2) == [("winogrande", 2, None), ("piqa", 2, None)]
    assert asked("winogrande@5, piqa", num_fewshot=0) == [("winogrande", 0, None), ("piqa", 0, None)], "none is a number too"
    assert asked("quick")[0][2] == 200
    assert {limit for *_, limit in asked("quick", limit=7)} == {7}


def test_suites_names_probe_and_demo_mix():
    assert list_tasks("demo:where,find,piqa,probe:copy,list") == ["demo_where", "demo_find", "piqa", "probe_copy", "probe_list"]
    assert len(list_tasks("demo")) == 12
    assert len(list_tasks("demo,probe")) == 18


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ("demo:nothing", "The demo suite has no task 'nothing'; it has analogy, "),
        ("probe:dance", "The probe has no task 'dance'; it has arithmetic, "),
        ("piqa@many", "after @ comes the number of few-shot examples, as in piqa@5"),
        ("piqa, piqa@5", "'piqa' is named twice"),
        (" , ", "No task is named"),
        ("./missing.jsonl", "'./missing.jsonl' does not exist"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(tasks, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        list_tasks(tasks)


def test_search_finds_names_that_hold_every_word_the_nearest_first():
    known = {name: Known(name, "task", "") for name in ("mmlu_anatomy", "mmlu", "kmmlu", "cmmlu_anatomy")}
    assert [entry.name for entry in search("mmlu", known)] == ["mmlu", "mmlu_anatomy", "kmmlu", "cmmlu_anatomy"]
    assert [entry.name for entry in search("anatomy MMLU", known)] == ["mmlu_anatomy", "cmmlu_anatomy"]
    assert search("zzz", known) == []


def test_a_group_needs_the_folders_of_all_that_belongs_to_it():
    known = index()
    folders = [folder.rsplit("/", 1)[1] for folder in folders_of(["mmlu"], known)]
    assert folders == ["mmlu"]
    assert {"arc", "piqa"} <= {folder.rsplit("/", 1)[1] for folder in folders_of(["arc_easy", "piqa"], known)}


def rows(*records) -> bytes:
    return "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records).encode()


CHOICE = {"question": "Where is it?", "choices": ["barn", "park"], "answer": "park"}
CLOZE = {"text": "The key is in the ___.", "answer": "barn"}


def test_own_questions_may_name_the_right_choice_by_number_or_text():
    found = own_items.read("mine.jsonl", rows(CHOICE, {**CHOICE, "answer": 0}, ""))
    assert [row["answer"] for row in found] == [1, 0]
    assert own_items.read("mine.jsonl", rows(CLOZE)) == [{"question": "The key is in the", "answer": "barn"}]


BROKEN = {
    "not JSON": (rows(CHOICE, "{'a': 1}"), "mine.jsonl, line 2 is not JSON"),
    "a list": (rows([1]), "line 1: a line is .* it is a list"),
    "other keys": (rows({"prompt": "a"}), "line 1: a line is .* it has prompt"),
    "one choice": (rows({**CHOICE, "choices": ["a"]}), "line 1: 'choices' must be a list of two or more texts"),
    "a number as choice": (rows({**CHOICE, "choices": ["a", 2]}), "line 1: 'choice 1' must be a text that is not blank, not 2"),
    "equal choices": (rows({**CHOICE, "choices": ["a", "a "]}), "line 1: two choices are the same"),
    "an answer out of range": (rows({**CHOICE, "answer": 2}), "line 1: 'answer' is 2; give the text of a choice or its number, 0 to 1"),
    "an answer that is true": (rows({**CHOICE, "answer": True}), "line 1: 'answer' is true"),
    "an unknown text": (rows({**CHOICE, "answer": "shop"}), "'answer' is \"shop\""),
    "a blank question": (rows({**CHOICE, "question": " "}), "line 1: 'question' must be a text"),
    "a blank in the middle": (rows({"text": "The ___ is in the barn", "answer": "key"}), "line 1: the blank must end the text"),
    "two kinds": (rows(CHOICE, CLOZE), "line 2: the file mixes multiple choice and cloze"),
    "nothing": (b"\n\n", "holds no question"),
    "bytes": (b'{"text": "\xff"}', "line 1: byte 10 is not UTF-8"),
    "half a character": (b'{"text": "\\ud800", "answer": "a"}', "lone surrogate"),
    "deep nesting": (b"[" * 100_000, "line 1 is not JSON"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_of_own_questions_is_named_with_its_file_and_line(what):
    data, sentence = BROKEN[what]
    with pytest.raises(EvaluationError, match=sentence):
        own_items.read("mine.jsonl", data)


def test_what_is_asked_is_known_by_the_questions_not_by_where_they_lie(tmp_path: Path) -> None:
    """Kept results are found again after a folder was moved, and never for other questions under the same name."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.yaml").write_text(
            "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\noutput_type: multiple_choice\n"
        )
        (tmp_path / folder / "rows.jsonl").write_text('{"question": "a", "choices": ["b", "c"], "answer": 0}\n')
    one, two = (EvaluationSection(tasks=str(tmp_path / folder)) for folder in ("one", "two"))
    before = suites.identity(one)
    assert suites.identity(two) == before
    assert {suites.identity(one.model_copy(update=changed)) for changed in ({"limit": 1}, {"seed": 1}, {"num_fewshot": 1})}.isdisjoint(
        {before}
    )
    (tmp_path / "one" / "rows.jsonl").write_text('{"question": "a", "choices": ["b", "c"], "answer": 1}\n')
    assert suites.identity(one) != before


QUESTION = '{{"question": "a", "choices": ["b", "c"], "answer": {}}}\n'
PLACES = {
    "a pattern": "dataset_path: json\ndataset_kwargs: {data_files: {test: 'data/*.jsonl'}}",
    "patterns below folders": "dataset_path: json\ndataset_kwargs: {data_files: ['data/**/q.jsonl']}",
    "a folder of data": "dataset_path: json\ndataset_kwargs: {data_dir: FOLDER/data}",
    "a folder as the data set": "dataset_path: FOLDER/data",
}


@pytest.mark.parametrize("place", PLACES)
def test_data_that_is_named_by_a_pattern_or_a_folder_is_known_by_its_contents(tmp_path: Path, place: str) -> None:
    """A kept score is of the questions that were asked; it must not be found again for changed ones."""

    def made(name: str) -> EvaluationSection:
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "q.jsonl").write_text(QUESTION.format(0))
        where = PLACES[place].replace("FOLDER", str(tmp_path / name))
        (tmp_path / name / "t.yaml").write_text(f"task: t\n{where}\ntest_split: train\noutput_type: multiple_choice\n")
        return EvaluationSection(tasks=str(tmp_path / name))

    one, two = made("one"), made("two")
    before = suites.identity(one)
    assert suites.identity(two) == before
    (tmp_path / "one" / "data" / "q.jsonl").write_text(QUESTION.format(1))
    changed = suites.identity(one)
    (tmp_path / "one" / "data" / "more").mkdir()
    (tmp_path / "one" / "data" / "more" / "q.jsonl").write_text(QUESTION.format(0))
    (tmp_path / "one" / "data" / "r.jsonl").write_text(QUESTION.format(0))
    assert len({before, changed, suites.identity(one)}) == 3


DATES = ("2024-01-01", "1999-12-31", "2000-02-29")


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": f"Day {number} is", "answer": date} for number, date in enumerate(DATES)],
        [{"question": date, "choices": [date, "1990-06-0" + str(number + 1)], "answer": 0} for number, date in enumerate(DATES)],
    ],
    ids=["cloze", "choices"],
)
def test_answers_that_all_look_like_dates_are_texts(llama, tmp_path: Path, rows: list[dict]) -> None:
    (tmp_path / "days.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = evaluate(llama, EvaluationSection(tasks=str(tmp_path / "days.jsonl")))
    samples = found.samples["own_days"]
    assert [(sample.right.strip(), sample.text) for sample in samples] == [
        (date, f"Day {number} is" if "text" in rows[0] else date) for number, date in enumerate(DATES)
    ]
