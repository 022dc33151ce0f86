"""A chat as a prompt: rendered once, special tokens once, refusals in a sentence; held-out texts as prompts."""

import copy

import pytest

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import prepare
from replaceme_core.calibration.text_files import RenderedChat
from replaceme_core.comparison.chats import chat_prompt, heldout_openings, is_rendered, message_of, openings_of_test
from replaceme_core.comparison.compare import encode, stream
from replaceme_core.errors import InputError
from replaceme_core.models.chat_template import has_template
from replaceme_core.plans.plan import CalibrationSection
from tests.support.tiny_models import CHAT_TEMPLATE


@pytest.fixture
def chatty(llama: ModelHandle):
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def handle(llama: ModelHandle, chatty):
    import dataclasses

    return dataclasses.replace(llama, tokenizer=chatty)


def test_a_conversation_is_what_the_template_makes_of_its_turns(chatty):
    turns = [("system", "w9"), ("user", "w1"), ("assistant", "w2"), ("user", "w3")]
    messages = [{"role": role, "content": content} for role, content in turns]
    expected = chatty.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert (
        chat_prompt(chatty, ["w1", "w3"], ["w2"], "w9")
        == expected
        == "<s>system: w9</s>user: w1</s>assistant: w2</s>user: w3</s>assistant: "
    )
    assert chat_prompt(chatty, ["w1"], system="  ") == "<s>user: w1</s>assistant: "


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_rendered_prompt_has_one_bos_whether_it_comes_from_the_template_or_was_pasted(handle, chatty, adds_bos):
    from tokenizers import processors

    if not adds_bos:
        chatty._tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    rendered = chat_prompt(chatty, ["w1 w2"])
    expected = chatty.apply_chat_template([{"role": "user", "content": "w1 w2"}], add_generation_prompt=True, return_dict=False)
    for text in (rendered, str(rendered), chat_prompt(chatty, [str(rendered)])):
        assert encode(handle, text).tolist() == expected
        assert expected.count(chatty.bos_token_id) == 1
    assert (int(encode(handle, "w1 w2")[0]) == chatty.bos_token_id) is adds_bos


def test_a_text_that_is_in_the_template_already_is_not_put_into_it_again(chatty):
    rendered = str(chat_prompt(chatty, ["w1"]))
    assert is_rendered(rendered, chatty)
    assert not is_rendered("w1 <s>", chatty)
    again = chat_prompt(chatty, [f"{rendered}"])
    assert (again, type(again)) == (rendered, RenderedChat)


def test_what_a_template_refuses_and_an_empty_message_are_sentences(chatty):
    chatty.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT_TEMPLATE
    with pytest.raises(InputError, match=r"no system role\); leave the system message out"):
        chat_prompt(chatty, ["w1"], system="w2")
    assert chat_prompt(chatty, ["w1"])
    with pytest.raises(InputError, match="message is empty"):
        chat_prompt(chatty, ["  "])
    chatty.chat_template = "{{ messages.__class__.__mro__ }}"
    with pytest.raises(InputError, match="unsafe"):
        chat_prompt(chatty, ["w1"])


def test_held_out_texts_are_prompts_of_the_held_out_part_alone(llama, calibration):
    found = heldout_openings(calibration, llama.tokenizer)
    held = [
        llama.tokenizer.decode(row, skip_special_tokens=True)
        for row, out in zip(calibration.sequences, calibration.heldout, strict=True)
        if out
    ]
    assert len(found) == len(held) > 2
    assert all(text.strip() and text.strip() in whole and len(text) < len(whole) for text, whole in zip(found, held, strict=True))
    assert not any("<s>" in text for text in found)
    tested = [llama.tokenizer.decode(row, skip_special_tokens=True) for row in calibration.test]
    assert len(tested) > 2
    assert all(text.strip() in whole for text, whole in zip(openings_of_test(calibration, llama.tokenizer), tested, strict=True))


def test_only_a_chat_of_one_message_under_no_system_message_of_its_own_has_a_message(chatty):
    chat = [{"role": "system", "content": "w9"}, {"role": "user", "content": "w1 w2"}]
    said = [chatty.apply_chat_template(part, tokenize=False, add_generation_prompt=True) for part in (chat[1:], chat)]
    assert [message_of(text, chatty) for text in (*said, "w1 w2", "")] == ["w1 w2", "", "", ""]


def test_a_held_out_chat_ends_where_the_model_is_to_answer_and_is_read_with_one_bos(handle, chatty):
    assert has_template(chatty)
    chats = [
        RenderedChat(
            chatty.apply_chat_template(
                [{"role": "user", "content": f"w{i}"}, {"role": "assistant", "content": f"w{i + 1}"}], tokenize=False
            )
        )
        for i in range(20)
    ]
    found = prepare(CalibrationSection(max_tokens=400, max_length=64, holdout=0.3), chatty, chats, "chats")
    openings = heldout_openings(found, chatty)
    assert len(openings) == sum(found.heldout)
    for opening in openings:
        assert opening.startswith("<s>user: w")
        assert opening.endswith("</s>assistant: ")
        assert encode(handle, opening).tolist().count(chatty.bos_token_id) == 1
        assert message_of(opening, chatty) == opening.removeprefix("<s>user: ").removesuffix("</s>assistant: ")
        assert "".join(stream(handle, opening, 3)) == "".join(stream(handle, chat_prompt(chatty, [opening]), 3))
