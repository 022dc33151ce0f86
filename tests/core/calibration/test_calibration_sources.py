"""Where calibration text comes from beside files: mixtures, presets, the model itself; and how little of it is padding."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from replaceme_core.calibration import hub_text
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.calibration.text_files import token_ids
from replaceme_core.comparison import next_token
from replaceme_core.errors import InputError, TextError
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import CalibrationSection


def written(folder: Path, name: str, texts: list[str]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return str(path)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_a_mixture_takes_its_share_of_the_tokens_from_the_second_set(share, llama, texts, tmp_path):
    section = CalibrationSection(
        source=written(tmp_path, "first", ["w1 " * 30] * 3 + texts[:30]),
        second=written(tmp_path, "second", texts[30:]),
        second_share=share,
        max_tokens=800,
    )
    mixed = prepare(section, llama.tokenizer)
    known = {tuple(llama.tokenizer(text)["input_ids"]) for text in texts[30:]}
    second = sum(len(s) for s in mixed.sequences if any(key[: len(s)] == tuple(s.tolist()) for key in known))
    assert mixed.n_tokens == 800
    assert second == round(share * 800)
    assert [part.n_tokens for part in mixed.sources] == [800 - second, second]
    assert sum(part.n_sequences for part in mixed.sources) == len(mixed.sequences)
    assert set(mixed.sources[1].previews) <= set(texts[30:])
    assert f"{share:.0%}" in mixed.name


def test_an_unknown_preset_is_an_error_that_lists_the_known_ones(llama):
    with pytest.raises(InputError, match=r"no calibration preset 'orca'.*slimorca, fineweb, c4, wikitext"):
        prepare(CalibrationSection(source="preset:orca"), llama.tokenizer)


def test_chats_of_a_preset_are_rendered_with_one_beginning_of_text(llama_folder, monkeypatch):
    import datasets

    rows = [
        {"conversations": [{"from": "system", "value": "w1"}, {"from": "human", "value": f"w{i} w3"}, {"from": "gpt", "value": "w4 w5"}]}
        for i in range(9)
    ]
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **_options: asked.append(args) or iter(rows))
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    chats = prepare(CalibrationSection(source="preset:slimorca", max_tokens=300), tokenizer)
    assert asked == [("Open-Orca/SlimOrca", None)]
    assert all((sequence == tokenizer.bos_token_id).sum() == 1 for sequence in chats.sequences)
    assert "user: w" in chats.previews[0]
    assert "assistant: w4 w5" in chats.previews[0]


@pytest.mark.parametrize("turn", [{"from": "robot", "value": "w1"}, {"from": "human"}, {"role": "user", "content": 3}])
def test_a_turn_without_a_known_role_and_text_is_an_error_with_its_row(turn, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_options: iter([{"conversations": [turn]}]))
    with pytest.raises(TextError, match="SlimOrca, row 1"):
        list(hub_text.stream_preset("slimorca"))


def test_every_preset_names_an_id_and_a_column():
    assert all({"about", "id", "column"} <= preset.keys() for preset in hub_text.presets().values())


def test_less_than_five_percent_of_the_computed_positions_are_padding(llama):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 200, (120,), generator=generator).tolist()
    sequences = [torch.randint(3, 300, (n,), generator=generator) for n in lengths]
    mixed = CalibrationSet("mixed lengths", sequences, [i % 10 == 0 for i in range(120)], "mixed", [])
    assert 0 <= measure(llama, mixed, spans=[]).padding_share < 0.05


RENDERED_BEFORE = ["<s> w1 w2", "<s>w3 w4 w5", "w6 w7"]


def test_a_text_that_was_rendered_before_it_came_gets_no_second_first_token(llama, tmp_path):
    """A tokenizer that begins every text with its first token, and texts that begin with it in letters already."""
    path = tmp_path / "rendered.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in RENDERED_BEFORE))
    tokenizer = llama.tokenizer
    assert tokenizer("<s>w3 w4 w5")["input_ids"][:2] == [1, 1], "or there is nothing to mend"
    calibration = prepare(CalibrationSection(source=str(path), max_tokens=300, test_tokens=0), tokenizer)
    assert [sequence.tolist().count(1) for sequence in calibration.sequences] == [1, 1, 1]
    assert next_token.encode(llama, "<s>w3 w4 w5").tolist() == tokenizer("w3 w4 w5")["input_ids"]


def test_a_first_token_further_on_in_a_text_stays(llama):
    assert token_ids("w1 <s> w2", llama.tokenizer) == llama.tokenizer("w1 <s> w2")["input_ids"]
    assert token_ids("<s><s>w1", llama.tokenizer).count(1) == 2


def test_the_shipped_text_of_smollm2_is_read_with_any_template_and_has_no_other_names(llama):
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    chats = prepare(CalibrationSection(source="smollm2:chats", max_tokens=2000), tokenizer)
    assert all((sequence == 1).sum() <= 1 for sequence in chats.sequences)
    assert "assistant: " in chats.previews[0]
    assert prepare(CalibrationSection(source="smollm2:prose", max_tokens=2000), tokenizer).n_tokens == 2000
    with pytest.raises(InputError, match="no text of SmolLM2 called 'verse'; choose one of chats, prose"):
        prepare(CalibrationSection(source="smollm2:verse"), tokenizer)
