"""What a checkpoint's headers say of its weights is what the model says that is built of its configuration; in doubt they say nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from replaceme_core.models import loading
from replaceme_core.models.checkpoints import stored_shapes
from replaceme_core.plans.plan import ModelSection
from tests.support.family_configs import FAMILIES
from tests.support.tiny_models import save_tiny

PLAIN = ("llama", "mistral", "qwen2", "qwen3", "olmo", "arcee", "granite", "gemma2", "cohere", "stablelm")


def saved(folder: Path, name: str, **changes: Any) -> ModelSection:
    config = FAMILIES[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _said(folder, tie_word_embeddings=config.tie_word_embeddings)
    return ModelSection(path=str(folder))


def _said(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_headers_and_the_built_model_count_alike(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = saved(tmp_path, name)
    stored = stored_shapes.read(tmp_path)
    assert stored is not None or name not in PLAIN, "a plain family is told by its headers"
    found = loading.weigh(section)
    monkeypatch.setattr(stored_shapes, "read", lambda _folder: None)
    assert found == loading.weigh(section)


def test_headers_tell_of_a_tied_head_and_of_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = ModelSection(path=str(save_tiny(tmp_path, "llama_tied")))
    _said(tmp_path, tie_word_embeddings=True, dtype="bfloat16")
    found = loading.weigh(section)
    assert found.dtype == "bfloat16"
    assert found.weights_bytes == 2 * found.n_parameters
    assert stored_shapes.read(tmp_path) is not None
    monkeypatch.setattr(stored_shapes, "read", lambda _folder: None)
    assert found == loading.weigh(section)


def _without(folder: Path, *names: str) -> None:
    weights = load_file(folder / "model.safetensors")
    assert set(names) <= set(weights)
    save_file({name: value for name, value in weights.items() if name not in names}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _without(folder, "lm_head.weight"),
        lambda folder: _without(folder, "model.layers.2.mlp.down_proj.weight"),
        lambda folder: _said(folder, num_hidden_layers=5),
        lambda folder: _said(folder, vocab_size=100),
        lambda folder: _said(folder, hidden_size=16),
        lambda folder: _said(folder, num_hidden_layers="six"),
        lambda folder: _said(folder, architectures=["LlamaModel"]),
        lambda folder: _said(folder, quantization_config={"quant_method": "fp8"}),
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        lambda folder: (folder / "config.json").write_text("[]"),
    ],
)
def test_in_doubt_headers_say_nothing(damage: Any, tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    assert stored_shapes.read(tmp_path) is not None
    damage(tmp_path)
    assert stored_shapes.read(tmp_path) is None


def test_a_plain_model_is_inspected_without_transformers(tmp_path: Path) -> None:
    """transformers takes longer to import than all the rest."""
    saved(tmp_path, "llama")
    asked = (
        f"from replaceme_core.cli.main import main; import sys; sys.argv = ['', 'inspect', {str(tmp_path)!r}]; main(standalone_mode=False)"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"{asked}; print('transformers' in sys.modules)"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "6 blocks x 32" in run.stdout
    assert run.stdout.strip().endswith("False")
