"""The fingerprint tells apart what computes different things, and nothing else."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.evaluation import evaluate
from replaceme_core.models import fingerprints
from replaceme_core.models.architecture import families
from replaceme_core.models.loading import load, make_handle
from replaceme_core.plans.plan import EvaluationSection, ModelSection
from replaceme_core.solvers import fit
from replaceme_core.surgery import surgery
from tests.core.models.test_families import handle_of, random_model


def fingerprint_of(model: Any) -> str:
    return make_handle("made", model, None, families.find(model.config)).fingerprint


def with_config(folder: Path, target: Path, **changes: Any) -> Path:
    """The same checkpoint, other entries in its configuration."""
    shutil.copytree(folder, target)
    data = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(data | changes))
    return target


@pytest.mark.parametrize(
    "changes",
    [{"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, {"rms_norm_eps": 0.1}, {"hidden_act": "relu"}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_same_weights_under_another_configuration_are_another_model(llama: ModelHandle, llama_folder: Path, tmp_path: Path, changes):
    """Scores that are kept of the one are not those of the other."""
    other = load(ModelSection(path=str(with_config(llama_folder, tmp_path / "other", **changes))))
    assert other.fingerprint != llama.fingerprint
    section = EvaluationSection(tasks="demo:facts", limit=2)
    assert not evaluate.evaluate(llama, section).missing
    assert evaluate.known(llama, section).results
    assert evaluate.known(other, section).missing == ["demo_facts"]


def test_names_and_places_do_not_count(llama: ModelHandle, llama_folder: Path, tmp_path: Path):
    changes = {"_name_or_path": "elsewhere", "architectures": ["LlamaForCausalLM"], "transformers_version": "0.0", "id2label": {"0": "x"}}
    assert load(ModelSection(path=str(with_config(llama_folder, tmp_path / "other", **changes)))).fingerprint == llama.fingerprint


@pytest.mark.parametrize(
    ("family", "buffer"),
    [
        ("llama", "model.rotary_emb.inv_freq"),
        ("gpt_neo", "transformer.h.1.attn.attention.bias"),
        ("deepseek_v3", "model.layers.3.mlp.gate.e_score_correction_bias"),
    ],
)
def test_a_buffer_counts(family: str, buffer: str):
    model = random_model(family)
    before = fingerprint_of(model)
    flat = model.get_buffer(buffer).view(-1)
    flat[-1] = ~flat[-1] if flat.dtype == torch.bool else flat[-1] + 0.5
    assert fingerprint_of(model) != before


def test_settings_of_generation_count():
    """Tasks that let the model write go by them."""
    model = random_model("llama")
    before = fingerprint_of(model)
    model.generation_config.repetition_penalty = 1.5
    assert fingerprint_of(model) != before


def test_the_place_of_every_value_and_its_last_bit_count():
    """Sums and samples do not see columns that are exchanged, nor what is lost when a sum is rounded."""
    model = random_model("llama")
    before = fingerprint_of(model)
    weight = model.model.embed_tokens.weight
    own = weight.clone()
    weight.copy_(own[:, [0, 3, 2, 1, *range(4, own.shape[1])]])
    assert fingerprint_of(model) != before
    weight.copy_(own)
    assert fingerprint_of(model) == before
    weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
    assert fingerprint_of(model) != before


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_packed_weights_with_other_scales_are_another_model(wide, tmp_path: Path, kind: str):
    """Twice the weight has the same codes: only the scale beside them is another one."""
    folder = shutil.copytree(wide(), tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"] *= 2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    first, other = (load(ModelSection(path=str(path), quantisation=kind)).fingerprint for path in (wide(), folder))
    assert first != other


def test_a_table_that_changes_with_the_length_of_a_text_does_not_make_another_model():
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=320, max_position_embeddings=64,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
                         "original_max_position_embeddings": 16},
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    before, table = fingerprint_of(model), model.model.rotary_emb.inv_freq.clone()
    model(input_ids=torch.arange(30)[None])
    assert not torch.equal(model.model.rotary_emb.inv_freq, table)
    assert fingerprint_of(model) == before


def test_a_cut_reads_the_new_tensors_only_and_finds_what_a_full_reading_finds(llama_folder: Path, measurement, monkeypatch):
    llama = load(ModelSection(path=str(llama_folder)))  # nothing was written into its tensors since it was loaded
    read: list[tuple[int, ...]] = []
    digest = fingerprints._digest
    monkeypatch.setattr(fingerprints, "_digest", lambda tensor: read.append(tuple(tensor.shape)) or digest(tensor))
    made = surgery.prune(llama, fit(measurement, Span(2, 4), "least_squares", 0.01), "pruned").handle
    assert sorted(shape for shape in read if len(shape) > 1) == [(32, 48)]
    with made.borrow() as model:
        assert fingerprint_of(copy.deepcopy(model)) == made.fingerprint


def test_a_shared_tensor_that_was_written_into_since_is_read_again():
    handle = handle_of("llama")
    with handle.borrow() as model:
        model.model.layers[0].mlp.down_proj.weight[0, 0] += 1
        again = make_handle("again", model, None, handle.family, kin=handle)
        assert again.fingerprint != handle.fingerprint
        assert again.fingerprint == fingerprint_of(copy.deepcopy(model))


def test_every_value_counts_also_where_a_piece_ends_and_the_next_begins(monkeypatch):
    """Large tensors come to the CPU in pieces; how they are cut leaves no value out and changes nothing."""
    values = torch.arange(50.0).view(5, 10)
    whole = fingerprints._digest(values)
    monkeypatch.setattr(fingerprints, "_AT_ONCE", 7)
    assert fingerprints._digest(values) == whole
    for index in range(values.numel()):
        changed = values.clone()
        changed.view(-1)[index] += 1
        assert fingerprints._digest(changed) != whole, index
