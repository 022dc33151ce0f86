"""A transform merged into a checkpoint on disk, tensor by tensor: bit for bit what memory would give, or refused."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from replaceme_core.artifacts import Cut, LinearTransform, Span
from replaceme_core.errors import ExportError, FamilyError, ModelError, ProofError
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ExportSection, ModelSection
from replaceme_core.storage import tensor_files
from replaceme_core.surgery import surgery
from replaceme_core.surgery.checkpoint import merge_into_checkpoint
from tests.core.surgery.test_surgery import _REPORT, transform_of
from tests.support.on_disk import SPAN, family_of, in_memory, rewritten, tensors
from tests.support.tiny_models import save_tiny

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.mark.parametrize(
    ("kind", "dtype", "shard"),
    [
        ("llama", "float32", "5GB"),  # biases
        ("llama", "bfloat16", "100KB"),  # sharded
        ("llama_tied", "bfloat16", "5GB"),
        ("qwen2", "float32", "100KB"),  # a list of one entry per block
    ],
)
def test_the_merged_checkpoint_is_bit_for_bit_what_memory_gives(wide, tmp_path, kind, dtype, shard):
    source = wide(kind, dtype, shard)
    transform = dataclasses.replace(transform_of(load(ModelSection(path=str(source))), SPAN), report=_REPORT)
    handle = in_memory(source, transform, tmp_path / "memory", dtype)
    proofs = merge_into_checkpoint(source, transform, tmp_path / "disk", handle.family, ExportSection(max_shard_size=shard))
    assert [proof.name for proof in proofs] == ["names = model", "untouched = original", "merged = original, then T"]
    assert all(proof.passed for proof in proofs)
    assert 0 < proofs[2].error < proofs[2].tolerance
    expected, found = tensors(tmp_path / "memory"), tensors(tmp_path / "disk")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) and expected[name].dtype == found[name].dtype for name in found)
    assert {tensor.dtype for tensor in found.values()} == {getattr(torch, dtype)}
    one, other = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("memory", "disk"))
    assert one == other
    assert len(one.get("layer_types") or [0] * 4) == one["num_hidden_layers"] == 4
    assert ("lm_head.weight" in found) is (kind != "llama_tied")
    assert (len(list((tmp_path / "disk").glob("*.safetensors"))) > 1) is (shard != "5GB")
    if shard == "100KB":
        written = [list(load_file(path).values()) for path in (tmp_path / "disk").glob("*.safetensors")]
        assert all(len(held) == 1 or sum(each.nbytes for each in held) <= 100_000 for held in written)
        index = json.loads((tmp_path / "disk" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(each.nbytes for held in written for each in held)
    assert (tmp_path / "disk" / "generation_config.json").is_file()
    assert load(ModelSection(path=str(tmp_path / "disk"), dtype=dtype)).n_blocks == 4
    assert not torch.equal(found["model.layers.1.mlp.down_proj.weight"], tensors(source)["model.layers.1.mlp.down_proj.weight"])


@pytest.mark.parametrize("name", ["gpt2", "starcoder2", "gpt_oss", "llama4", "gemma2", "olmo2", "falcon", "bloom", "opt"])
def test_other_families_merge_on_disk_as_in_memory(tmp_path, name):
    from tests.support.family_configs import FAMILIES
    from tests.support.tiny_models import tokenizer

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(FAMILIES[name]()).save_pretrained(tmp_path / "source")
    tokenizer(tmp_path / "source")
    handle = load(ModelSection(path=str(tmp_path / "source")))
    transform = transform_of(handle, SPAN)
    if handle.family.merge == "diagonal":
        transform = dataclasses.replace(transform, matrix=torch.diag(transform.matrix.diagonal()))
    merge_into_checkpoint(tmp_path / "source", transform, tmp_path / "disk", handle.family)
    in_memory(tmp_path / "source", transform, tmp_path / "memory")
    expected, found = tensors(tmp_path / "memory"), tensors(tmp_path / "disk")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in found)


def test_a_chosen_dtype_is_that_of_every_tensor(wide, tmp_path):
    handle = load(ModelSection(path=str(wide())))
    merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "half", handle.family, ExportSection(dtype="bfloat16"))
    original, found = tensors(wide()), tensors(tmp_path / "half")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert torch.equal(found["model.norm.weight"], original["model.norm.weight"].bfloat16())
    assert torch.equal(found["model.layers.2.mlp.up_proj.weight"], original["model.layers.4.mlp.up_proj.weight"].bfloat16())
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_several_spans_are_removed_on_disk_as_in_memory(wide, tmp_path):
    transform = LinearTransform.removal(Cut.of([Span(1, 2), Span(3, 5)]))
    handle = in_memory(wide("qwen2"), transform, tmp_path / "memory")
    merge_into_checkpoint(wide("qwen2"), transform, tmp_path / "disk", handle.family)
    expected, found = tensors(tmp_path / "memory"), tensors(tmp_path / "disk")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in found)
    assert json.loads((tmp_path / "disk" / "config.json").read_text())["num_hidden_layers"] == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weights": {"1.mlp.down_proj.weight": torch.zeros(64, 128)}}, "new weights of blocks"),
        ({"stand_ins": {2: (torch.eye(64), torch.zeros(64))}}, "linear layers in the place of blocks"),
    ],
)
def test_what_a_merge_on_disk_would_leave_out_is_refused(wide, tmp_path, given, words):
    """Written all the same, the folder would hold the blocks removed with nothing in their place."""
    handle = load(ModelSection(path=str(wide())))
    transform = dataclasses.replace(LinearTransform.removal(Cut.of([SPAN])), method="refit", **given)
    with pytest.raises(ModelError, match=rf"'refit' holds {words}.*--device auto or cpu, not spread"):
        merge_into_checkpoint(wide(), transform, tmp_path / "out", handle.family)
    assert not list(tmp_path.iterdir())


def test_a_configuration_that_counts_other_blocks_is_no_export(wide, tmp_path, monkeypatch):
    """Weights and configuration of a model that is cut less than was asked agree with one another."""
    cut = surgery.cut
    monkeypatch.setattr(surgery, "cut", lambda model, family, removed: cut(model, family, removed.spans[0]))
    monkeypatch.setattr(Cut, "kept", lambda _, n_blocks: [block for block in range(n_blocks) if block != 1])
    handle = load(ModelSection(path=str(wide())))
    transform = LinearTransform.removal(Cut.of([Span(1, 2), Span(3, 5)]))
    with pytest.raises(ProofError, match="5 blocks in place of 3"):
        merge_into_checkpoint(wide(), transform, tmp_path / "out", handle.family)


def test_every_chat_template_of_the_tokenizer_is_copied(wide, tmp_path):
    """A tokenizer with several keeps all but the first in a folder of their own."""
    source = shutil.copytree(wide(), tmp_path / "source")
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = {"default": "{{ messages[0]['content'] }}", "tool_use": "tools: {{ messages[0]['content'] }}"}
    tokenizer.save_pretrained(source)
    merge_into_checkpoint(source, LinearTransform.removal(Cut.of([SPAN])), tmp_path / "out", load(ModelSection(path=str(source))).family)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


_PEAK = """
import re, sys
import torch
from replaceme_core.artifacts import FitReport, LinearTransform, Span
from replaceme_core.surgery import surgery
from replaceme_core.surgery.checkpoint import merge_into_checkpoint
from replaceme_core.models.architecture.families import find
from replaceme_core.models.quantised import on_meta
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.from_pretrained(sys.argv[1])
on_meta(config), AutoModelForCausalLM.from_pretrained(sys.argv[1], device_map={"": "meta"})
torch.zeros(8, 8).double() @ torch.zeros(8, 8).double()
matrix = torch.eye(config.hidden_size, dtype=torch.float64) * 1.5
report = FitReport(0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0, 0.0, 0.0)
def highest():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = highest()
if len(sys.argv) > 3:
    kept = AutoModelForCausalLM.from_pretrained(sys.argv[1]).state_dict()
    kept = {name: tensor.clone() for name, tensor in kept.items()}
else:
    merge_into_checkpoint(sys.argv[1], LinearTransform(Span(2, 4), "least_squares", matrix, report), sys.argv[2], find(config))
print(highest() - before)
"""


def peak(*arguments: object) -> int:
    """Bytes that the process grew by at most, of all memory it ever had resident (mapped files included)."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _PEAK, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the highest memory of a process is read from /proc")
def test_the_merge_never_holds_the_model(tmp_path):
    """100 MB of weights, no tensor above 4 MB. The growth of a process that holds the model shows that the measure sees it."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8, "head_dim": 64}
    folder = save_tiny(tmp_path / "large", "llama", **shape | {"num_key_value_heads": 8})
    size = (folder / "model.safetensors").stat().st_size
    assert size > 100e6
    streamed, held = peak(folder, tmp_path / "streamed"), peak(folder, tmp_path / "held", "only hold the model")
    assert streamed < 0.4 * size < 0.9 * size < held, (streamed, held, size)
    assert (tmp_path / "streamed" / "model.safetensors").stat().st_size > 0.6 * size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: {name: held[name] for name in held if "embed" not in name}, "lacks 'model.embed_tokens.weight'"),
        (lambda held: {name.replace("model.", "stem."): held[name] for name in held}, "lacks 'model.embed_tokens.weight'"),
        (lambda held: held | {"model.extra": torch.zeros(2)}, r"also holds 'model.extra' \(1 such names\)"),
        (lambda held: held | {"lm_head.weight": torch.zeros(400, 64)}, "has another shape for 'lm_head.weight'"),
    ],
)
def test_names_that_are_not_the_models_are_refused_with_the_way_out(wide, tmp_path, change, words):
    source = rewritten(wide(), tmp_path / "source", change)
    handle = load(ModelSection(path=str(wide())))
    with pytest.raises(ModelError, match=rf"{words}.*load the model unquantised and merge in memory instead"):
        merge_into_checkpoint(source, transform_of(handle, SPAN), tmp_path / "out", handle.family)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_cut_that_changes_more_than_the_carrier_is_refused(tmp_path):
    from tests.support.family_configs import FAMILIES

    config = FAMILIES["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "source")
    transform = LinearTransform(SPAN, "least_squares", torch.eye(32, dtype=torch.float64), _REPORT)
    with pytest.raises(ModelError, match=r"changes 'transformer\.h\.\d\.attn\.c_attn\.weight' too"):
        merge_into_checkpoint(tmp_path / "source", transform, tmp_path / "out", family_of("gpt2"))


def test_old_rotary_buffers_in_a_checkpoint_are_left_out(wide, tmp_path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    source = rewritten(wide(), tmp_path / "source", lambda held: held | {name: torch.ones(8)})
    handle = load(ModelSection(path=str(wide())))
    merge_into_checkpoint(source, transform_of(handle, SPAN), tmp_path / "out", handle.family)
    assert name not in tensors(tmp_path / "out")


def test_a_family_that_takes_no_transform_is_refused(wide, tmp_path):
    handle = load(ModelSection(path=str(wide())))
    with pytest.raises(FamilyError):
        merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "out", dataclasses.replace(handle.family, merge="refused"))


def test_a_damaged_or_missing_shard_is_told(wide, tmp_path):
    handle = load(ModelSection(path=str(wide())))
    shutil.copytree(wide("llama", "bfloat16", "100KB"), tmp_path / "source")
    sorted((tmp_path / "source").glob("*.safetensors"))[1].unlink()
    with pytest.raises(ModelError, match="incomplete or damaged"):
        merge_into_checkpoint(tmp_path / "source", transform_of(handle, SPAN), tmp_path / "out", handle.family)


def test_a_full_disk_leaves_nothing_behind(wide, tmp_path, monkeypatch):
    handle = load(ModelSection(path=str(wide())))
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
        with pytest.raises(ExportError, match="The disk is full"):
            merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "out", handle.family)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a real refusal, of which the system names no file
    try:
        with pytest.raises(ExportError, match=r"out' cannot be written \(File too large\)"):
            merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "out", handle.family)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(wide, tmp_path):
    handle = load(ModelSection(path=str(wide())))
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "out", handle.family)


@pytest.mark.parametrize("broken", ["model.layers.1.mlp.down_proj.weight", "model.layers.3.mlp.up_proj.weight"])
def test_a_wrong_tensor_fails_its_proof(wide, tmp_path, monkeypatch, broken):
    handle = load(ModelSection(path=str(wide())))
    write = tensor_files.write_shards

    def wrong(folder, plan, size, read):
        return write(folder, plan, size, lambda entry: read(entry) * 1.01 if entry.name == broken else read(entry))

    monkeypatch.setattr(tensor_files, "write_shards", wrong)
    name = "merged = original, then T" if ".1." in broken else "untouched = original"
    with pytest.raises(ProofError, match=name):
        merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "out", handle.family)
    assert list(tmp_path.iterdir()) == []


def test_a_left_out_tensor_fails_the_proof_of_names(wide, tmp_path, monkeypatch):
    handle = load(ModelSection(path=str(wide())))
    write = tensor_files.write_shards
    monkeypatch.setattr(tensor_files, "write_shards", lambda folder, plan, size, read: write(folder, plan[1:], size, read))
    with pytest.raises(ProofError, match="names = model"):
        merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "out", handle.family)


def test_the_written_file_is_one_that_the_format_allows(tmp_path):
    """Mixed widths, an empty tensor and a scalar: read back by the library of the format."""
    held = {
        "a": torch.arange(3, dtype=torch.uint8),
        "b": torch.randn(2, 3),
        "c": torch.tensor(4.0, dtype=torch.bfloat16),
        "d": torch.randn(5).double(),
        "e": torch.zeros(0, 4),
    }
    save_file(held, tmp_path / "model.safetensors")
    found = tensor_files.entries(tmp_path)
    (tmp_path / "out").mkdir()
    files = tensor_files.write_shards(tmp_path / "out", list(found.values()), "1KB", lambda entry: found[entry.name].read())
    assert files == ["model.safetensors"]
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert held.keys() == again.keys()
    assert all(torch.equal(held[name], again[name]) and held[name].dtype == again[name].dtype for name in held)
