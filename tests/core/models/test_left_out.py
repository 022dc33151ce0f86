"""What a checkpoint holds beside the model that is pruned: it is said before, on load and in the card, and no configuration goes on counting it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.export.export import export
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection, PruningPlan
from tests.core.cli.test_cli import inside
from tests.core.models.test_families import pruned
from tests.support.family_configs import _NEXT, FAMILIES, SHAPE, random_tokens
from tests.support.tiny_models import save_tiny, tokenizer


def exported(folder: Path, out: Path) -> Path:
    return export(pruned(load(ModelSection(path=str(folder))), random_tokens(6), Span(3, 5)), out).folder


def plan_for(folder: Path, texts: Path, device: str = "cpu") -> PruningPlan:
    calibration = {"source": str(texts), "max_tokens": 600, "max_length": 32}
    return PruningPlan.parse({"model": {"path": str(folder), "device": device}, "calibration": calibration, "span": {"start": 3, "end": 5}})


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen 3.5 that also sees, of which transformers gives the text part to whoever asks for a causal language model."""
    folder = tmp_path_factory.mktemp("seeing")
    linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    text = hf.Qwen3_5TextConfig(**SHAPE, head_dim=8, layer_types=list(_NEXT), **linear)
    eyes = {"hidden_size": 16, "intermediate_size": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32}
    torch.manual_seed(0)
    hf.Qwen3_5ForConditionalGeneration(hf.Qwen3_5Config(text_config=text.to_dict(), vision_config=eyes)).save_pretrained(folder)
    tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeepSeek V3 with a layer behind the last block that predicts one token more."""
    folder = tmp_path_factory.mktemp("predicting")
    torch.manual_seed(0)
    config = FAMILIES["deepseek_v3"]()
    config.num_nextn_predict_layers = 1
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    more = {name.replace("layers.5.", "layers.6."): value.clone() for name, value in weights.items() if ".layers.5." in name}
    save_file(weights | more, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer(folder)
    return folder


def test_a_tower_that_is_not_loaded_is_said_before_on_load_and_in_the_card(seeing: Path, tmp_path: Path) -> None:
    assert "has no place for vision_config" in preflight(ModelSection(path=str(seeing))).left_out
    assert "left out" in inside("inspect", seeing).stdout
    assert "tensors (model.visual) have no place in Qwen3_5ForCausalLM" in inside("load", seeing).stdout
    assert "tensors (model.visual) have no place in" in (exported(seeing, tmp_path / "out") / "README.md").read_text()


def _counts(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())["num_nextn_predict_layers"]


def test_layers_that_predict_more_tokens_are_left_out_in_memory_and_said(predicting: Path, tmp_path: Path) -> None:
    assert "1 layer(s) of multi-token prediction" in preflight(ModelSection(path=str(predicting))).left_out
    assert "(model.layers.6)" in load(ModelSection(path=str(predicting))).origin
    assert _counts(exported(predicting, tmp_path / "out")) == 0


def test_and_on_disk(predicting: Path, texts_file: Path, tmp_path: Path) -> None:
    run = pipeline.run(plan_for(predicting, texts_file, "spread"), tmp_path / "run")
    assert all(proof.passed for proof in run.variant.proofs)
    assert _counts(run.folder / "model") == 0
    assert not any(".layers.4." in name for name in load_file(run.folder / "model" / "model.safetensors"))


@pytest.mark.parametrize("kind", ["llama", "llama_tied"])
def test_nothing_is_said_where_everything_has_its_place(kind: str, tmp_path: Path) -> None:
    section = ModelSection(path=str(save_tiny(tmp_path, kind)))
    assert (load(section).origin, preflight(section).left_out) == ("", "")
