"""Text that holds special tokens already, and files whose lines do not fit their header: read right, or named with file and line."""

from typing import Any

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import read_upload
from replaceme_core.calibration.text_files import RenderedChat, token_ids
from replaceme_core.errors import TextError


@pytest.mark.parametrize("text", ["<s>w1 w2", " <s>w1 w2", "\n\n<s>w1 w2"])
def test_a_text_that_begins_with_the_first_token_gets_no_second_one(llama: ModelHandle, text: str) -> None:
    assert token_ids(text, llama.tokenizer) == token_ids("w1 w2", llama.tokenizer)
    assert token_ids("<s><s>w1 w2", llama.tokenizer)[:2] == [1, 1]
    assert token_ids(RenderedChat("<s>w1"), llama.tokenizer).count(1) == 1


@pytest.fixture(scope="module")
def ending(llama_folder: Any) -> Any:
    """A tokenizer that puts a last token, too."""
    words = AutoTokenizer.from_pretrained(llama_folder)
    words._tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return words


@pytest.mark.parametrize("text", ["w1 w2</s>", "<s>w1 w2</s>\n", "w1 w2"])
def test_nor_does_a_text_that_ends_with_the_last(ending: Any, text: str) -> None:
    ids = token_ids(text, ending)
    assert (ids[0], ids[-1], ids.count(1), ids.count(2)) == (1, 2, 1, 1)


def test_a_comma_without_quotes_is_named_with_its_line_and_nothing_is_lost() -> None:
    with pytest.raises(TextError, match=r"t\.csv, line 3 has 1 field\(s\) more than the header \('and the rest'"):
        read_upload("t.csv", b"text\nfirst\nsecond, and the rest\n")
    with pytest.raises(TextError, match=r"t\.csv, line 2 has no field for the column 'text'"):
        read_upload("t.csv", b"id,text\n1\n")
    assert read_upload("t.csv", b'text,id\n"second, and the rest",2\nthird\n') == ["second, and the rest", "third"]
