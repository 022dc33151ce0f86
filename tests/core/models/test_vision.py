"""Encoders of images: tiny random ViT and CLIP, real checkpoints and png files, against a second route and through the command line."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from click.testing import CliRunner

from replaceme_core import pipeline
from replaceme_core.artifacts import Measurement, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.cli.main import main
from replaceme_core.dry_run import dry_run
from replaceme_core.errors import FamilyError
from replaceme_core.export.export import export
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models.architecture import families, linearity
from replaceme_core.models.architecture.family_table import FAMILIES as ROWS
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection, PruningPlan
from replaceme_core.solvers import fit
from replaceme_core.surgery.surgery import prune
from tests.core.models.test_families import CUTS
from tests.support.image_models import MODELS, N_IMAGES, OTHERS, PIXELS, POSITIONS, prepared, save_tiny
from tests.support.tiny_models import tokenizer as save_tokenizer


def own_class(folder: Path) -> Any:
    return getattr(hf, json.loads((folder / "config.json").read_text())["architectures"][0])


def tower_of(model: Any) -> Any:
    return getattr(model, "vision_model", getattr(model, "vit", model))


def blocks_of(model: Any) -> Any:
    tower = tower_of(model)
    return tower.encoder.layers if hasattr(tower, "encoder") else tower.layers


@pytest.fixture(scope="session", params=list(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def handle(folder: Path) -> ModelHandle:
    return load(ModelSection(path=str(folder)))


@pytest.fixture(scope="session")
def calibration(handle: ModelHandle, images: Path) -> CalibrationSet:
    return prepared(handle, images)


@pytest.fixture(scope="session")
def measurement(handle: ModelHandle, calibration: CalibrationSet) -> Measurement:
    return measure(handle, calibration)


def dense(folder: Path, calibration: CalibrationSet) -> torch.Tensor:
    """[boundaries, images, positions, width] from transformers' own hidden states; the last one is the stream before the final norm."""
    model = own_class(folder).from_pretrained(folder).eval()
    tower, pixels = tower_of(model), torch.stack(list(calibration.sequences))
    with torch.no_grad():
        found = tower(pixel_values=pixels, output_hidden_states=True)
    states = torch.stack(found.hidden_states).double()
    norm = tower.layernorm if hasattr(tower, "layernorm") else torch.nn.Identity()
    assert torch.allclose(norm(found.hidden_states[-1]), found.last_hidden_state, atol=1e-5)
    return states


def test_the_rows_fit_every_head_and_the_probe_confirms_them(handle: ModelHandle, folder: Path) -> None:
    assert handle.family.merge == "exact"
    assert (handle.n_blocks, handle.width) == (6, 32)
    with handle.borrow() as model:
        assert type(model) is own_class(folder)
        assert families.blocks_of(model, handle.family) is blocks_of(model)
        assert linearity.probe(model, handle.family) < 1e-5


def test_every_row_of_images_is_tried_here() -> None:
    tried = {families.find(make().config).name for make in (MODELS | OTHERS).values()}
    assert {t for row in ROWS if row.inputs == "images" for t in row.model_types} == tried | {"dinov2"}


@pytest.mark.parametrize("name", list(OTHERS))
def test_the_other_families_pass_the_same_proofs(name: str, images: Path, tmp_path: Path) -> None:
    handle = load(ModelSection(path=str(save_tiny(tmp_path / "model", name, OTHERS[name]))))
    with handle.borrow() as model:
        assert linearity.probe(model, handle.family) < 1e-5
    measured = measure(handle, prepared(handle, images))
    assert measured.n_tokens == N_IMAGES * (18 if name == "deit" else 16)
    for span in CUTS:
        proofs = export(prune(handle, fit(measured, span, "least_squares"), "pruned"), tmp_path / str(span.start)).proofs
        assert len(proofs) == 3
        assert load(ModelSection(path=str(tmp_path / str(span.start)))).n_blocks == 6 - len(span)


def test_the_preflight_counts_the_blocks_of_the_vision_tower(folder: Path, handle: ModelHandle) -> None:
    found = preflight(ModelSection(path=str(folder)))
    with handle.borrow() as model:
        assert found.block_parameters == sum(p.numel() for p in blocks_of(model)[0].parameters())
    assert (found.n_blocks, found.n_parameters, found.merge) == (6, handle.n_parameters, "exact")
    sizes = dry_run(PruningPlan.parse({"model": {"path": str(folder)}, "span": {"start": 2, "end": 4}}))
    assert (sizes.n_removed, sizes.merge) == (2, "exact")


def test_distances_equal_a_dense_computation_from_hidden_states(
    folder: Path, calibration: CalibrationSet, measurement: Measurement
) -> None:
    states = dense(folder, calibration)
    assert measurement.n_tokens == N_IMAGES * POSITIONS
    for positions, part in (("all", states.flatten(1, 2)), ("last", states[:, :, 0])):
        unit = part / part.norm(dim=-1, keepdim=True)
        expected = 1 - torch.einsum("stw,etw->ste", unit, unit).mean(1)
        rows, columns = torch.triu_indices(7, 7, 1)
        found = measurement.distances[positions].values
        assert torch.allclose(found[rows, columns], expected[rows, columns], atol=1e-5)
        assert expected[rows, columns].max() > 0.1


def test_least_squares_equal_those_of_torch_on_the_fitted_images(
    folder: Path, calibration: CalibrationSet, measurement: Measurement
) -> None:
    states, span = dense(folder, calibration), Span(2, 5)
    model = own_class(folder).from_pretrained(folder).eval()
    caught: list[torch.Tensor] = []
    blocks_of(model)[span.carrier].mlp.register_forward_hook(lambda _m, _a, output: caught.append(output))
    with torch.no_grad():
        tower_of(model)(pixel_values=torch.stack(list(calibration.sequences)))
    fitted = ~torch.tensor(calibration.heldout)
    written = caught[0].double()
    target = states[span.end] - (states[span.start] - written)
    m, z = written[fitted].flatten(0, 1), target[fitted].flatten(0, 1)
    expected = torch.linalg.lstsq(m, z, driver="gelsd").solution
    transform = fit(measurement, span, "least_squares", 0.0)
    assert torch.allclose(transform.matrix, expected, atol=1e-3 * float(expected.abs().max()))
    error = float((m @ expected - z).square().sum() / z.square().sum())
    assert transform.report.train_error == pytest.approx(error, rel=1e-3)
    assert transform.report.n_heldout_tokens == sum(calibration.heldout) * POSITIONS


def test_three_cuts_pass_every_proof_and_leave_the_original_alone(
    handle: ModelHandle, folder: Path, measurement: Measurement, tmp_path: Path
) -> None:
    with handle.borrow() as model:
        weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        config = copy.deepcopy(model.config.to_dict())
    for span in CUTS:
        variant = prune(handle, fit(measurement, span, "weighted_least_squares"), "pruned")
        out = tmp_path / str(span.start)
        proofs = export(variant, out).proofs
        assert [proof.name for proof in proofs] == ["merged = hooked", "forward = block by block", "reload = memory"]
        assert all(proof.passed for proof in proofs)
        assert variant.handle.n_blocks == 6 - len(span)
        assert own_class(out) is own_class(folder)
        reloaded, info = own_class(out).from_pretrained(out, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert len(blocks_of(reloaded)) == 6 - len(span)
        assert len(blocks_of(hf.AutoModel.from_pretrained(out))) == 6 - len(span)
        assert hf.AutoImageProcessor.from_pretrained(out).to_dict() == hf.AutoImageProcessor.from_pretrained(folder).to_dict()
        assert load(ModelSection(path=str(out))).fingerprint == variant.handle.fingerprint
    with handle.borrow() as model:
        assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
        assert model.config.to_dict() == config


def test_a_fit_is_closer_to_the_whole_model_than_plain_removal_is(measurement: Measurement) -> None:
    report = fit(measurement, Span(3, 5), "least_squares").report
    assert report.heldout_error < report.removal_error


def test_the_text_tower_and_the_projections_of_clip_stay_bit_for_bit(clip: ModelHandle, images: Path, tmp_path: Path) -> None:
    span = Span(2, 4)
    variant = prune(clip, fit(measure(clip, prepared(clip, images), spans=[span]), span, "least_squares"), "pruned")
    export(variant, tmp_path / "out")
    pruned = hf.CLIPModel.from_pretrained(tmp_path / "out").eval()
    assert (pruned.config.text_config.num_hidden_layers, pruned.config.vision_config.num_hidden_layers) == (6, 4)
    ids = torch.randint(3, 320, (3, 9), generator=torch.Generator().manual_seed(1))
    with clip.borrow() as model, torch.no_grad():
        kept = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("vision_model.encoder")}
        assert len(kept) > 100
        assert all(torch.equal(pruned.state_dict()[key], tensor) for key, tensor in kept.items())
        texts = [m.get_text_features(input_ids=ids).pooler_output for m in (model, pruned)]
        carrier = "vision_model.encoder.layers.1.mlp.fc2.weight"
        assert not torch.equal(pruned.state_dict()[carrier], model.state_dict()[carrier])
    assert torch.equal(*texts)


def test_the_export_of_clip_keeps_the_tokenizer_and_makes_up_none(clip_folder: Path, images: Path, tmp_path: Path) -> None:
    with_tokenizer = tmp_path / "with"
    shutil.copytree(clip_folder, with_tokenizer)
    save_tokenizer(with_tokenizer)
    for folder in (clip_folder, with_tokenizer):
        handle = load(ModelSection(path=str(folder)))
        variant = prune(handle, fit(measure(handle, prepared(handle, images), spans=[Span(2, 4)]), Span(2, 4), "drop"), "pruned")
        files = export(variant, tmp_path / f"{folder.name}_out").files
        assert ("tokenizer.json" in files) == (folder == with_tokenizer)
    words = [hf.AutoTokenizer.from_pretrained(folder)("w1 w2").input_ids for folder in (with_tokenizer, tmp_path / "with_out")]
    assert words[0] == words[1]


@pytest.mark.parametrize("writer", ["attention.o_proj", "layernorm_after"])
def test_a_row_with_the_wrong_writer_is_refused_by_the_probe(writer: str, tmp_path: Path) -> None:
    handle = load(ModelSection(path=str(save_tiny(tmp_path, "vit"))))
    with handle.borrow() as model:
        assert linearity.confirm(model, replace(handle.family, writers=(writer,))).merge == "refused"


def test_a_layer_scale_is_refused(images: Path, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "vit", lambda: hf.Dinov2Model(hf.Dinov2Config(**PIXELS)))
    handle = load(ModelSection(path=str(folder)))
    assert handle.family.merge == "refused"
    with pytest.raises(FamilyError, match="a layer scale stands between the output projection and the residual stream"):
        measure(handle, prepared(handle, images))


def test_half_precision_passes_its_proofs(clip_folder: Path, images: Path, tmp_path: Path) -> None:
    handle = load(ModelSection(path=str(clip_folder), dtype="bfloat16"))
    variant = prune(handle, fit(measure(handle, prepared(handle, images), spans=[Span(2, 4)]), Span(2, 4), "least_squares"), "pruned")
    assert all(proof.passed for proof in export(variant, tmp_path / "out").proofs)


def inside(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_line_goes_from_a_folder_of_images_to_a_model(
    folder: Path, images: Path, measurement: Measurement, tmp_path: Path
) -> None:
    shown = inside("distances", "--model", folder, "--calibration", images, "--json")
    assert shown.exit_code == 0, shown.output
    data = json.loads(shown.stdout)
    assert (data["n_blocks"], data["n_tokens"], data["n_sequences"]) == (6, N_IMAGES * POSITIONS, N_IMAGES)
    assert data["cosine_all"][2][5] == pytest.approx(float(measurement.distances["all"].values[2, 5]), abs=1e-6)
    out = tmp_path / "out"
    fitted = inside("fit", "--model", folder, "--calibration", images, "--span", "2:4", "--method", "least_squares", "--out", out, "--json")
    assert fitted.exit_code == 0, fitted.output
    assert all(proof["passed"] for proof in json.loads(fitted.stdout)["proofs"].values())
    assert len(blocks_of(own_class(out).from_pretrained(out))) == 4
    card = (out / "README.md").read_text()
    assert f"from transformers import {own_class(folder).__name__}, AutoImageProcessor" in card


def test_the_recipe_of_an_export_repeats_it(clip_folder: Path, images: Path, tmp_path: Path) -> None:
    fitted = inside("fit", "--model", clip_folder, "--calibration", images, "--span", "2:4", "--out", tmp_path / "one")
    assert fitted.exit_code == 0, fitted.output
    repeated = inside("run", "--plan", tmp_path / "one" / "recipe.yaml", "--out", tmp_path / "two")
    assert repeated.exit_code == 0, repeated.output
    first, second = (load(ModelSection(path=str(tmp_path / path))).fingerprint for path in ("one", "two/model"))
    assert first == second


def test_benchmarks_of_text_are_refused_before_any_work(clip_folder: Path, images: Path, tmp_path: Path) -> None:
    plan = PruningPlan.parse({"model": {"path": str(clip_folder)}, "calibration": {"source": str(images)}, "evaluation": {}})
    with pytest.raises(Exception, match="reads images, and the benchmarks ask questions in text"):
        pipeline.run(plan, tmp_path / "run")
    shown = inside("evaluate", "--model", clip_folder, "--tasks", "demo")
    assert shown.exit_code == 1
    assert "reads images" in shown.output
