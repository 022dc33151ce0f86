"""Every way in which a model cannot be loaded ends in one sentence; what loads is what was saved."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

from replaceme_core.artifacts import LinearTransform, Span
from replaceme_core.calibration.calibration import prepare
from replaceme_core.errors import FamilyError
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models import fingerprints
from replaceme_core.models.checkpoints.sources import locate
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from replaceme_core.surgery.surgery import prune
from tests.support.tiny_models import CONFIGS, save_tiny, tokenizer


def at(path, **values) -> ModelSection:
    return ModelSection(path=str(path), **values)


@pytest.fixture
def folder(llama_folder, tmp_path) -> Path:
    """A copy of the tiny llama that a test may damage."""
    return Path(shutil.copytree(llama_folder, tmp_path / "damaged"))


def test_what_is_loaded_computes_what_was_saved(handle, tmp_path):
    with handle.borrow() as model:
        model.save_pretrained(tmp_path)
        handle.tokenizer.save_pretrained(tmp_path)
        ids = torch.arange(3, 40).unsqueeze(0)
        again = load(at(tmp_path))
        with again.borrow() as reloaded, torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, reloaded(input_ids=ids).logits)
    assert again.fingerprint == handle.fingerprint


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(llama):
    with llama.borrow() as model:
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_a_handle_says_what_the_model_is(llama, llama_folder):
    assert (llama.n_blocks, llama.width, llama.dtype, llama.device) == (6, 32, "float32", "cpu")
    assert llama.name == llama_folder.name
    with llama.borrow() as model:
        assert llama.n_parameters == sum(p.numel() for p in model.parameters())


def test_a_tokenizer_without_a_pad_token_gets_one_that_exists(llama, llama_folder):
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(llama_folder).pad_token_id is None
    assert llama.tokenizer.pad_token_id == llama.tokenizer.eos_token_id


def test_a_tokenizer_without_any_special_token_still_gets_a_pad_token(folder):
    data = json.loads((folder / "tokenizer_config.json").read_text())
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        data.pop(key, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(data))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    assert load(at(folder)).tokenizer.pad_token_id is not None


def test_a_refused_family_loads_but_neither_measures_nor_prunes_and_says_why(tmp_path, texts):
    """BERT as a decoder: its norms stand behind the writer, on the residual stream itself."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 320}
    BertLMHeadModel(BertConfig(is_decoder=True, **sizes)).save_pretrained(tmp_path)
    tokenizer(tmp_path)
    bert = load(at(tmp_path))
    assert bert.family.merge == "refused"
    assert (bert.n_blocks, bert.width) == (3, 16)
    calibration = prepare(CalibrationSection(max_tokens=300), bert.tokenizer, texts, name="few")
    sentence = "The family 'bert' cannot be pruned here: " + re.escape(bert.family.reason)
    with pytest.raises(FamilyError, match=sentence):
        measure(bert, calibration)
    with pytest.raises(FamilyError, match=sentence):
        prune(bert, LinearTransform(Span(1, 2), "drop", None, None), "pruned")


@pytest.mark.parametrize("kind", CONFIGS)
def test_preflight_numbers_are_those_of_the_loaded_model(kind, tmp_path):
    path = save_tiny(tmp_path, kind)
    found, loaded = preflight(at(path)), load(at(path))
    assert (found.n_blocks, found.width, found.n_parameters) == (loaded.n_blocks, loaded.width, loaded.n_parameters)
    assert found.family == loaded.family
    with loaded.borrow() as model:
        assert found.architecture == type(model).__name__
    assert found.bytes_by_dtype == {
        "float32": 4 * found.n_parameters,
        "bfloat16": 2 * found.n_parameters,
        "float16": 2 * found.n_parameters,
    }
    assert found.fits
    assert "are free" in found.verdict


def test_a_model_too_large_for_the_machine_is_told_before_any_weight_is_read(folder):
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(data | {"hidden_size": 2**16, "intermediate_size": 2**18, "num_hidden_layers": 500, "head_dim": 128})
    )
    found = preflight(at(folder))
    assert not found.fits
    assert "too little" in found.verdict
    assert found.needed_bytes > found.available_bytes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_16_bit_load_holds_16_bit_weights(llama_folder, llama, dtype):
    handle = load(at(llama_folder, dtype=dtype))
    assert handle.dtype == dtype
    with handle.borrow() as model, llama.borrow() as original:
        for (name, small), (_, full) in zip(model.named_parameters(), original.named_parameters(), strict=True):
            assert small.dtype == getattr(torch, dtype), name
            assert torch.equal(small, full.to(small.dtype))
    assert handle.n_bytes < 0.6 * llama.n_bytes
    assert handle.fingerprint != llama.fingerprint


def test_the_fingerprint_changes_with_any_one_weight(llama):
    with llama.borrow() as model:
        changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in changed.named_parameters():
        flat = tensor.data.view(-1)
        for index in (0, 1, len(flat) - 1, int(torch.randint(len(flat), (1,), generator=generator))):
            before = flat[index].clone()
            flat[index] += 0.5
            assert fingerprints.of(changed)[0] != llama.fingerprint, f"{name}[{index}]"
            flat[index] = before
    assert fingerprints.of(changed)[0] == llama.fingerprint


def test_progress_ends_at_its_total(llama_folder):
    seen = []

    class Record:
        def update(self, done, total, unit, what):
            seen.append((done, total, unit, what))

    load(at(llama_folder), Record())
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)
    assert seen[-1][0] == seen[-1][1]


def test_the_demo_is_a_folder_of_this_repository():
    assert Path(locate(at("demo"))[0]).parts[-3:] == ("assets", "demo", "model")
