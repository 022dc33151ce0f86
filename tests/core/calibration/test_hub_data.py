"""Data sets of the hub through its real client: streamed with the columns that the presets name, refused in a sentence, and benchmarks whose questions come from there."""

import io
import json
import shutil
from pathlib import Path

import pytest

from replaceme_core.calibration import hub_text
from replaceme_core.calibration.calibration import prepare, read_source
from replaceme_core.errors import EvaluationError, InputError, TextError
from replaceme_core.evaluation.evaluate import evaluate
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection
from tests.support.hub_server import TOKEN

CHATS = [
    [{"from": "system", "value": "Be short."}, {"from": "human", "value": f"w{i} w2?"}, {"from": "gpt", "value": "w3 w4."}]
    for i in range(40)
]
PAGES = [f"w{i} w{i + 1} w{i + 2} w{i + 3}" for i in range(60)]
QUESTIONS = [
    {"question": f"What is w{i}?", "correct_answer": "w1", "distractor1": "w2", "distractor2": "w3", "distractor3": "w4", "support": f"w{i} is w1."}
    for i in range(6)
]  # fmt: skip
ARC = [
    {"id": f"{i}", "question": f"Which is w{i}?", "choices": {"text": ["w1", "w2"], "label": ["A", "B"]}, "answerKey": "A"}
    for i in range(6)
]


def parquet(rows: list[dict]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def lines(rows: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def card(config: str, **splits: str) -> bytes:
    """A data set's README with one configuration."""
    listed = "".join(f"  - split: {split}\n    path: {path}\n" for split, path in splits.items())
    return f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{listed}---\n".encode()


def source(name: str, **more: object) -> CalibrationSection:
    return CalibrationSection(source=f"hub:{name}", **more)


def told(section: CalibrationSection, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        list(read_source(section))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_chats_of_slimorca_are_streamed_by_its_preset(hub):
    hub.add(
        "Open-Orca/SlimOrca",
        {"oo-labeled_correct.gpt4.sharegpt.jsonl": lines([{"conversations": chat} for chat in CHATS])},
        kind="datasets",
    )
    found = list(hub_text.stream_preset("slimorca"))
    assert len(found) == 40
    assert found[0] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "w0 w2?"},
        {"role": "assistant", "content": "w3 w4."},
    ]
    assert hub.unknown == []


def test_the_pages_of_fineweb_are_streamed_by_its_preset_and_make_a_set(hub, llama):
    rows = [{"text": page, "id": str(i), "dump": "CC", "url": "u", "token_count": 4} for i, page in enumerate(PAGES)]
    files = {"sample/10BT/000_00000.parquet": parquet(rows), "README.md": card("sample-10BT", train="sample/10BT/*")}
    hub.add("HuggingFaceFW/fineweb", files, kind="datasets")
    section = CalibrationSection(source="preset:fineweb", max_tokens=200, max_length=32)
    assert list(read_source(section)) == PAGES
    assert prepare(section, llama.tokenizer).n_tokens >= 100


def test_only_as_many_rows_are_taken_as_are_asked_for(hub):
    hub.add("open/long", {"train.jsonl": lines([{"text": f"row {i}"} for i in range(4000)])}, kind="datasets")
    assert list(read_source(source("open/long", max_texts=3))) == ["row 0", "row 1", "row 2"]


def test_a_split_that_a_set_does_not_have_is_named_with_those_it_has(hub):
    hub.add("open/fine", {"data/train-00000-of-00001.parquet": parquet([{"text": "w1 w2"}])}, kind="datasets")
    assert "The data set 'open/fine' has no split 'validation'; it has train." in told(source("open/fine", split="validation"))


def test_a_set_of_several_configurations_asks_which(hub):
    readme = b"---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: de\n  data_files: de.jsonl\n---\n"
    hub.add("open/two", {"README.md": readme, "en.jsonl": lines([{"text": "one"}]), "de.jsonl": lines([{"text": "eins"}])}, kind="datasets")
    assert "The data set 'open/two' has several configurations; name one of de, en (config)." in told(source("open/two"))
    assert "The data set 'open/two' has no configuration 'fr'; it has de, en." in told(source("open/two", config="fr"))
    assert list(read_source(source("open/two", config="de"))) == ["eins"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(hub):
    hub.add("open/fine", {"train.jsonl": lines([{"text": "w1", "url": "u"}])}, kind="datasets")
    assert "open/fine, row 1 has no column 'body'; it has text, url" in told(source("open/fine", column="body"), TextError)


def test_a_set_that_is_not_there_and_one_that_is_private_ask_for_spelling_and_token(hub, monkeypatch):
    hub.add("me/secret", {"train.jsonl": lines([{"text": "w1"}])}, kind="datasets", private=True)
    for name in ("open/none", "me/secret"):
        assert f"The data set '{name}' was not found on the hub; check the spelling, and set the environment variable HF_TOKEN" in told(
            source(name)
        )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert list(read_source(source("me/secret"))) == ["w1"]


def test_a_gated_set_asks_to_accept_its_terms(hub):
    hub.add("big/gated", {"train.jsonl": lines([{"text": "w1"}])}, kind="datasets", gated=True)
    assert "The data set 'big/gated' is gated: accept its terms on its page of the hub" in told(source("big/gated"))


@pytest.mark.usefixtures("hub")
def test_a_set_without_a_network_names_the_offline_way(monkeypatch):
    import datasets.config
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    said = told(source("open/fine"))
    assert "demo sets and files work offline" in said


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The files of two tasks of lm-eval, by themselves: an index of all thousands takes half a minute to make."""
    import lm_eval.tasks

    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "scores"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("sciq/sciq.yaml", "arc/arc_easy.yaml"):
        shutil.copy(Path(lm_eval.tasks.__file__).parent / name, folder)
    return EvaluationSection(tasks=str(folder), limit=4)


def test_benchmarks_of_lm_eval_are_asked_with_questions_from_the_hub(hub, llama, tasks):
    splits = {f"data/{split}-00000-of-00001.parquet": parquet(QUESTIONS) for split in ("train", "validation", "test")}
    hub.add("allenai/sciq", splits, kind="datasets")
    files = {f"ARC-Easy/{split}.parquet": parquet(ARC) for split in ("train", "validation", "test")}
    files["README.md"] = card("ARC-Easy", **{split: f"ARC-Easy/{split}.parquet" for split in ("train", "validation", "test")})
    hub.add("allenai/ai2_arc", files, kind="datasets")
    scores = evaluate(llama, tasks)
    assert {name: scores.results[name]["acc"].n for name in scores.results} == {"sciq": 4, "arc_easy": 4}
    assert hub.unknown == []


@pytest.mark.usefixtures("hub")
def test_a_benchmark_whose_questions_are_not_on_the_hub_is_a_sentence(llama, tasks):
    with pytest.raises(EvaluationError, match=r"The benchmark '.*' could not be prepared .*tasks from the hub need the network"):
        evaluate(llama, tasks)
