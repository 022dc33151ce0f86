"""Checkpoints whose names are not the model's: split by hand into the layout that they were published in, then merged on disk."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from replaceme_core import pipeline
from replaceme_core.artifacts import LinearTransform
from replaceme_core.errors import ModelError
from replaceme_core.models.checkpoints.tensor_names import Names
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ExportSection, ModelSection, PruningPlan
from replaceme_core.storage import tensor_files
from replaceme_core.surgery import surgery
from replaceme_core.surgery.checkpoint import merge_into_checkpoint
from tests.core.surgery.test_surgery import transform_of
from tests.support.family_configs import FAMILIES
from tests.support.on_disk import SPAN, family_of, tensors
from tests.support.tiny_models import tokenizer

State = dict[str, torch.Tensor]


def split(state: State, gate: str, up: str, down: str) -> State:
    """Every expert's three matrices under their own names."""
    found = {}
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        for expert, matrix in enumerate(tensor if leaf in ("gate_up_proj", "down_proj") else []):
            halves = matrix.chunk(2) if leaf == "gate_up_proj" else [matrix]
            found |= {
                f"{path}.{expert}.{kind}.weight": half
                for kind, half in zip([gate, up] if len(halves) == 2 else [down], halves, strict=True)
            }
        if leaf not in ("gate_up_proj", "down_proj"):
            found[name] = tensor
    return found


def named(state: State, *changes: tuple[str, str]) -> State:
    for old, new in changes:
        state = {re.sub(old, new, name): tensor for name, tensor in state.items()}
    return state


def mixtral(state: State) -> State:
    return named(split(state, "w1", "w3", "w2"), (r"\.mlp\.", ".block_sparse_moe."))


def gpt2(state: State) -> State:
    """As openai-community/gpt2: no prefix, no head (it is tied), and the causal masks as buffers."""
    masks = {f"h.{block}.attn.bias": torch.ones(1, 1, 8, 8) for block in range(6)}
    return masks | named({name: tensor for name, tensor in state.items() if name != "lm_head.weight"}, (r"^transformer\.", ""))


def gpt_neox(state: State) -> State:
    buffers = {
        f"gpt_neox.layers.{block}.attention.{name}": torch.ones(4)
        for block in range(6)
        for name in ("bias", "masked_bias", "rotary_emb.inv_freq")
    }
    return buffers | named(state, (r"^lm_head\.", "embed_out."))


def granitemoe(state: State) -> State:
    moe = "block_sparse_moe."
    return named(
        state,
        (rf"{moe}experts\.gate_up_proj", f"{moe}input_linear.weight"),
        (rf"{moe}experts\.down_proj", f"{moe}output_linear.weight"),
        (rf"{moe}router\.weight", f"{moe}router.layer.weight"),
    )


LAYOUTS = {
    "mixtral": (mixtral, {"num_local_experts": 12}),  # expert 10 stands before expert 2 in the alphabet
    "phimoe": (lambda state: named(mixtral(state), (r"\.router\.", ".gate.")), {}),
    "olmoe": (lambda state: split(state, "gate_proj", "up_proj", "down_proj"), {}),
    "qwen2_moe": (lambda state: split(state, "gate_proj", "up_proj", "down_proj"), {}),
    "qwen3_moe": (lambda state: split(state, "gate_proj", "up_proj", "down_proj"), {}),
    "qwen3_next": (lambda state: split(state, "gate_proj", "up_proj", "down_proj"), {}),
    "deepseek_v3": (lambda state: split(state, "gate_proj", "up_proj", "down_proj"), {}),
    "granitemoe": (granitemoe, {}),
    "gpt2": (gpt2, {}),
    "gpt_neox": (gpt_neox, {}),
    "llama": (lambda state: named(state, (r"^model\.", "")), {}),
    "gemma": (lambda state: {name: state[name] for name in state if name != "lm_head.weight"}, {}),
    "bloom": (lambda state: state | {"lm_head.weight": state["transformer.word_embeddings.weight"].clone()}, {}),
}
"""family -> (the model's tensors as they were published, changes to the configuration)"""


def published(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint in its old layout. Nothing of transformers' own way of saving takes part."""
    change, more = LAYOUTS[name]
    config = FAMILIES[name]()
    for key, value in more.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    held = change({key: tensor.detach().clone() for key, tensor in model.state_dict().items()})
    save_file({key: tensor.contiguous() for key, tensor in held.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in model.state_dict().items()), "split the wrong way"
    return folder


def after_the_cut(names: set[str]) -> set[str]:
    """The names of a checkpoint without the blocks of the span, worked out from the text alone."""
    found = set()
    for name in names:
        block = re.search(r"(?:^|\.)(?:layers|h)\.(\d+)\.", name)
        if block is None:
            found.add(name)
        elif int(block[1]) not in SPAN.blocks:
            number = int(block[1]) - (len(SPAN) if int(block[1]) >= SPAN.end else 0)
            found.add(f"{name[: block.start(1)]}{number}{name[block.end(1) :]}")
    return found


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_in_its_published_layout_is_merged_on_disk_and_keeps_it(tmp_path, name, dtype):
    source = published(name, tmp_path / "source", getattr(torch, dtype))
    handle = load(ModelSection(path=str(source), dtype=dtype))
    transform = transform_of(handle, SPAN)
    shard = "40KB" if dtype == "bfloat16" else "5GB"
    proofs = merge_into_checkpoint(source, transform, tmp_path / "out", handle.family, ExportSection(max_shard_size=shard))
    assert [proof.name for proof in proofs] == ["names = model", "untouched = original", "merged = original, then T"]
    assert 0 < proofs[2].error < proofs[2].tolerance

    held, found = tensors(source), tensors(tmp_path / "out")
    buffers = {key for key in held if re.search(r"\.attn\.bias$|attention\.(masked_)?bias$|inv_freq$", key)}
    assert found.keys() == after_the_cut(held.keys() - buffers)
    expected = surgery.prune(handle, transform, "in memory")
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=getattr(torch, dtype), output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.arange(3, 40).unsqueeze(0)
    with expected.handle.borrow() as pruned, torch.no_grad():
        state = pruned.state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.state_dict().items())
        left, right = loaded.eval()(input_ids=ids).logits, pruned(input_ids=ids).logits
        assert float((left - right).norm() / right.norm()) < 1e-6


def test_every_expert_of_the_carrier_is_merged_and_no_other(tmp_path):
    source = published("mixtral", tmp_path / "source")
    transform = transform_of(load(ModelSection(path=str(source))), SPAN)
    merge_into_checkpoint(source, transform, tmp_path / "out", family_of("mixtral"))
    held, found = tensors(source), tensors(tmp_path / "out")
    changed = {key for key in held.keys() & found.keys() if ".layers.0." in key or ".layers.1." in key}
    changed = {key for key in changed if not torch.equal(held[key], found[key])}
    assert changed == {f"model.layers.1.block_sparse_moe.experts.{expert}.w2.weight" for expert in range(12)}
    for key in changed:
        assert torch.allclose(found[key].double(), transform.matrix.T @ held[key].double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "model"), [("mixtral", {"device": "spread"}), ("gpt2", {"quantisation": "int8"}), ("gpt_neox", {"quantisation": "int8"})]
)
def test_a_run_of_such_a_checkpoint_gives_a_folder_that_loads_like_its_source(tmp_path, texts, name, model):
    source = published(name, tmp_path / "source")
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = {"model": {"path": str(source)} | model, "span": {"start": SPAN.start, "end": SPAN.end}}
    data |= {"calibration": {"source": str(tmp_path / "texts.jsonl"), "max_tokens": 600, "max_length": 32}}
    done = pipeline.run(PruningPlan.parse(data), tmp_path / "run")
    assert {proof.name for proof in done.variant.proofs} >= {"names = model", "cached = uncached"}
    reloaded = load(ModelSection(path=str(done.folder / "model")))
    assert (reloaded.n_blocks, reloaded.fingerprint) == (4, done.variant.handle.fingerprint)
    assert tensors(done.folder / "model").keys() <= tensors(source).keys()


def without(held: State, pattern: str) -> State:
    return {name: tensor for name, tensor in held.items() if not re.search(pattern, name)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: without(held, r"layers\.4\..*experts\.2\.w2"), "has another shape for 'model.layers.4.mlp.experts.down_proj'"),
        (lambda held: without(held, r"layers\.4\..*experts\.2\.w1"), "has another shape for 'model.layers.4.mlp.experts.gate_up_proj'"),
        (lambda held: without(held, r"layers\.4\..*experts"), "lacks 'model.layers.4.mlp.experts.gate_up_proj'"),
        (lambda held: held | {"model.layers.0.block_sparse_moe.experts.0.w2.weight_scale": torch.ones(1)}, "also holds .*weight_scale'"),
    ],
)
def test_experts_that_do_not_fit_the_model_are_refused_with_the_way_out(tmp_path, change, words):
    source = published("mixtral", tmp_path / "source")
    save_file(change(tensors(source)), source / "model.safetensors", metadata={"format": "pt"})
    transform = LinearTransform(SPAN, "least_squares", torch.eye(32, dtype=torch.float64), None)
    with pytest.raises(ModelError, match=rf"next to MixtralForCausalLM it {words}.*load the model unquantised and merge in memory"):
        merge_into_checkpoint(source, transform, tmp_path / "out", family_of("mixtral"))
    assert not (tmp_path / "out").exists()


def test_the_reason_why_tensors_cannot_be_fused_is_told_although_transformers_only_logs_it(tmp_path):
    source = published("mixtral", tmp_path / "source")
    held = tensors(source)
    held["model.layers.4.block_sparse_moe.experts.2.w2.weight"] = torch.zeros(32, 40)
    save_file(held, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"cannot be loaded.*stack expects each tensor to be equal size.*layers\.4\.mlp\.experts\.down_proj"
    ):
        load(ModelSection(path=str(source)))


def test_a_tensor_joined_by_a_rule_that_is_not_undone_is_refused_and_names_the_rule(tmp_path):
    config = AutoConfig.for_model(
        "olmo_hybrid",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=320,
        pad_token_id=0,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config)
    held = {}
    for name, tensor in model.state_dict().items():
        kinds = [name.replace("linear_attn.conv1d", f"linear_attn.{kind}_conv1d") for kind in "qkv"]
        held |= dict(zip(kinds, (part.clone() for part in tensor.chunk(3)), strict=True)) if kinds[0] != name else {name: tensor.clone()}
    assert len(held) > len(model.state_dict())
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"conv1d\.weight' is made of '.*k_conv1d\.weight' by Concatenate, which is not undone here\."):
        Names(model).parts(tensor_files.entries(tmp_path), tmp_path)
