"""One verdict on a model wherever it is asked for: before its weights are read, when they are, and by every command."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import Span
from replaceme_core.errors import FamilyError, ModelError
from replaceme_core.export.export import export
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models.architecture import families, linearity
from replaceme_core.models.checkpoints import stored_shapes
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection
from tests.core.cli.test_cli import inside
from tests.core.models.test_families import handle_of, pruned
from tests.support.family_configs import _MIXED, SHAPE, UNKNOWN, random_tokens
from tests.support.mixed_configs import MIXED, REFUSED
from tests.support.tiny_models import tokenizer

_ENCODER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 320}


def saved(model: Any, folder: Path) -> ModelSection:
    model.save_pretrained(folder)
    tokenizer(folder)
    return ModelSection(path=str(folder))


def gemma3() -> Any:
    """Gemma 3 that also sees; both towers are as deep."""
    text = hf.Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8, layer_types=list(_MIXED))
    eyes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    ids = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7}
    return hf.Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=1, **ids)


def streams_of_several() -> Any:
    shape = SHAPE | {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 3}
    more = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 320, "num_kv_shared_layers": 2, "laurel_rank": 4}
    return hf.Gemma3nTextConfig(**shape, **more)


@pytest.mark.parametrize("make", [*UNKNOWN.values(), MIXED["glm4_moe"], REFUSED["afmoe"], streams_of_several])
def test_what_only_a_measurement_can_tell_is_unknown_before_it(make: Any, tmp_path: Path) -> None:
    section = saved(AutoModelForCausalLM.from_config(make()), tmp_path)
    found = preflight(section)
    assert found.merge == "unknown"
    assert "is measured when the weights are read" in found.reason
    assert load(section).family.merge in ("exact", "refused")
    assert "unknown until it is measured" in inside("inspect", tmp_path).stdout


def test_streams_of_another_shape_are_refused_with_that_shape() -> None:
    reason = handle_of("gemma3n", {"gemma3n": streams_of_several}).family.reason
    assert "its blocks hand on 4x1x8x32 and not one residual stream" in reason


def test_blocks_behind_a_wrapper_are_found_and_what_is_beside_them_stays(tmp_path: Path) -> None:
    handle = handle_of("gemma3", {"gemma3": gemma3})
    assert handle.family.merge == "diagonal"
    with handle.borrow() as model:
        seen = {name: tensor.clone() for name, tensor in model.state_dict().items() if "vision" in name}
        with torch.device("meta"):
            bare = AutoModelForCausalLM.from_config(gemma3())
        assert linearity.expected(bare, families.find(bare.config)) == handle.family
    variant = pruned(handle, random_tokens(6), Span(1, 3))
    assert all(proof.passed for proof in export(variant, tmp_path / "out").proofs)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert len(seen) > 100
    assert all(torch.equal(tensor, again[name]) for name, tensor in seen.items())


def test_a_row_whose_blocks_are_not_there_is_one_refusal_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = saved(AutoModelForCausalLM.from_config(hf.LlamaConfig(**SHAPE)), tmp_path)
    monkeypatch.setattr(linearity, "find_blocks", lambda _model: None)
    row = families.Family("llama", ("llama",), "model.language.layers", ("mlp.down_proj",), "a row")
    monkeypatch.setattr(families, "find", lambda _config: row)
    monkeypatch.setattr(stored_shapes, "read", lambda _folder: None)  # a row of the table is not asked for by a configuration
    found, handle = preflight(section), load(section)
    assert (found.merge, found.reason) == (handle.family.merge, handle.family.reason)
    assert handle.family.merge == "refused"
    assert handle.widest > 0
    with pytest.raises(FamilyError, match=r"no single list of 6 blocks is found in LlamaForCausalLM"):
        measure(handle, random_tokens(6))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (hf.BertForMaskedLM, hf.BertConfig(**_ENCODER)),
        (hf.RobertaForMaskedLM, hf.RobertaConfig(**_ENCODER)),
        (hf.BartForConditionalGeneration, hf.BartConfig(vocab_size=320, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16)),
    ],
)  # fmt: skip
def test_what_reads_both_ways_is_refused_by_every_entry_point(kind: Any, config: Any, tmp_path: Path, texts_file: Path) -> None:
    section = saved(kind(config), tmp_path / "model")
    for call in (load, preflight):
        with pytest.raises(ModelError, match=f"is not a causal language model.*{kind.__name__}"):
            call(section)
    path = tmp_path / "model"
    for arguments in (
        ("inspect", path),
        ("load", path),
        ("evaluate", "--model", path, "--tasks", "plain", "--limit", 1),
        ("fit", "--model", path, "--calibration", texts_file, "--span", "1:2", "--out", tmp_path / "out"),
        ("distances", "--model", path, "--calibration", texts_file),
    ):
        done = inside(*arguments)
        assert done.exit_code == 1, done.output
        assert "is not a causal language model" in done.stderr


def test_attention_that_looks_ahead_is_seen_in_the_model_itself(tmp_path: Path) -> None:
    """The configuration says nothing of it: a head for next tokens on an encoder that was saved as one."""
    section = saved(hf.BertLMHeadModel(hf.BertConfig(**_ENCODER, is_decoder=False)), tmp_path)
    with pytest.raises(ModelError, match="depends on the tokens behind it"):
        load(section)


def test_a_decoder_among_encoders_still_loads(tmp_path: Path) -> None:
    handle = load(saved(hf.BertLMHeadModel(hf.BertConfig(**_ENCODER, is_decoder=True)), tmp_path))
    assert handle.family.merge == "refused"
    assert handle.family.blocks == "" or handle.family.reason
