"""An export loads anywhere with plain transformers, repeats itself, and a failed one leaves nothing behind."""

import dataclasses
import errno
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from replaceme_core import pipeline
from replaceme_core.artifacts import Proof, Span, Variant
from replaceme_core.errors import Cancelled, ExportError, ProofError
from replaceme_core.export import export as stage
from replaceme_core.export.export import export
from replaceme_core.export.model_card import model_card
from replaceme_core.healing_report import HealingPoint, HealingReport
from replaceme_core.measurement.measure import measure
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ExportSection, ModelSection, PruningPlan
from replaceme_core.solvers import fit
from replaceme_core.storage import tensor_files
from replaceme_core.surgery.surgery import prune
from tests.support.tiny_models import save_tiny

IDS = torch.arange(3, 60).reshape(1, -1)
PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
ids = torch.load(sys.argv[1])
for folder in sys.argv[2:]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        torch.save(model(input_ids=ids).logits, folder + "/logits.pt")
assert not any(name.startswith("replaceme_core") for name in sys.modules)
"""


def logits(handle, ids=IDS):
    with handle.borrow() as model, torch.no_grad():
        return model(input_ids=ids).logits


@pytest.fixture(scope="module")
def tied(tmp_path_factory, calibration) -> Variant:
    handle = load(ModelSection(path=str(save_tiny(tmp_path_factory.mktemp("tied"), "llama_tied"))))
    return prune(handle, fit(measure(handle, calibration, spans=[Span(3, 6)]), Span(3, 6), "least_squares", 0.01), "tied", {})


@pytest.fixture(scope="module")
def half(llama_folder, calibration) -> Variant:
    handle = load(ModelSection(path=str(llama_folder), dtype="bfloat16"))
    return prune(handle, fit(measure(handle, calibration, spans=[Span(2, 4)]), Span(2, 4), "least_squares", 0.01), "half", {})


def test_exports_load_in_a_process_that_knows_only_transformers_and_give_the_same_logits(variant, tied, half, tmp_path):
    made = {
        "plain": (variant, None),
        "tied": (tied, None),
        "half": (half, None),
        "sharded": (variant, ExportSection(max_shard_size="60KB")),
    }
    folders = [str(export(which, tmp_path / name, section).folder) for name, (which, section) in made.items()]
    torch.save(IDS, tmp_path / "ids.pt")
    (tmp_path / "plain.py").write_text(PLAIN)
    done = subprocess.run(
        [sys.executable, "plain.py", "ids.pt", *folders], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for folder, (which, _) in zip(folders, made.values(), strict=True):
        found = torch.load(Path(folder) / "logits.pt")
        assert found.dtype == getattr(torch, which.handle.dtype)
        torch.testing.assert_close(found, logits(which.handle), rtol=1e-5, atol=1e-5)
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    assert AutoConfig.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert yaml.safe_load((tmp_path / "half" / "mergekit.yaml").read_text())["dtype"] == "bfloat16"


def test_a_folder_holds_exactly_what_is_promised(variant, tmp_path):
    made = export(variant, tmp_path / "model")
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "recipe.yaml",
        "report.json",
        "transform.safetensors",
        "README.md",
    } <= set(made.files)
    assert not [name for name in made.files if name.endswith((".bin", ".pt", ".pkl"))]
    assert made.n_bytes == sum(path.stat().st_size for path in made.folder.iterdir())
    assert [proof.name for proof in made.proofs] == ["merged = hooked", "cached = uncached", "reload = memory"]
    assert all(proof.passed for proof in made.proofs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"], "no temporary folder may stay"


def test_tied_embeddings_are_stored_once_and_tied_again(tied, tmp_path):
    folder = export(tied, tmp_path / "model").folder
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    again = load(ModelSection(path=str(folder)))
    with again.borrow() as model:
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert again.n_parameters == tied.handle.n_parameters


@pytest.mark.parametrize("shard", ["5GB", "60KB"])
def test_tied_embeddings_are_stored_once_in_another_dtype_too(tied, tmp_path, shard):
    own = tensor_files.entries(export(tied, tmp_path / "own").folder)
    half = tensor_files.entries(export(tied, tmp_path / "half", ExportSection(dtype="bfloat16", max_shard_size=shard)).folder)
    assert half.keys() == own.keys()
    assert sum(entry.n_bytes for entry in half.values()) * 2 == sum(entry.n_bytes for entry in own.values())
    assert load(ModelSection(path=str(tmp_path / "half"))).n_parameters == tied.handle.n_parameters


def test_an_embedding_that_is_written_twice_fails_the_proof(tied, tmp_path, monkeypatch):
    def each_by_itself(state, dtype):
        return {name: tensor.to(dtype) for name, tensor in state.items()}

    monkeypatch.setattr(stage, "_rounded", each_by_itself)
    with pytest.raises(ProofError, match=r"lm_head\.weight \(written twice\)"):
        export(tied, tmp_path / "half", ExportSection(dtype="bfloat16"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_float32_model_is_exported_in_another_dtype_with_each_tensor_rounded_once(variant, tmp_path, dtype):
    folder = export(variant, tmp_path / "model", ExportSection(dtype=dtype)).folder
    stored = load_file(folder / "model.safetensors")
    with variant.handle.borrow() as model:
        for name, tensor in model.named_parameters():
            assert torch.equal(stored[name], tensor.to(getattr(torch, dtype))), name
            assert tensor.dtype == torch.float32
        assert model.config.dtype in (torch.float32, None, "float32")
    assert AutoConfig.from_pretrained(folder).dtype == getattr(torch, dtype)


def test_an_export_is_loaded_pruned_and_exported_again(variant, calibration, tmp_path):
    first = export(variant, tmp_path / "first").folder
    handle = load(ModelSection(path=str(first)))
    assert handle.fingerprint == variant.handle.fingerprint
    second = prune(handle, fit(measure(handle, calibration, spans=[Span(1, 2)]), Span(1, 2), "least_squares", 0.01), "second", {})
    assert export(second, tmp_path / "second").folder.is_dir()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "second").config.num_hidden_layers == 3


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_text("mine")], ids=["folder", "file"])
def test_an_existing_target_is_refused_and_left_as_it_was(variant, tmp_path, make):
    target = tmp_path / "model"
    make(target)
    before = target.stat()
    with pytest.raises(ExportError, match="exists already; choose another name or remove it first"):
        export(variant, target)
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(variant, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(ExportError, match=r"The disk is full: the export needs .* MiB .*Free space or choose another folder"):
        export(variant, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["_save_model", "save_record", "model_card"])
def test_a_disk_that_fills_up_while_writing_leaves_nothing_behind(variant, tmp_path, monkeypatch, name):
    original = getattr(stage, name)

    def full(*args, **kwargs):
        original(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stage, name, full)
    with pytest.raises(ExportError, match=r"The disk became full .*nothing was left behind"):
        export(variant, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_system_refuses_to_write_leave_nothing_behind(variant, tmp_path):
    """A real failure below safetensors: the process may not write files above 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ExportError, match=r"written|full"):
            export(variant, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_target_below_a_file_is_an_error_with_a_way_out(variant, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match=r"cannot be written .*choose a folder you may write to"):
        export(variant, tmp_path / "file" / "model")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_cancelled_export_leaves_nothing_behind(variant, tmp_path, step):
    class Stop:
        def update(self, done, *_):
            if done == step:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        export(variant, tmp_path / "model", progress=Stop())
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_read_back_fail_the_proof_and_leave_nothing_behind(variant, tmp_path, monkeypatch):
    save = stage._save_model

    def spoil(which, folder, section):
        from safetensors.torch import save_file

        dtype = save(which, folder, section)
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.1.mlp.down_proj.weight"][0, 0] += 1e-3
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return dtype

    monkeypatch.setattr(stage, "_save_model", spoil)
    with pytest.raises(ProofError, match=r"'reload = memory'.*down_proj"):
        export(variant, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_does_not_fit_the_weights_fails_the_proof(variant, tmp_path, monkeypatch):
    save = stage._save_model

    def spoil(which, folder, section):
        dtype = save(which, folder, section)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
        return dtype

    monkeypatch.setattr(stage, "_save_model", spoil)
    with pytest.raises(ProofError, match="'reload = memory'"):
        export(variant, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_report_and_the_card_say_what_was_done(variant, tmp_path):
    made = export(variant, tmp_path / "model")
    report = json.loads((made.folder / "report.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["span"] == [2, 4]
    assert report["report"]["heldout_error"] == variant.transform.report.heldout_error
    assert report["fingerprints"] == {"original": variant.original_fingerprint, "pruned": variant.handle.fingerprint}
    assert [proof["passed"] for proof in report["proofs"]] == [True] * 3
    card = (made.folder / "README.md").read_text()
    for piece in (
        "removes blocks 2–3 of 0–5; carrier: block 1",
        "least squares",
        "reload = memory",
        "torch ",
        f"{variant.handle.n_parameters:,}",
    ):
        assert piece in card
    assert yaml.safe_load((made.folder / "recipe.yaml").read_text()) == variant.recipe


def test_every_figure_of_the_card_stands_in_its_place(variant, measurement):
    figures = {"n_tokens": 1234, "n_heldout_tokens": 567, "train_error": 0.11, "heldout_error": 0.22, "removal_error": 0.33}
    figures |= {"heldout_cosine": 0.94, "removal_cosine": 0.85, "ridge": 0.01, "condition": 70.0}
    fitted = dataclasses.replace(variant.transform, report=dataclasses.replace(variant.transform.report, **figures))
    points = (HealingPoint(0, 0, None, 0.5), HealingPoint(10, 2000, 0.4, 0.25), HealingPoint(20, 4000, 0.125, 0.3))
    settings = {"steps": 20, "rate": 0.003, "batch_tokens": 200, "rank": 8, "seed": 0, "n_trained": 4321, "seconds": 9.0, "best": 10}
    healing = HealingReport("lora", **settings, n_tokens=1235, n_heldout_tokens=568, calibration_fingerprint="x", points=points)
    facts = {"acc": {"value": 0.7, "stderr": 0.05, "n": 40}, "word_perplexity": {"value": 9.0, "stderr": None, "n": 4}}
    whole = {"transform": fitted, "healing": healing, "distances": measurement.distances["all"]}
    whole |= {"scores": {"m": {"model": "pruned", "results": {"facts": facts}}}}
    card = model_card(dataclasses.replace(variant, **whole), (Proof("a check", True, 2e-6, 1e-4, "two things"),), ("distances.png",))
    n_sequences, distance = measurement.distances["all"].n_sequences, measurement.distances["all"].at(Span(2, 4))
    for line in (
        f"added. 4 blocks and {variant.handle.n_parameters:,} parameters remain.",
        "| calibration | 1,234 tokens to fit, 567 held out to choose by |",
        "| relative error of the target, held-out (these tokens chose the fit) | 0.2200 (removed, no transform: 0.3300) |",
        "| mean cosine to the intact stream, held-out | 0.9400 (removed, no transform: 0.8500) |",
        "| ridge, condition number | 0.01, 70 |",
        "| a check | 2 × 10⁻⁶ | 0.0001 | two things |",
        f"over {measurement.n_tokens:,} tokens of {n_sequences} sequences: {distance:.4f} at 2:4",
        "| facts | acc | pruned | 0.7000 | 0.0500 | 40 |",
        "| facts | word_perplexity | pruned | 9.0000 |  | 4 |",
        "merged; 4,321 numbers moved, none was added. 20 steps of AdamW at a rate of 0.003, 1,235 tokens to train on, 568 held out, 9 s.",
        "0.5000 before, 0.2500 after (step 10, chosen on these held-out tokens).",
        "| 0 | 0 |  | 0.5000 |\n| 10 | 2,000 | 0.4000 | 0.2500 |\n| 20 | 4,000 | 0.1250 | 0.3000 |",
    ):
        assert line in card


def test_a_text_that_the_recipe_reads_lies_beside_it_or_is_said_to_be_missing(variant, tmp_path):
    recipe = {**variant.recipe, "calibration": {"source": "notes.txt", "second": "/elsewhere/more.txt"}}
    export(dataclasses.replace(variant, recipe=recipe, files={"notes.txt": b"one\n\ntwo\n"}), tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_bytes() == b"one\n\ntwo\n"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The calibration text `notes.txt` lies beside it." in card
    assert "It reads `/elsewhere/more.txt`, which is not part of this folder" in card
    export(variant, tmp_path / "plain")
    assert "lies beside it" not in (tmp_path / "plain" / "README.md").read_text()


def test_a_report_stays_json_where_the_condition_number_is_infinite(variant, tmp_path):
    report = dataclasses.replace(variant.transform.report, condition=float("inf"))
    singular = dataclasses.replace(variant, transform=dataclasses.replace(variant.transform, report=report))
    folder = export(singular, tmp_path / "model").folder
    json.loads((folder / "report.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_plain_removal_is_exported_without_a_transform(llama, measurement, tmp_path):
    dropped = prune(llama, fit(measurement, Span(2, 4), "drop"), "dropped", {})
    made = export(dropped, tmp_path / "model")
    assert "transform.safetensors" not in made.files
    torch.testing.assert_close(logits(load(ModelSection(path=str(made.folder)))), logits(dropped.handle))


def test_the_stored_transform_is_the_fitted_one_in_float64(variant, tmp_path):
    folder = export(variant, tmp_path / "model").folder
    stored = load_file(folder / "transform.safetensors")["transform"]
    assert torch.equal(stored, variant.transform.matrix)


def test_the_recipe_of_an_export_repeats_it_to_the_last_bit(llama_folder, texts, tmp_path):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    plan = PruningPlan.parse(
        {
            "model": {"path": str(llama_folder)},
            "calibration": {"source": str(tmp_path / "texts.jsonl"), "max_tokens": 600, "max_length": 32, "seed": 3},
            "span": {"share": 0.34},
        }
    )
    first = pipeline.run(plan, tmp_path / "first")
    again = pipeline.run(PruningPlan.read(first.folder / "model" / "recipe.yaml"), tmp_path / "again")
    for name in ("transform.safetensors", "model.safetensors", "config.json", "recipe.yaml"):
        assert (first.folder / "model" / name).read_bytes() == (again.folder / "model" / name).read_bytes(), name
