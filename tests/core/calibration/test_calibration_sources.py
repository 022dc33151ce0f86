"""Where calibration text comes from beside files: mixtures, presets, the model itself; and how little of it is padding."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from replaceme_core.calibration import hub_text
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.calibration.self_text import generate
from replaceme_core.errors import InputError, NumericsError, TextError
from replaceme_core.measurement.measure import measure
from replaceme_core.models.loading import load
from replaceme_core.pipeline import prepare_for
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.conftest import save_tiny


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
    assert [part.n_tokens for part in mixed.parts] == [800 - second, second]
    assert sum(part.n_sequences for part in mixed.parts) == len(mixed.sequences)
    assert set(mixed.parts[1].previews) <= set(texts[30:])
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


def test_text_written_by_the_model_repeats_with_its_seed_and_is_of_the_length_asked_for(llama):
    section = CalibrationSection(source="self", max_tokens=400, max_length=24, seed=3)
    before = torch.get_rng_state()
    texts = generate(llama, section)
    assert torch.equal(before, torch.get_rng_state()), "the caller's random numbers are not touched"
    assert texts == generate(llama, section)
    assert texts != generate(llama, section.model_copy(update={"seed": 4}))
    own = prepare_for(llama, section)
    assert own.n_tokens == 400
    assert max(own.lengths) <= 24


class _Rounds:
    """A progress that counts the rounds."""

    def __init__(self) -> None:
        self.rounds = 0

    def update(self, *_: object) -> None:
        self.rounds += 1


def test_every_round_of_self_written_text_draws_anew_and_no_round_is_one_of_another_seed(llama):
    """Sixteen texts a round: as seeds of rounds lay sixteen apart, seed 19 began with the second round of seed 3."""
    long = CalibrationSection(source="self", max_tokens=1600, max_length=24, seed=3)
    texts, watch = generate(llama, long), _Rounds()
    others = generate(llama, long.model_copy(update={"seed": 19}), watch)
    assert watch.rounds > 2
    assert len(set(texts)) == len(texts)
    assert not set(texts) & set(others)


def test_a_round_without_text_is_followed_by_another_one(llama, monkeypatch):
    """The model ends all texts of a first round at once; drawn with the same seed again it would end them for ever."""
    seeds = []
    real = torch.Generator.manual_seed

    class Watched(torch.Generator):
        def manual_seed(self, seed):
            seeds.append(seed)
            return real(self, seed)

    monkeypatch.setattr(torch, "Generator", Watched)
    asked, before = 0, llama.tokenizer.batch_decode

    def decode(written, **options):
        nonlocal asked
        asked += 1
        return [""] * len(written) if asked <= 3 else before(written, **options)

    monkeypatch.setattr(llama.tokenizer, "batch_decode", decode)
    assert generate(llama, CalibrationSection(source="self", max_tokens=100, max_length=24))
    assert len(set(seeds)) == len(seeds) >= 4


def test_self_written_text_leaves_the_generators_of_an_accelerator_alone(llama, monkeypatch):
    """`torch.manual_seed` seeds CUDA and MPS as well, and a fork of the CPU's generator does not undo that."""
    for seeding in ("torch.manual_seed", "torch.cuda.manual_seed_all", "torch.mps.manual_seed"):
        monkeypatch.setattr(seeding, lambda _seed, seeding=seeding: pytest.fail(f"{seeding} reseeds a generator of the process"))
    generate(llama, CalibrationSection(source="self", max_tokens=100, max_length=24))


def test_self_written_text_is_not_bent_by_the_settings_a_model_was_published_with(llama, monkeypatch):
    """Chat models come with a penalty on repetition, which would make the text another distribution than the model's own."""
    section = CalibrationSection(source="self", max_tokens=100, max_length=24)
    plain = generate(llama, section)
    with llama.borrow() as model:
        monkeypatch.setattr(model.generation_config, "repetition_penalty", 5.0)
    assert generate(llama, section) == plain


def test_text_is_written_within_the_context_of_the_model_and_not_finite_chances_are_a_sentence(tmp_path):
    handle = load(ModelSection(path=str(save_tiny(tmp_path, "llama", max_position_embeddings=16))))
    lengths, decode = [], handle.tokenizer.batch_decode

    def noted(written, **options):
        lengths.extend(map(len, written))
        return decode(written, **options)

    handle.tokenizer.batch_decode = noted
    generate(handle, CalibrationSection(source="self", max_tokens=200, max_length=64))
    assert max(lengths) == 16
    with handle.borrow() as model:
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(NumericsError, match="not finite, so it cannot write text"):
        generate(handle, CalibrationSection(source="self", max_tokens=200, max_length=64))


def test_a_model_that_cannot_begin_by_itself_says_so(llama, llama_folder):
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(InputError, match="cannot start by itself"):
        generate(dataclasses.replace(llama, tokenizer=tokenizer), CalibrationSection(source="self"))


def test_less_than_five_percent_of_the_computed_positions_are_padding(llama):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 200, (120,), generator=generator).tolist()
    sequences = [torch.randint(3, 300, (n,), generator=generator) for n in lengths]
    mixed = CalibrationSet("mixed lengths", sequences, [i % 10 == 0 for i in range(120)], "mixed", [])
    assert 0 <= measure(llama, mixed, spans=[]).padding_share < 0.05
