"""The reload proof: it is passed by what was written, by nothing else, and the device never holds the model twice."""

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import LinearTransform, Span, Variant
from replaceme_core.errors import ProofError
from replaceme_core.export import export as stage
from replaceme_core.export import reload
from replaceme_core.export.export import export
from replaceme_core.models.loading import make_handle
from replaceme_core.plans.plan import ExportSection
from replaceme_core.surgery.surgery import prune
from tests.core.models.test_families import handle_of
from tests.core.surgery.test_surgery import _REPORT

SPAN = Span(2, 4)


def removed(name: str, dtype: torch.dtype = torch.float32, tmp_path: Path | None = None) -> Variant:
    """A family's random model without its blocks 2 and 3; loaded from disk where `dtype` is another one."""
    handle = handle_of(name)
    if tmp_path is not None:
        with handle.borrow() as model:
            model.save_pretrained(tmp_path / "source")
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "source", dtype=dtype).eval().requires_grad_(False)
        handle = make_handle(name, loaded, handle.tokenizer, handle.family)
    return prune(handle, LinearTransform(SPAN, "drop", None, _REPORT), name)


def spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    """Every folder is changed by `spoil` after it was written."""
    save = stage._save_model

    def saved(which: Variant, folder: Path, section: ExportSection) -> torch.dtype:
        dtype = save(which, folder, section)
        spoil(folder)
        return dtype

    monkeypatch.setattr(stage, "_save_model", saved)


def edited(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_no_second_model_is_moved_to_the_device(variant, tmp_path, monkeypatch):
    """A model over half the card would fail after all its work."""
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_: pytest.fail("the reloaded model was moved"))
    proof = export(variant, tmp_path / "out").proofs[-1]
    assert proof.passed
    assert proof.detail == "all tensors and settings equal, logits equal, no missing or unexpected key"


def test_the_outputs_are_those_of_the_reloaded_tree_with_the_models_own_tensors(variant, tmp_path, monkeypatch):
    """Its modules are what `from_pretrained` built; no parameter is copied for it."""
    seen = []
    error = reload._output_error

    def watched(model, reloaded, family):
        found = error(model, reloaded, family)
        seen.append((model, reloaded, found))
        return found

    monkeypatch.setattr(reload, "_output_error", watched)
    export(variant, tmp_path / "out")
    ((model, tree, found),) = seen
    assert found == 0
    assert tree is not model
    assert {p.data_ptr() for p in tree.parameters()} == {p.data_ptr() for p in model.parameters()}
    assert all(p.device == model.device for p in [*tree.parameters(), *tree.buffers()])


def test_a_tree_that_computes_something_else_fails_though_its_tensors_are_equal(variant, tmp_path, monkeypatch):
    lend = reload._lend

    def other(model, reloaded):
        lend(model, reloaded)
        reloaded.model.layers[1].self_attn.scaling *= 1.01

    monkeypatch.setattr(reload, "_lend", other)
    with pytest.raises(ProofError, match="'reload = memory'"):
        export(variant, tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("config.json", {"max_position_embeddings": 128}, "config.max_position_embeddings"),
        ("config.json", {"eos_token_id": 7}, "config.eos_token_id"),
        ("generation_config.json", {"repetition_penalty": 1.5}, "generation_config.repetition_penalty"),
    ],
)
def test_a_setting_that_the_probe_cannot_see_fails_the_proof(variant, tmp_path, monkeypatch, file, changes, named):
    spoiled(monkeypatch, lambda folder: edited(folder, file, **changes))
    with pytest.raises(ProofError, match=f"differs: .*{named}"):
        export(variant, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.update({"model.layers.3.mlp.up_proj.weight": w["model.layers.3.mlp.up_proj.weight"].roll(1, 1)}), "layers.3.mlp.up_proj"),
        (lambda w: w["model.norm.weight"][5:6].copy_(torch.nextafter(w["model.norm.weight"][5:6], torch.full((1,), 9.0).to(w["model.norm.weight"]))), "model.norm.weight"),
        (lambda w: w.pop("model.layers.0.input_layernorm.weight"), "layers.0.input_layernorm"),
        (lambda w: w.update({"model.layers.4.extra.weight": torch.zeros(3)}), "layers.4.extra"),
        (lambda w: w.update({"model.norm.weight": torch.zeros(33)}), "cannot be read back"),
    ],
    ids=["columns exchanged", "last bit", "missing", "unexpected", "shape"],
)  # fmt: skip
def test_a_file_that_is_not_the_model_fails_the_proof(variant, tmp_path, monkeypatch, change, named, dtype):
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})

    spoiled(monkeypatch, spoil)
    with pytest.raises(ProofError, match=named):
        export(variant, tmp_path / "out", ExportSection(dtype=dtype))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt_oss", "gpt2"])
def test_where_main_memory_is_too_small_for_the_model_it_is_read_back_from_the_disk(name, tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("memory", "available")(0))
    variant = removed(name)
    made = export(variant, tmp_path / "out")
    assert made.proofs[-1].detail.startswith("all tensors and settings equal, logits equal")
    assert not [path for path in made.folder.iterdir() if path.is_dir()]
    weight = next(key for key in load_file(made.folder / "model.safetensors") if "norm" in key or "ln_f" in key)

    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[weight][0] += 1e-3
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    spoiled(monkeypatch, spoil)
    with pytest.raises(ProofError, match="differs"):
        export(variant, tmp_path / "again")


def test_tensors_that_transformers_holds_wider_are_written_as_they_are(tmp_path):
    """DeepSeek's routing bias stays in float32 in a 16-bit model; rounded in the file, other experts could be chosen."""
    variant = removed("deepseek_v3", torch.bfloat16, tmp_path)
    name = "model.layers.2.mlp.gate.e_score_correction_bias"
    with variant.handle.borrow() as model:
        held = model.get_buffer(name)
        assert held.dtype == torch.float32
        held += torch.linspace(0, 1e-3, len(held))
    stored = load_file(export(variant, tmp_path / "out").folder / "model.safetensors")[name]
    assert stored.dtype == torch.float32
    assert torch.equal(stored, held)


@pytest.mark.parametrize("name", ["llama", "qwen2_moe", "gpt_neo"])
def test_another_dtype_is_compared_tensor_by_tensor_as_rounded(name, tmp_path):
    made = export(removed(name), tmp_path / "out", ExportSection(dtype="bfloat16"))
    assert made.proofs[-1].detail == "all tensors and settings equal as bfloat16, no missing or unexpected key"


@pytest.mark.parametrize(("held", "written"), [("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "bfloat16")])
def test_a_buffer_that_is_made_anew_may_be_rounded_to_another_dtype(held, written, tmp_path):
    """Gemma's embed_scale, the root of the width, is in no file: transformers makes it in the dtype that it loads."""
    variant = removed("gemma3", getattr(torch, held), tmp_path)
    with variant.handle.borrow() as model:
        name = next(name for name, _ in model.named_buffers() if name.endswith("embed_scale"))
        assert name not in model.state_dict()
    assert export(variant, tmp_path / "out", ExportSection(dtype=written)).proofs[-1].passed
    with variant.handle.borrow() as model:
        model.get_buffer(name).mul_(1.02)
    with pytest.raises(ProofError, match=r"differs: .*embed_scale"):
        export(variant, tmp_path / "again", ExportSection(dtype=written))
