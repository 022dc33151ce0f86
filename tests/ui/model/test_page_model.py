"""The Model page: naming a model, the memory check, and the calibration form with its uploads."""

import pytest

from replaceme_core.plans.plan import ModelSection
from tests.support.app_session import click, needs_demo, open_page, run, text_of
from ui.session import work
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


def test_the_model_page_alone_asks_for_a_model() -> None:
    app = open_page("pages/1_Model.py")
    assert "Load this model" in [button.label for button in app.button]


@needs_demo
def test_an_upload_of_chats_without_a_chat_template_is_one_sentence(demo: Studio) -> None:
    app = open_page("pages/1_Model.py", demo)
    app.session_state["text_source"] = "upload"
    run(app)
    chat = b'{"messages": [{"role": "user", "content": "Hello"}]}\n'
    app.file_uploader[0].set_value(("chat.jsonl", chat, "application/json"))
    run(app)
    assert "template" in app.error[0].value


def test_a_hub_id_without_a_network_is_one_sentence_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    state = Studio()
    work.load_model(state, ModelSection(path="nobody/no-such-model")).finished.wait(60)
    app = open_page("pages/1_Model.py", state)
    assert "no-such-model" in app.error[0].value
    assert "demo model works offline" in app.error[0].value or "check the spelling" in app.error[0].value


def test_a_hub_id_is_looked_up_only_when_asked_to() -> None:
    app = open_page("pages/1_Model.py")
    assert "Check memory first" not in [button.label for button in app.button], "the demo model is here, so its check is shown at once"
    app.session_state["model_source"] = "hub"
    app.session_state["model_id"] = "nobody/no-such-model"
    assert "Check memory first reads the configuration" in text_of(run(app))
    assert not app.error
    assert "no-such-model" in click(app, "Check memory first").error[0].value
    assert not run(app).error, "a failed check is not repeated by itself"


def test_the_shared_profile_offers_listed_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLACEME_MODELS", "demo,org/one")
    app = open_page("pages/1_Model.py")
    app.session_state["model_source"] = "hub"
    run(app)
    assert app.selectbox[0].options == ["demo", "org/one"]
    assert not app.text_input or all(item.label != "Folder" for item in app.text_input)
    job = work.load_model(Studio(), ModelSection(path="/etc"))
    job.finished.wait(30)
    assert "offers only demo, org/one" in job.error


def test_an_unknown_model_is_one_sentence_with_a_way_out() -> None:
    state = Studio()
    job = work.load_model(state, ModelSection(path="/nowhere/at/all"))
    job.finished.wait(60)
    app = open_page("pages/1_Model.py", state)
    assert "does not exist" in app.error[0].value


@needs_demo
@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("empty.txt", b"", "empty"),
        ("binary.txt", bytes(range(256)), "binary.txt"),
        ("bad.jsonl", b'{"text": "one"}\n{"text": \n', "line 2"),
        ("column.jsonl", b'{"body": "one"}\n', "text"),
        ("table.csv", b"a,b\n1,2\n", "text"),
    ],
)
def test_a_bad_upload_is_named_with_file_and_line(demo: Studio, name: str, data: bytes, sentence: str) -> None:
    app = open_page("pages/1_Model.py", demo)
    app.session_state["text_source"] = "upload"
    run(app)
    app.file_uploader[0].set_value((name, data, "application/octet-stream"))
    run(app)
    assert app.error, "the upload was accepted"
    assert name in app.error[0].value
    assert sentence in app.error[0].value


@needs_demo
def test_pasted_text_that_is_too_short_is_refused_in_a_sentence(demo: Studio) -> None:
    app = open_page("pages/1_Model.py", demo)
    app.session_state["text_source"] = "paste"
    run(app)
    app.text_area[0].set_value("Hello there.")
    run(app)
    assert "at least 2 are needed" in app.error[0].value
