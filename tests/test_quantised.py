"""Quantised and spread models: measured in less memory, merged into the checkpoint on disk, bit for bit what memory would give."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import save_tiny
from safetensors.torch import load_file, save_file
from test_surgery import _REPORT, transform_of
from transformers import AutoModelForCausalLM

from replaceme_core import export, linearity, pipeline, quantised, surgery, tensor_files
from replaceme_core.artifacts import LinearTransform, Span
from replaceme_core.calibration import prepare
from replaceme_core.checkpoint import merge_into_checkpoint
from replaceme_core.cli import main
from replaceme_core.distribution import Group
from replaceme_core.errors import ExportError, FamilyError, ModelError, PlanError, ProofError
from replaceme_core.loading import fingerprint, load, preflight
from replaceme_core.measure import measure
from replaceme_core.plan import CalibrationSection, ExportSection, ModelSection, PruningPlan
from replaceme_core.solvers import fit

ROOT = Path(__file__).resolve().parent.parent
WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
SPAN = Span(2, 4)
KINDS = ["nf4", "int8"]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Checkpoints whose widths a CPU can compute in 4 bits, by (kind, dtype, shard size); made once each."""
    made = {}

    def make(kind="llama", dtype="float32", shard="5GB"):
        key = (kind, dtype, shard)
        if key not in made:
            folder = save_tiny(tmp_path_factory.mktemp(f"wide_{kind}"), kind, **WIDE)
            if (dtype, shard) != ("float32", "5GB"):
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
                (folder / "model.safetensors").unlink()
                model.save_pretrained(folder, max_shard_size=shard)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="module")
def measured(wide, texts):
    """(handle, measurement) of one llama as it is, in 4 and in 8 bits, and spread."""
    made = {}

    def make(**section):
        key = tuple(section.items())
        if key not in made:
            handle = load(ModelSection(path=str(wide()), **section))
            tokens = prepare(CalibrationSection(max_tokens=1200, max_length=32), handle.tokenizer, texts, name="random words")
            made[key] = handle, measure(handle, tokens)
        return made[key]

    return make


@pytest.fixture
def texts_file(tmp_path, texts):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(file).items()}


def in_memory(folder: Path, transform: LinearTransform, out: Path, dtype: str = "float32"):
    """The second route: load it all, cut and merge in memory, save."""
    handle = load(ModelSection(path=str(folder), dtype=dtype))
    export.export(surgery.prune(handle, transform, "in memory"), out)
    return handle


def plan_of(folder, texts_file, **model) -> PruningPlan:
    data = {"model": {"path": str(folder)} | model, "calibration": {"source": str(texts_file), "max_tokens": 600, "max_length": 32}}
    return PruningPlan.parse(data | {"span": {"start": SPAN.start, "end": SPAN.end}})


@pytest.mark.parametrize(("kind", "near"), [("nf4", 0.2), ("int8", 0.02)])
def test_distances_of_a_quantised_model_are_close_to_the_originals_but_not_the_same(measured, kind, near):
    plain, coarse = (measured(**section)[1].distances["all"].values for section in ({}, {"quantisation": kind}))
    upper = torch.triu(torch.ones_like(plain), 1).bool()
    difference = (plain - coarse)[upper].abs() / plain[upper]
    assert 1e-5 < float(difference.max()) < near


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantised_handle_says_what_it_is(wide, measured, kind, dtype):
    handle = load(ModelSection(path=str(wide()), quantisation=kind, dtype=dtype))
    plain, _ = measured()
    assert (handle.dtype, handle.n_parameters, handle.width) == (dtype, plain.n_parameters, plain.width)
    assert (handle.checkpoint, plain.checkpoint) == (wide(), None)
    assert handle.name == f"{plain.name} in {kind}"
    assert handle.fingerprint != plain.fingerprint
    assert handle.family.merge == "exact"
    with handle.borrow() as model:
        assert type(model.lm_head) is torch.nn.Linear
        assert {type(m).__name__ for m in model.model.layers.modules() if hasattr(m, "in_features")} == {
            "Linear4bit" if kind == "nf4" else "Linear8bitLt"
        }
        assert linearity.confirm(model, handle.family) == handle.family
        assert len(fingerprint(model)) == 16


def test_the_four_bits_are_nf4_with_double_quantisation_and_bf16_compute(measured):
    with measured(quantisation="nf4")[0].borrow() as model:
        said = model.config.quantization_config
    assert (said.bnb_4bit_quant_type, said.bnb_4bit_use_double_quant, said.bnb_4bit_compute_dtype) == ("nf4", True, torch.bfloat16)


def test_a_quantised_model_takes_less_memory_and_preflight_says_so(wide, measured):
    sizes = {kind: measured(**({"quantisation": kind} if kind else {}))[0].n_bytes for kind in ("", *KINDS)}
    assert sizes["nf4"] < sizes["int8"] < sizes[""]
    for kind in KINDS:
        said = preflight(ModelSection(path=str(wide()), quantisation=kind)).weights_bytes
        assert said == pytest.approx(sizes[kind], rel=0.1)


def test_widths_that_four_bits_on_a_cpu_cannot_have_are_told_before_the_weights_are_read(llama_folder):
    with pytest.raises(ModelError, match=r"cannot run in 4 bits on a CPU: its layer .* multiples of 64 and 32. Choose int8"):
        load(ModelSection(path=str(llama_folder), quantisation="nf4", device="cpu"))
    assert load(ModelSection(path=str(llama_folder), quantisation="int8", device="cpu")).family.merge == "exact"


def test_an_unknown_quantisation_is_told():
    with pytest.raises(PlanError, match="quantisation"):
        PruningPlan.parse({"model": {"path": "demo", "quantisation": "fp4"}})


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_merged_into_a_quantised_model_in_memory(measured, kind):
    handle, _ = measured(quantisation=kind)
    with pytest.raises(ModelError, match=r"held quantised or offloaded.*Merge the transform into its checkpoint"):
        surgery.prune(handle, transform_of(handle, SPAN), "pruned")


def test_a_model_spread_over_devices_gives_the_same_distances(measured):
    (plain, one), (spread, other) = measured(), measured(device="spread")
    assert torch.equal(one.distances["all"].values.nan_to_num(), other.distances["all"].values.nan_to_num())
    assert plain.fingerprint == spread.fingerprint
    assert (spread.device, spread.checkpoint) == (plain.device, Path(spread.checkpoint))


def test_a_model_that_accelerate_offloads_is_measured_but_not_merged_in_memory(wide, measured, texts):
    from accelerate import cpu_offload

    plain, expected = measured()
    handle = load(ModelSection(path=str(wide()), device="spread"))
    with handle.borrow() as model:
        for block in model.model.layers[3:]:
            cpu_offload(block, torch.device("cpu"))
        assert any(p.is_meta for p in model.parameters())
        assert fingerprint(model) == plain.fingerprint
    tokens = prepare(CalibrationSection(max_tokens=1200, max_length=32), handle.tokenizer, texts, name="random words")
    found = measure(handle, tokens).distances["all"].values
    assert torch.equal(found.nan_to_num(), expected.distances["all"].values.nan_to_num())
    with pytest.raises(ModelError, match="quantised or offloaded"):
        surgery.prune(handle, transform_of(handle, SPAN), "pruned")


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
    assert (tmp_path / "disk" / "generation_config.json").is_file()
    assert load(ModelSection(path=str(tmp_path / "disk"), dtype=dtype)).n_blocks == 4
    assert not torch.equal(found["model.layers.1.mlp.down_proj.weight"], tensors(source)["model.layers.1.mlp.down_proj.weight"])


@pytest.mark.parametrize("method", ["drop", "least_squares"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_transform_of_the_quantised_pass_merges_into_the_unquantised_checkpoint(wide, measured, tmp_path, kind, method):
    handle, measurement = measured(quantisation=kind)
    transform = fit(measurement, SPAN, method, 0.01)
    plain = in_memory(wide(), transform, tmp_path / "memory")
    plan = PruningPlan(model=ModelSection(path=str(wide()), quantisation=kind))
    variant = export.export_merged(handle, transform, "pruned", plan, tmp_path / "disk")
    expected, found = tensors(tmp_path / "memory"), tensors(tmp_path / "disk")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in found)
    assert (variant.handle.n_blocks, variant.handle.dtype, variant.handle.checkpoint) == (4, "float32", None)
    assert variant.original_fingerprint == handle.fingerprint != plain.fingerprint
    assert variant.proofs[-1].name == "cached = uncached"
    report = json.loads((tmp_path / "disk" / "report.json").read_text())
    assert [proof["name"] for proof in report["proofs"]] == [proof.name for proof in variant.proofs]


@pytest.mark.parametrize("name", ["gpt2", "starcoder2", "gpt_oss", "llama4", "gemma2", "olmo2", "falcon", "bloom", "opt"])
def test_other_families_merge_on_disk_as_in_memory(tmp_path, name):
    from conftest import tokenizer
    from family_configs import FAMILIES

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


_PEAK = """
import re, sys
import torch
from replaceme_core.artifacts import FitReport, LinearTransform, Span
from replaceme_core.checkpoint import merge_into_checkpoint
from replaceme_core.families import find
from replaceme_core.quantised import on_meta
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


def rewritten(source: Path, target: Path, change) -> Path:
    """A copy of a checkpoint with its tensors changed by `change`."""
    shutil.copytree(source, target)
    save_file(change(load_file(source / "model.safetensors")), target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda held: {name.removeprefix("model."): tensor for name, tensor in held.items()}, "lacks 'model.embed_tokens.weight'"),
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


@pytest.mark.parametrize("name", ["mixtral", "gpt_neox"])
def test_a_checkpoint_that_is_fused_or_renamed_while_loading_is_refused(tmp_path, name):
    from family_configs import FAMILIES

    AutoModelForCausalLM.from_config(FAMILIES[name]()).save_pretrained(tmp_path / "source")
    transform = LinearTransform(SPAN, "least_squares", torch.eye(32, dtype=torch.float64), _REPORT)
    with pytest.raises(ModelError, match=r"renamed or fused while they load"):
        merge_into_checkpoint(tmp_path / "source", transform, tmp_path / "out", _family(name))


def test_a_checkpoint_that_cannot_be_rewritten_is_told_before_the_calibration_pass(wide, texts_file, tmp_path):
    """It loads and could be measured (transformers only warns), so the refusal must not wait for a long pass."""
    source = rewritten(wide(), tmp_path / "source", lambda held: held | {"model.extra": torch.zeros(2)})
    seen = []

    class Record:
        def update(self, _done, _total, _unit, what):
            seen.append(what)

    with pytest.raises(ModelError, match=r"also holds 'model\.extra'"):
        pipeline.run(plan_of(source, texts_file, quantisation="int8"), tmp_path / "run", Record())
    assert seen
    assert not any("calibration" in what for what in seen)
    options = ["--model", source, "--calibration", texts_file, "--quantise", "int8", "--span", "2:4", "--out", tmp_path / "out"]
    done = CliRunner().invoke(main, ["fit", *map(str, options)])
    assert (done.exit_code, "cannot be rewritten tensor by tensor" in done.output) == (1, True)


def test_a_cut_that_changes_more_than_the_carrier_is_refused(tmp_path):
    from family_configs import FAMILIES

    config = FAMILIES["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "source")
    transform = LinearTransform(SPAN, "least_squares", torch.eye(32, dtype=torch.float64), _REPORT)
    with pytest.raises(ModelError, match=r"changes 'transformer\.h\.\d\.attn\.c_attn\.weight' too"):
        merge_into_checkpoint(tmp_path / "source", transform, tmp_path / "out", _family("gpt2"))


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

    def full(_path, _shard, _read):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "_write", full)
    with pytest.raises(ExportError, match="became full"):
        merge_into_checkpoint(wide(), transform_of(handle, SPAN), tmp_path / "out", handle.family)
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


@pytest.mark.parametrize("model", [{"quantisation": "nf4"}, {"quantisation": "int8", "dtype": "bfloat16"}, {"device": "spread"}], ids=str)
def test_a_run_measures_quantised_and_exports_unquantised(wide, texts_file, tmp_path, model):
    plan = plan_of(wide(), texts_file, **model)
    done = pipeline.run(plan, tmp_path / "run")
    assert {path.name for path in done.folder.iterdir()} == {"plan.yaml", "report.json", "comparison.json", "scores.json", "model"}
    assert PruningPlan.read(done.folder / "plan.yaml") == plan
    original = tensors(wide())
    found = tensors(done.folder / "model")
    assert torch.equal(found["model.layers.2.mlp.up_proj.weight"], original["model.layers.4.mlp.up_proj.weight"])
    assert done.variant.name == f"{wide().name}, 2:4, weighted least squares"
    assert [row.name for row in done.comparison] == [done.original.name, done.variant.name]
    assert (done.comparison[0].kl, done.comparison[1].kl > 0) == (0.0, True)
    assert "cached = uncached" in {proof["name"] for proof in json.loads((done.folder / "report.json").read_text())["proofs"]}
    reloaded = load(ModelSection(path=str(done.folder / "model"), dtype=plan.model.dtype))
    assert done.variant.handle.checkpoint == (done.folder / "model" if model == {"device": "spread"} else None)
    assert reloaded.fingerprint == done.variant.handle.fingerprint


def test_a_model_offloaded_to_the_disk_is_pruned_and_stays_usable_after_its_folder_is_renamed(wide, texts_file, tmp_path, monkeypatch):
    place = quantised.placement
    monkeypatch.setattr(quantised, "placement", lambda *given: place(*given) | {"max_memory": {"cpu": "400KB"}})
    done = pipeline.run(plan_of(wide(), texts_file, device="spread"), tmp_path / "run")
    monkeypatch.undo()
    plain = pipeline.run(plan_of(wide(), texts_file), tmp_path / "plain")
    ids = torch.arange(3, 20).unsqueeze(0)
    with done.variant.handle.borrow() as model, plain.variant.handle.borrow() as other, torch.no_grad():
        assert any(p.is_meta for p in model.parameters())
        assert torch.equal(model(input_ids=ids).logits, other(input_ids=ids).logits)
    assert done.variant.handle.fingerprint == plain.variant.handle.fingerprint
    assert done.comparison == plain.comparison
    assert tensors(done.folder / "model").keys() == tensors(plain.folder / "model").keys()


def test_a_quantised_run_of_several_processes_is_refused_before_any_work(wide, texts_file, tmp_path):
    with pytest.raises(PlanError, match="by one process"):
        pipeline.run(plan_of(wide(), texts_file, quantisation="nf4"), tmp_path / "run", group=Group(1, 2))
    assert not (tmp_path / "run").exists()


def test_the_command_line_quantises(wide, texts_file, tmp_path):
    shared = ["--model", wide(), "--calibration", texts_file, "--max-tokens", 600, "--max-length", 32, "--json"]
    plain, coarse = (CliRunner().invoke(main, [*map(str, ["distances", *shared, *more])]) for more in ([], ["--quantise", "nf4"]))
    assert (plain.exit_code, coarse.exit_code) == (0, 0), coarse.output
    assert json.loads(plain.stdout)["cosine_all"] != json.loads(coarse.stdout)["cosine_all"]
    fitted = CliRunner().invoke(main, [*map(str, ["fit", *shared, "--quantise", "int8", "--span", "2:4", "--out", tmp_path / "out"])])
    assert fitted.exit_code == 0, fitted.output
    assert json.loads(fitted.stdout)["proofs"]["untouched = original"]["passed"]
    assert PruningPlan.read(tmp_path / "out" / "recipe.yaml").model.quantisation == "int8"
    assert load(ModelSection(path=str(tmp_path / "out"))).n_blocks == 4


def _family(name):
    from replaceme_core.families import FAMILIES

    return next(dataclasses.replace(row, name=name) for row in FAMILIES if name in row.model_types)
