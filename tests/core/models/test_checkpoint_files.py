"""Folders as they come: shards without an index, names with a prefix, two checkpoints, an adapter beside; and weights that were saved quantised."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import Span
from replaceme_core.errors import ModelError
from replaceme_core.export.export import export
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection
from replaceme_core.storage.tensor_files import INDEX
from tests.core.cli.test_cli import inside
from tests.core.models.test_families import pruned
from tests.support.family_configs import random_tokens

IDS = torch.arange(3, 19).view(1, -1)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def loaded(folder: Path, **held: Any) -> tuple[torch.Tensor, str]:
    handle = load(ModelSection(path=str(folder), **held))
    with handle.borrow() as model:
        return logits(model), handle.origin


@pytest.fixture(scope="module")
def expected(llama_folder: Path) -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(llama_folder))


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama_folder, tmp_path / "model")


@pytest.fixture
def sharded(folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    return folder


def test_shards_without_an_index_are_read_and_nothing_is_written_beside_them(sharded: Path, expected: torch.Tensor) -> None:
    (sharded / INDEX).unlink()
    before = sorted(path.name for path in sharded.iterdir())
    found, said = loaded(sharded)
    assert torch.equal(found, expected)
    assert "shards without an index, read as it is meant" in said
    assert sorted(path.name for path in sharded.iterdir()) == before
    next(sharded.glob("model-00002-of-*")).unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of \d+ files of weights, and their index"):
        load(ModelSection(path=str(sharded)))


def test_two_checkpoints_in_one_folder_are_refused(sharded: Path, llama_folder: Path) -> None:
    shutil.copy(llama_folder / "model.safetensors", sharded)
    with pytest.raises(ModelError, match=r"holds two checkpoints, model.safetensors and the shards of .*; move one of them away"):
        load(ModelSection(path=str(sharded)))
    (sharded / "model.safetensors").unlink()
    (sharded / INDEX).unlink()
    first = next(sharded.glob("model-00001-of-*"))
    shutil.copy(first, sharded / "model-00001-of-00009.safetensors")
    with pytest.raises(ModelError, match="it holds the shards of 2 checkpoints"):
        load(ModelSection(path=str(sharded)))


@pytest.mark.parametrize("prefix", ["base_model.model.", "_orig_mod.", "module.", "module._orig_mod."])
def test_prefixes_of_training_programs_are_read_away_and_said(folder: Path, expected: torch.Tensor, prefix: str, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({prefix + name: value for name, value in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    found, said = loaded(folder)
    assert torch.equal(found, expected)
    assert f"names that begin with '{prefix}'" in said
    if prefix == "module.":
        export(pruned(load(ModelSection(path=str(folder))), random_tokens(6), Span(2, 4)), tmp_path / "out")
        assert not any(name.startswith(prefix) for name in load_file(tmp_path / "out" / "model.safetensors"))


def test_a_peft_model_with_its_adapter_apart_is_told_what_to_do(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    wrapped = {f"base_model.model.{name}".replace("q_proj.", "q_proj.base_layer."): value for name, value in weights.items()}
    save_file(wrapped, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"with its adapter still apart .*merge_and_unload\(\)"):
        load(ModelSection(path=str(folder)))


def test_an_adapter_beside_a_model_is_merged_said_and_written(folder: Path, expected: torch.Tensor, tmp_path: Path) -> None:
    import peft

    torch.manual_seed(0)
    section = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), section)
    tuned.save_pretrained(folder)
    wanted = logits(tuned)
    assert (wanted - expected).norm() > 0.01 * expected.norm()
    handle = load(ModelSection(path=str(folder)))
    with handle.borrow() as model:
        assert (logits(model) - wanted).norm() < 1e-5 * wanted.norm()
    assert "with an adapter beside it (adapter_config.json), merged into its weights" in handle.origin
    assert "adapter that lies beside the model" in preflight(ModelSection(path=str(folder))).left_out
    out = export(pruned(handle, random_tokens(6), Span(2, 4)), tmp_path / "out").folder
    assert "merged into its weights" in (out / "README.md").read_text()
    with pytest.raises(ModelError, match="an adapter beside it: nothing is merged into that on disk"):
        load(ModelSection(path=str(folder), device="spread"))


def _bits(folder: Path, **options: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=hf.BitsAndBytesConfig(**options), device_map={"": "cpu"})
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)


def _named(folder: Path, quantisation: dict[str, Any]) -> None:
    data = json.loads((folder / "config.json").read_text()) | {"quantization_config": quantisation}
    (folder / "config.json").write_text(json.dumps(data))


def _fp8(folder: Path) -> None:
    _named(folder, {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"})
    found: dict[str, torch.Tensor] = {}
    for name, value in load_file(folder / "model.safetensors").items():
        found[name] = value
        if "proj.weight" in name:
            blocks = value.view(value.shape[0] // 32, 32, value.shape[1] // 32, 32)
            scale = blocks.abs().amax((1, 3)) / 448
            found[name] = (blocks / scale[:, None, :, None]).view(value.shape).to(torch.float8_e4m3fn)
            found[f"{name}_scale_inv"] = scale
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


SAVED: dict[str, tuple[Callable[[Path], None], float]] = {
    "nf4": (lambda folder: _bits(folder, load_in_4bit=True, bnb_4bit_quant_type="nf4"), 0.5),
    "int8": (lambda folder: _bits(folder, load_in_8bit=True), 0.1),
    "fp8": (_fp8, 0.2),
}


@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_were_saved_quantised_are_plain_again_and_prunable(wide: Any, tmp_path: Path, kind: str, dtype: str) -> None:
    folder = shutil.copytree(wide(), tmp_path / kind)
    whole = logits(AutoModelForCausalLM.from_pretrained(folder))
    make, near = SAVED[kind]
    make(folder)
    handle = load(ModelSection(path=str(folder), dtype=dtype))
    assert (handle.dtype, handle.family.merge) == (dtype, "exact")
    with handle.borrow() as model:
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
        assert 0 < (logits(model).float() - whole).norm() < near * whole.norm()
    assert "dequantised; what that rounding lost stays lost" in handle.origin
    out = export(pruned(handle, random_tokens(6), Span(2, 4)), tmp_path / "out").folder
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    with pytest.raises(ModelError, match="turned back into plain weights whole, so it cannot be held in nf4"):
        load(ModelSection(path=str(folder), quantisation="nf4"))


def test_a_configuration_that_speaks_of_bits_over_plain_weights_is_said_and_read(folder: Path, expected: torch.Tensor) -> None:
    _named(folder, hf.BitsAndBytesConfig(load_in_4bit=True).to_dict())
    found, said = loaded(folder)
    assert torch.equal(found, expected)
    assert "whose weights are not quantised; read as they are" in said


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_what_cannot_be_turned_back_is_refused_before_weights_are_read_by_every_command(folder: Path, method: str, tmp_path: Path) -> None:
    _named(folder, {"quant_method": method, "bits": 4, "group_size": 32})
    for arguments in (("inspect", folder), ("load", folder), ("fit", "--model", folder, "--span", "2:4", "--out", tmp_path / "out")):
        done = inside(*arguments)
        assert done.exit_code == 1
        assert f"was saved quantised ({method})" in done.stderr
        assert "Choose the unquantised checkpoint" in done.stderr
