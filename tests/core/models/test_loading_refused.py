"""Checkpoints that are refused: each with a sentence that says what is wrong and the way out."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BeitConfig, BertConfig, BertModel, T5Config

from replaceme_core.errors import ModelError
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection
from tests.support.tiny_models import tokenizer

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def at(path, **values) -> ModelSection:
    return ModelSection(path=str(path), **values)


@pytest.fixture
def folder(llama_folder, tmp_path) -> Path:
    """A copy of the tiny llama that a test may damage."""
    return Path(shutil.copytree(llama_folder, tmp_path / "damaged"))


def refused(section: ModelSection, sentence: str, call=load) -> None:
    with pytest.raises(ModelError, match=sentence) as caught:
        call(section)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_an_id_that_is_nowhere_is_refused_fast_and_names_spelling_and_network():
    began = time.perf_counter()
    refused(
        at("nobody/no-such-model-xyz"),
        r"'nobody/no-such-model-xyz' was not found: .*Check the spelling and the network; the demo model works offline",
    )
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("path", ["/no/such/folder", "./no/such/folder", "some/deep/folder", "~/no-such-folder"])
def test_a_folder_that_does_not_exist_is_not_taken_for_a_hub_id(path):
    refused(at(path), f"The folder '{path}' does not exist; check the path")


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    refused(at(tmp_path), "has no config.json; choose the folder that save_pretrained wrote")
    refused(at(tmp_path), "has no config.json", call=preflight)


def test_a_file_instead_of_a_folder_is_refused(llama_folder):
    refused(at(llama_folder / "model.safetensors"), "model.safetensors")


def test_pickled_weights_are_refused_and_never_read(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/should-never-exist'\ntR.")
    refused(at(folder), r"holds only pickled weights \(.bin\), which can run code .*safe_serialization=True")


def test_a_configuration_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    refused(at(folder), "has a config.json but no .safetensors weights; copy the weights beside it")


@pytest.mark.parametrize("size", [0, 5, 100, 20_000])
def test_a_truncated_weights_file_is_refused(folder, size):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    refused(at(folder), str(folder))


def test_missing_tensors_are_named(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.3.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(at(folder), r"incomplete \(missing: model.layers.3.mlp.down_proj.weight\); fetch or save the checkpoint again")


def test_tensors_of_a_wrong_shape_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.3.mlp.down_proj.weight"] = torch.zeros(32, 40)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(at(folder), "model.layers.3.mlp.down_proj.weight|size mismatch|mismatch")


def test_a_missing_shard_is_refused(llama, tmp_path):
    with llama.borrow() as model:
        model.save_pretrained(tmp_path, max_shard_size="100KB")
    llama.tokenizer.save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[-1].unlink()
    refused(at(tmp_path), rf"lacks 1 of {len(shards)} files of weights \({shards[-1].name}\); copy or fetch them")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "no_such_architecture"}', '{"architectures": ["X"]}'])
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    for call in (load, preflight):
        refused(at(folder), str(folder.name), call=call)


def test_impossible_numbers_in_a_configuration_are_refused(folder):
    data = json.loads((folder / "config.json").read_text())
    for key, value in (("hidden_size", "many"), ("num_attention_heads", 0), ("hidden_size", -32)):
        (folder / "config.json").write_text(json.dumps(data | {key: value}))
        for call in (load, preflight):
            refused(at(folder), str(folder.name), call=call)


def test_a_folder_without_a_tokenizer_is_refused_and_says_that_the_tokenizer_is_missing(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    refused(at(folder), "tokenizer")


@pytest.mark.parametrize("config", [T5Config(num_layers=2, d_model=16, vocab_size=50), BeitConfig(hidden_size=16, num_hidden_layers=1)])
def test_an_architecture_that_is_no_causal_language_model_is_refused(tmp_path, config):
    config.save_pretrained(tmp_path)
    tokenizer(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused(at(tmp_path), tmp_path.name)
    refused(at(tmp_path), "not a causal language model", call=preflight)


def test_an_encoder_is_refused_although_transformers_would_invent_a_head_for_it(tmp_path):
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=320)
    BertModel(config).save_pretrained(tmp_path)
    tokenizer(tmp_path)
    for call in (load, preflight):
        refused(at(tmp_path), r"is not a causal language model \(BertModel", call=call)


def test_a_checkpoint_with_code_of_its_own_is_refused_and_its_code_never_runs(folder, tmp_path):
    proof = tmp_path / "code-ran"
    (folder / "evil.py").write_text(
        f"open({str(proof)!r}, 'w').close()\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "class EvilConfig(LlamaConfig):\n    model_type = 'evil'\nclass EvilModel(LlamaForCausalLM):\n    config_class = EvilConfig\n"
    )
    data = json.loads((folder / "config.json").read_text())
    data |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}}
    (folder / "config.json").write_text(json.dumps(data))
    for call in (load, preflight):
        refused(at(folder), r"needs code of its own \(trust_remote_code\), which is never run here", call=call)
    assert not proof.exists()


def test_pickled_weights_beside_foreign_safetensors_are_not_read_either(folder):
    (folder / "model.safetensors").rename(folder / "transform.safetensors")
    torch.save(load_file(folder / "transform.safetensors"), folder / "pytorch_model.bin")
    refused(at(folder), "safetensors")


def test_an_architecture_that_transformers_does_not_know_is_named_with_the_installed_version(folder):
    data = json.loads((folder / "config.json").read_text()) | {"model_type": "brandnew9", "architectures": ["BrandNew9ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(data))
    for call in (load, preflight):
        refused(at(folder), r"has the architecture 'brandnew9', which the installed transformers \(\d+\.\d+\.\d+\) does not know; ", call)
    (folder / "config.json").write_text(json.dumps({key: data[key] for key in data if key != "model_type"}))
    refused(at(folder), r"names no architecture \(model_type\); fetch it again")
    (folder / "config.json").write_text("<html>404</html>")
    refused(at(folder), r"is damaged: it is not JSON\. Fetch it again")


def test_a_tokenizer_with_code_of_its_own_is_refused_and_its_code_never_runs(folder, tmp_path):
    proof = tmp_path / "code-ran"
    (folder / "evil.py").write_text(f"open({str(proof)!r}, 'w').close()\nclass T: pass\n")
    (folder / "tokenizer.json").unlink()
    data = json.loads((folder / "tokenizer_config.json").read_text())
    data |= {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.T", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(data))
    refused(at(folder), r"The tokenizer of '.*' needs code of its own \(trust_remote_code\), which is never run here")
    assert not proof.exists()


def test_a_quantised_checkpoint_whose_package_is_missing_says_to_take_the_unquantised_one(folder):
    data = json.loads((folder / "config.json").read_text())
    data["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
    (folder / "config.json").write_text(json.dumps(data))
    refused(at(folder), r"was saved quantised \(gptq\).*Choose the unquantised checkpoint.* 4 or 8 bits")


def test_a_pointer_of_git_lfs_is_told_from_damaged_weights(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 4404019\n")
    refused(at(folder), r"is a pointer of Git LFS, not the weights; run `git lfs pull` in its folder")


def test_an_adapter_is_told_from_a_model(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    refused(at(folder), r"holds an adapter, not a model; merge it into its base model")


def test_names_of_folders_do_not_decide_what_is_said_of_them(llama_folder, tmp_path):
    """Numbers and words of a path were once taken for the hub's answer."""
    folder = Path(shutil.copytree(llama_folder, tmp_path / "delegated-401-404-safetensors"))
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"hidden_size": "many"}))
    refused(at(folder), "cannot be loaded")
