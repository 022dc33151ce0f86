"""Strict readers, exact budgets, and fingerprints that tell sets apart."""

import io
import json

import pytest
import torch

from replaceme_core.calibration.calibration import DEMO_SETS, prepare, read_file, read_source, read_upload
from replaceme_core.errors import InputError, TextError
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.storage.shipped import DEMO
from tests.support.tiny_models import WORDS

TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }} {% endfor %}"


def section(**values) -> CalibrationSection:
    return CalibrationSection(**{"max_tokens": 400, "max_length": 32, **values})


def lines(*records) -> bytes:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records).encode()


def parquet(**columns) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


GOOD = [
    ("a.txt", b"one line\nanother line\n", ["one line", "another line"]),
    ("a.txt", b"first\nparagraph\n\nsecond\n\n\n\nthird\n", ["first\nparagraph", "second", "third"]),
    ("a.TXT", b"first\r\n\r\nsecond\r\n", ["first", "second"]),
    ("a.txt", b"\xef\xbb\xbfwith a mark\nof UTF-8\n", ["with a mark", "of UTF-8"]),
    ("a.jsonl", lines({"text": "one", "n": 1}, "", {"text": "two"}), ["one", "two"]),
    ("a.csv", b'text,n\n"one, with a comma",1\n"two\nlines",2\n', ["one, with a comma", "two\nlines"]),
    ("a.parquet", parquet(text=["one", "two"], n=[1, 2]), ["one", "two"]),
]


@pytest.mark.parametrize(("name", "data", "expected"), GOOD)
def test_each_format_gives_its_texts_in_order(name, data, expected):
    assert read_upload(name, data) == expected


def test_another_column_can_be_named_in_every_format_with_columns():
    for name, data in (
        ("a.jsonl", lines({"body": "x", "text": "y"})),
        ("a.csv", b"body,text\nx,y\n"),
        ("a.parquet", parquet(body=["x"], text=["y"])),
    ):
        assert read_upload(name, data, column="body") == ["x"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"], ids=["U+2028", "U+2029", "U+0085"])
def test_a_line_separator_inside_a_json_string_does_not_end_the_line(separator):
    text = f"before{separator}after"
    data = (json.dumps({"text": text}, ensure_ascii=False) + "\n" + json.dumps({"text": "second"})).encode()
    assert read_upload("a.jsonl", data) == [text, "second"]


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1e"], ids=["U+2028", "U+0085", "form feed", "record separator"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
def test_a_line_of_plain_text_ends_where_an_editor_ends_it(separator, end):
    text = f"before{separator}after"
    assert read_upload("a.txt", f"{text}{end}second{end}".encode()) == [text, "second"]
    assert read_upload("a.txt", f"{text}{end}it goes on{end} {end}second".encode()) == [f"{text}\nit goes on", "second"]


BAD = [
    ("a.txt", b"", "a.txt is empty"),
    ("a.jsonl", b" \n \n", "a.jsonl is empty"),
    ("a.txt", b"text\x00more", r"a.txt is a binary file \(it holds zero bytes\)"),
    ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', r"a.jsonl, line 2: byte 24 is not UTF-8"),
    ("a.csv", b"text\nfine\n\xe9t\xe9\n", r"a.csv, line 3: byte 10 is not UTF-8"),
    ("a.jsonl", lines({"text": "x"}, "{'text': 'y'}"), "a.jsonl, line 2 is not JSON"),
    ("a.jsonl", lines({"text": "x"}, "", '{"text": "cut of'), "a.jsonl, line 3 is not JSON"),
    ("a.jsonl", b'{"text": ' + b"[" * 100_000, "a.jsonl, line 1 is not JSON"),
    ("a.jsonl", lines(["a", "list"]), "a.jsonl, line 1 is a JSON list, not an object with the column 'text'"),
    ("a.jsonl", lines({"text": "x"}, {"body": "y", "n": 1}), "a.jsonl, line 2 has no column 'text'; it has body, n"),
    ("a.jsonl", lines({"text": 3}), "a.jsonl, line 1: the column 'text' holds int, not text"),
    ("a.jsonl", lines({"text": None}), "a.jsonl, line 1: the column 'text' holds NoneType, not text"),
    ("a.jsonl", lines({"text": "x"}, {"text": "  "}), "a.jsonl, line 2: the column 'text' is blank; remove the row"),
    (
        "a.jsonl",
        lines({"text": "x"}, '{"text": "\\ud800"}'),
        "a.jsonl, line 2.*surrogate|a.jsonl, line 2.*not text|a.jsonl, line 2.*character",
    ),
    ("a.jsonl", lines({"messages": []}), "a.jsonl, line 1: 'messages' is empty"),
    ("a.jsonl", lines({"messages": ["hello"]}), "a.jsonl, line 1: every message needs a text 'role' and a text 'content'"),
    ("a.jsonl", lines({"messages": [{"role": "user"}]}), "a.jsonl, line 1: every message needs"),
    ("a.csv", b"text,n\nx,1\n,2\n", "a.csv, line 3: the column 'text' is blank"),
    ("a.csv", b"body,n\nx,1\n", "a.csv, line 2 has no column 'text'; it has body, n"),
    ("a.csv", b'text\n"never closed\nmore\n', "a.csv, line 3: unexpected end of data"),
    ("a.csv", b'text\n"quoted" and more\n', "a.csv, line 2: "),
    ("a.csv", b"text\n", "a.csv holds no text"),
    ("a.csv", b"n,text\n1\n", "a.csv, line 2 has no field for the column 'text'"),
    ("a.parquet", b"PAR1 but not really", "a.parquet is not a readable parquet file"),
    ("a.parquet", parquet(body=["x"], n=[1]), "a.parquet has no column 'text'; it has body, n"),
    ("a.parquet", parquet(text=["x", None]), "a.parquet, row 2: the column 'text' holds NoneType, not text"),
    ("a.parquet", parquet(text=[1, 2]), "a.parquet, row 1: the column 'text' holds int, not text"),
    ("a.pdf", b"%PDF", r"a.pdf: the ending '.pdf' is not known; use .txt"),
    ("noending", b"text", "noending: the ending .* is not known"),
]


@pytest.mark.parametrize(("name", "data", "sentence"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_with_file_line_and_reason(name, data, sentence):
    with pytest.raises(TextError, match=sentence):
        read_upload(name, data)


def test_a_long_text_in_a_csv_field_is_read():
    assert read_upload("a.csv", b"text\n" + b"word " * 50_000 + b"\n")[0].startswith("word word")


def test_a_file_that_is_not_there_is_a_text_error_with_its_path(tmp_path):
    with pytest.raises(TextError, match=r"none.jsonl cannot be read .*check the path"):
        read_file(tmp_path / "none.jsonl")
    with pytest.raises(TextError, match="cannot be read"):
        read_file(tmp_path)


CHAT = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}]


def test_a_chat_needs_a_chat_template_and_the_error_says_so(llama):
    data = lines({"text": "plain"}, {"messages": CHAT})
    with pytest.raises(TextError, match=r"a.jsonl, row 2 is a chat .*no chat template; give plain 'text'"):
        read_upload("a.jsonl", data, tokenizer=llama.tokenizer)
    with pytest.raises(TextError, match="no chat template"):
        read_upload("a.jsonl", data)


@pytest.fixture
def chatty(llama_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_chat_with_a_template_has_exactly_one_bos(chatty, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_bytes(lines(*[{"messages": CHAT}] * 3))
    found = prepare(section(source=str(path)), chatty)
    assert len(found.sequences) == 3
    for sequence in found.sequences:
        assert sequence[0] == chatty.bos_token_id
        assert int((sequence == chatty.bos_token_id).sum()) == 1
    expected = chatty.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    assert found.sequences[0].tolist() == expected


def test_a_chat_keeps_its_bos_where_the_tokenizer_adds_none_of_its_own(chatty, tmp_path):
    """Some tokenizers know a BOS token, leave it to the chat template, and add none to plain text."""
    from tokenizers import processors

    chatty._tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    assert chatty("w1")["input_ids"][0] != chatty.bos_token_id
    path = tmp_path / "chats.jsonl"
    path.write_bytes(lines(*[{"messages": CHAT}] * 2))
    for sequence in prepare(section(source=str(path)), chatty).sequences:
        assert sequence.tolist() == chatty.apply_chat_template(CHAT, tokenize=True, return_dict=False)


def test_a_chat_that_the_template_refuses_is_a_text_error_with_its_row(chatty):
    chatty.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(TextError, match=r"a.jsonl.* 1.*roles must alternate"):
        read_upload("a.jsonl", lines({"messages": CHAT}), tokenizer=chatty)


def test_plain_texts_have_exactly_one_bos_too(calibration, llama):
    whole = [s for s in calibration.sequences if s[0] == llama.tokenizer.bos_token_id]
    assert whole
    assert all(int((s == llama.tokenizer.bos_token_id).sum()) == 1 for s in whole)


SHORT = [" ".join(WORDS[i : i + 3]) for i in range(140)]
"""texts of one sequence each"""


@pytest.mark.parametrize("budget", [2, 3, 10, 33, 34, 100, 333, 334, 335, 336, 337])
def test_exactly_the_budget_is_used_when_the_texts_have_as_many_tokens(llama, budget):
    if budget < 4:
        with pytest.raises(InputError, match="usable sequence"):
            prepare(section(max_tokens=budget), llama.tokenizer, SHORT, name="texts")
        return
    found = prepare(section(max_tokens=budget, max_length=min(32, budget // 2)), llama.tokenizer, SHORT, name="texts")
    assert found.n_tokens == sum(found.lengths) == budget


def test_no_budget_between_100_and_200_is_missed_by_a_token(llama):
    missed = [b for b in range(100, 200) if prepare(section(max_tokens=b), llama.tokenizer, SHORT, name="texts").n_tokens != b]
    assert missed == []


def test_a_budget_of_one_long_text_is_used_but_for_the_gap(llama, texts):
    longest = max(texts, key=len)
    for budget in (60, 80, 100):
        found = prepare(section(max_tokens=budget, max_length=16, test_tokens=0), llama.tokenizer, [longest], name="one")
        assert budget - int(0.05 * budget) - 2 <= found.n_tokens < budget


def test_texts_shorter_than_the_budget_are_used_whole(llama):
    rows = ["w1 w2 w3 w4", "w5 w6 w7"]
    found = prepare(section(max_tokens=10_000), llama.tokenizer, rows, name="two")
    assert sorted(map(tuple, (s.tolist() for s in found.sequences))) == sorted(tuple(llama.tokenizer(row)["input_ids"]) for row in rows)


def test_a_long_text_is_cut_into_consecutive_pieces_of_the_sequence_length(llama):
    long = " ".join(WORDS[:100])
    ids = llama.tokenizer(long)["input_ids"]
    found = prepare(section(max_tokens=10_000, max_length=16, test_tokens=0), llama.tokenizer, [long], name="long")
    assert max(found.lengths) == 16
    assert min(found.lengths) >= 2
    written = " ".join(map(str, ids))
    places = sorted(written.index(" ".join(map(str, s.tolist()))) for s in found.sequences)
    assert len(set(places)) == len(found.sequences), "each stands in the text, at a place of its own"
    gap = min(16, int(0.05 * len(ids)))
    assert 0 <= len(ids) - gap - found.n_tokens <= 2, "nothing is lost but the gap before the held-out tail, and single tokens"


def test_the_same_seed_gives_the_same_set_and_another_seed_another(llama, texts):
    first, again, other = (prepare(section(seed=seed), llama.tokenizer, texts, name="texts") for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint
    assert first.heldout == again.heldout
    assert all(torch.equal(a, b) for a, b in zip(first.sequences, again.sequences, strict=True))
    assert other.fingerprint != first.fingerprint


def test_the_fingerprint_tells_texts_lengths_budgets_and_splits_apart_but_not_names(llama, texts):
    def of(rows=texts, name="texts", **values):
        return prepare(section(**values), llama.tokenizer, rows, name=name).fingerprint

    base = of()
    changed = [
        of(max_tokens=399),
        of(max_length=31),
        of(holdout=0.3),
        of([*texts[:-1], "w1 w2"], max_tokens=10_000),
        of(texts, max_tokens=10_000),
    ]
    assert len({base, *changed}) == 6
    assert of(name="another name") == base


def test_the_generators_of_the_process_are_left_alone(llama, texts):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    prepare(section(), llama.tokenizer, texts, name="texts")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("holdout", [0.01, 0.1, 0.5, 0.99])
def test_the_split_comes_near_the_share_and_both_parts_have_at_least_one(llama, texts, holdout):
    found = prepare(section(holdout=holdout), llama.tokenizer, texts, name="texts")
    out = sum(found.heldout)
    assert 1 <= out <= len(found.sequences) - 1
    assert abs(out - holdout * len(found.sequences)) <= 2, "a text of these is two sequences at most"
    assert found.n_heldout_tokens == sum(len(s) for s, o in zip(found.sequences, found.heldout, strict=True) if o)


def test_a_text_that_occurs_twice_is_not_in_both_parts(llama, texts):
    found = prepare(section(holdout=0.2, max_tokens=10_000), llama.tokenizer, texts[:20] * 3, name="every text three times")
    rows = list(zip(map(tuple, (s.tolist() for s in found.sequences)), found.heldout, strict=True))
    train, heldout = ({row for row, out in rows if out is part} for part in (False, True))
    assert train
    assert heldout
    assert not train & heldout


@pytest.mark.parametrize("rows", [[], ["w1 w2"], ["", ""]], ids=["none", "one", "blank"])
def test_too_little_text_is_an_error_that_says_how_much_is_needed(llama, rows):
    with pytest.raises(InputError, match=r"gives [01] usable sequence\(s\); at least 2 are needed, one to fit and one to check"):
        prepare(section(), llama.tokenizer, rows, name="too few")


def test_an_unknown_demo_set_lists_those_that_exist():
    with pytest.raises(InputError, match=r"no demo calibration set 'poems'; choose one of .*stories"):
        read_source(section(source="demo:poems"))


@pytest.mark.parametrize("name", DEMO_SETS)
def test_every_demo_set_that_is_offered_can_be_read(name):
    if not (DEMO / "calibration").is_dir():
        pytest.fail("assets/demo/calibration is missing")
    found = list(read_source(section(source=f"demo:{name}")))
    assert len(found) >= 100
    assert all(isinstance(text, str) and text.strip() for text in found)


def test_a_hub_data_set_without_a_network_is_an_error_that_names_the_offline_way(monkeypatch):
    import datasets

    def no_network(*_args, **_kwargs):
        raise ConnectionError("no route to the hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(
        InputError, match=r"'some/set' could not be streamed \(ConnectionError: no route to the hub\).*demo sets and files work offline"
    ):
        list(read_source(section(source="hub:some/set")))


def test_a_hub_data_set_is_read_by_column_and_its_blank_rows_are_skipped(monkeypatch):
    import datasets

    rows = [{"text": "one"}, {"text": " "}, {"text": "two"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_kwargs: iter(rows))
    assert list(read_source(section(source="hub:some/set"))) == ["one", "two"]
    with pytest.raises(TextError, match="some/set, row 1 has no column 'body'; it has text"):
        list(read_source(section(source="hub:some/set", column="body")))
