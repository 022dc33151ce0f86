"""Quantised and spread models: measured in less memory, and the runs and commands that do so."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from replaceme_core import pipeline
from replaceme_core.calibration.calibration import prepare
from replaceme_core.cli.main import main
from replaceme_core.comparison.together import Together
from replaceme_core.distribution import Group
from replaceme_core.errors import ModelError, PlanError
from replaceme_core.export import export
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models import quantised
from replaceme_core.models.architecture import linearity
from replaceme_core.models.fingerprints import of
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection, PruningPlan
from replaceme_core.solvers import fit
from replaceme_core.surgery import surgery
from tests.core.evaluation.test_evaluate import write_tasks
from tests.core.surgery.test_surgery import transform_of
from tests.support.on_disk import SPAN, in_memory, rewritten, tensors

KINDS = ["nf4", "int8"]


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


def plan_of(folder, texts_file, **model) -> PruningPlan:
    data = {"model": {"path": str(folder)} | model, "calibration": {"source": str(texts_file), "max_tokens": 600, "max_length": 32}}
    return PruningPlan.parse(data | {"span": {"start": SPAN.start, "end": SPAN.end}, "method": {"name": "weighted_least_squares"}})


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
        assert len(of(model)[0]) == 16


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
        assert of(model)[0] == plain.fingerprint
    tokens = prepare(CalibrationSection(max_tokens=1200, max_length=32), handle.tokenizer, texts, name="random words")
    found = measure(handle, tokens).distances["all"].values
    assert torch.equal(found.nan_to_num(), expected.distances["all"].values.nan_to_num())
    with pytest.raises(ModelError, match="quantised or offloaded"):
        surgery.prune(handle, transform_of(handle, SPAN), "pruned")


@pytest.mark.parametrize("method", ["drop", "least_squares"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_transform_of_the_quantised_pass_merges_into_the_unquantised_checkpoint(wide, measured, tmp_path, kind, method):
    handle, measurement = measured(quantisation=kind)
    transform = fit(measurement, SPAN, method, None if method == "drop" else 0.01)
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


@pytest.mark.parametrize(
    "changes",
    [{"method": {"name": "refit"}}, {"span": {"start": 1, "end": 2, "more": [[3, 4]]}}, {"span": {"share": 0.5, "count": 2}}],
    ids=["refit", "spans", "count"],
)
def test_a_refit_of_a_spread_model_is_refused_before_the_calibration_pass(wide, texts_file, tmp_path, changes):
    seen = []

    class Record:
        def update(self, _done, _total, _unit, what):
            seen.append(what)

    plan = PruningPlan.parse(plan_of(wide(), texts_file, device="spread").to_data() | changes)
    with pytest.raises(ModelError, match="spread over devices, and a refit solves the weights themselves"):
        pipeline.run(plan, tmp_path / "run", Record())
    assert not any("calibration" in what for what in seen)


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
    for spread, whole in zip(done.comparison, plain.comparison, strict=True):  # offloaded models are compared whole, others in slices
        assert spread.kl == pytest.approx(whole.kl, rel=1e-6, abs=1e-8)
        assert spread.perplexity == pytest.approx(whole.perplexity, rel=1e-7)
    assert tensors(done.folder / "model").keys() == tensors(plain.folder / "model").keys()


def test_a_head_that_was_offloaded_is_asked_only_through_its_model(wide, monkeypatch):
    """Its weight is a meta tensor between two passes: torch multiplies by one without an error, and returns whatever was in memory before."""
    place = quantised.placement
    monkeypatch.setattr(quantised, "placement", lambda *given: place(*given) | {"max_memory": {"cpu": "400KB"}})
    handle = load(ModelSection(path=str(wide()), device="spread"))
    multiply = torch.nn.functional.linear

    def checked(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        assert not weight.is_meta
        return multiply(states, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", checked)
    ids = torch.arange(3, 20)
    assert Together([handle], ids).read(ids.unsqueeze(0)).sides(torch.arange(16)) is None


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


def test_the_command_line_spreads_a_model_over_devices_and_merges_into_its_checkpoint(wide, texts_file, tmp_path):
    shared = ["--model", wide(), "--calibration", texts_file, "--max-tokens", 600, "--max-length", 32, "--json"]
    plain, spread = (CliRunner().invoke(main, [*map(str, ["distances", *shared, "--device", device])]) for device in ("cpu", "spread"))
    assert (plain.exit_code, spread.exit_code) == (0, 0), spread.output
    assert json.loads(plain.stdout) == json.loads(spread.stdout)
    fitted = CliRunner().invoke(main, [*map(str, ["fit", *shared, "--device", "spread", "--span", "2:4", "--out", tmp_path / "out"])])
    assert fitted.exit_code == 0, fitted.output
    assert json.loads(fitted.stdout)["proofs"]["untouched = original"]["passed"]
    assert PruningPlan.read(tmp_path / "out" / "recipe.yaml").model.device == "spread"
    write_tasks(tmp_path / "tasks")
    arguments = ["evaluate", "--model", wide(), "--tasks", tmp_path / "tasks", "--device"]
    scored = CliRunner().invoke(main, [*map(str, [*arguments, "spread", "--json"])])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["results"]
    unknown = CliRunner().invoke(main, [*map(str, [*arguments, "tpu7"])])
    assert (unknown.exit_code, "The device 'tpu7' is not known; use auto, spread" in unknown.output) == (1, True)
