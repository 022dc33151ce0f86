"""Prompts and chats on the Compare page: prompts that fit the model, turns in the model's template, and refusals in a sentence."""

import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core.comparison.compare import stream
from tests.support.app_session import click, finish, html_of, open_page, run, text_of
from tests.support.tiny_models import CHAT_TEMPLATE
from tests.ui.compare.test_page_compare import NAMES, PAGE, PROMPT, SETTINGS, settled
from ui.compare import jobs as writing
from ui.compare.generation import Chat, CompareState
from ui.look.systems import ORIGINAL
from ui.session import variants
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.fixture
def chatty(state: Studio, monkeypatch) -> Studio:
    """The same with a chat template."""
    monkeypatch.setattr(state.resident.handle.tokenizer, "chat_template", CHAT_TEMPLATE, raising=False)
    return state


def short(app: AppTest) -> AppTest:
    next(item for item in app.slider if item.label == "Max new tokens").set_value(8)
    return app


def test_a_foreign_model_begins_with_a_held_out_text_and_gets_plain_english_and_longer_answers(state: Studio) -> None:
    app = open_page(PAGE, state)
    first = next(row for row, out in zip(state.calibration.sequences, state.calibration.heldout, strict=True) if out)
    assert len(app.text_area[0].value.split()) >= 3
    assert state.resident.handle.tokenizer.decode(first, skip_special_tokens=True).startswith(app.text_area[0].value)
    assert "held-out text 1 of the calibration set, which no fit has read" in text_of(app)
    assert "The capital of France is" in next(item for item in app.selectbox if item.label == "Begin with").options
    assert next(item for item in app.slider if item.label == "Max new tokens").value == 256
    assert "Chat" not in [toggle.label for toggle in app.toggle], "there is no template"
    assert next(item for item in app.selectbox if item.label == "Test text").options == ["test part of the calibration set"]
    begin = next(item for item in app.selectbox if item.label == "Begin with")
    held = [label for label in begin.options if label.startswith("Held-out text")]
    assert len(held) == sum(state.calibration.heldout)
    begin.set_value(len(begin.options) - 1)
    chosen = run(app).text_area[0].value
    row = [row for row, out in zip(state.calibration.sequences, state.calibration.heldout, strict=True) if out][-1]
    assert chosen
    assert state.resident.handle.tokenizer.decode(row, skip_special_tokens=True).startswith(chosen)
    click(short(app), "Generate")
    finish(runner().latest(state.owner))
    assert settled(app).text_area[0].value == state.slot(CompareState).generation.prompt == chosen


def test_a_chat_goes_on_turn_by_turn_and_every_system_with_its_own_answers(chatty: Studio) -> None:
    app = open_page(PAGE, chatty)
    assert next(toggle for toggle in app.toggle if toggle.label == "Chat").value is True
    assert app.text_area[0].value == "What is the capital of France?", "no held-out text is a chat"
    app.text_input[0].set_value("w9")
    app.text_area[0].set_value("w1 w2")
    click(short(app), "Generate")
    finish(runner().latest(chatty.owner))
    app = settled(app)
    first = chatty.slot(CompareState).generation
    assert {column.prompt for column in first.columns.values()} == {"<s>system: w9</s>user: w1 w2</s>assistant: "}
    handle = variants.systems(chatty, ["second"])["second"]
    assert first.columns["second"].text == "".join(stream(handle, first.columns["second"].prompt, 8))
    assert app.text_area[0].value == ""
    assert app.text_input[0].disabled, "the system message stands for the whole conversation"
    app.text_area[0].set_value("w3")
    click(app, "Send")
    finish(runner().latest(chatty.owner))
    app = settled(app)
    made = chatty.slot(CompareState).generation
    assert made.chat.said == ("w1 w2",)
    for name, column in made.columns.items():
        answer = first.columns[name].text
        assert column.prompt == f"<s>system: w9</s>user: w1 w2</s>assistant: {answer}</s>user: w3</s>assistant: "
        assert column.earlier == (answer,)
    shown = html_of(app)
    assert "w1 w2" in shown
    assert "mean KL" in text_of(app)
    assert not app.error
    app.text_area[0].set_value("w5")
    click(app, "Begin a new conversation")
    finish(runner().latest(chatty.owner))
    assert chatty.slot(CompareState).generation.chat.said == ()
    settled(app)


def test_other_systems_begin_a_conversation_anew(chatty: Studio) -> None:
    handles = variants.systems(chatty, ["second"])
    finish(writing.write(chatty, {name: handles[name] for name in NAMES}, "w1", dict(SETTINGS), Chat("", ())))
    app = settled(open_page(PAGE, chatty))
    assert "Send" in [button.label for button in app.button]
    next(item for item in app.multiselect if item.label == "Side by side").set_value([ORIGINAL, "second"])
    run(app)
    assert "Send" not in [button.label for button in app.button]
    assert app.text_area[0].value == "w1"


def test_with_the_chat_off_the_same_model_goes_on_with_plain_text(chatty: Studio) -> None:
    app = settled(open_page(PAGE, chatty))  # the text that it begins with is read by itself
    next(toggle for toggle in app.toggle if toggle.label == "Chat").set_value(False)
    app = settled(run(app))
    app.text_area[0].set_value(PROMPT)
    click(short(app), "Generate")
    finish(runner().latest(chatty.owner))
    settled(app)
    made = chatty.slot(CompareState).generation
    assert made.chat is None
    assert made.read_first == PROMPT


def test_a_template_that_refuses_is_a_sentence_and_nothing_begins(chatty: Studio, monkeypatch) -> None:
    monkeypatch.setattr(chatty.resident.handle.tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}", raising=False)
    app = open_page(PAGE, chatty)
    click(short(app), "Generate")
    assert any("roles must alternate" in error.value for error in app.error)
    assert chatty.slot(CompareState).generation is None
