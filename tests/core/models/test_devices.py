"""The main paths on a device that is not there: no fp64 where the device has none, no tensors of two devices, the CPU's figures."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from replaceme_core import baselines, refit, solvers
from replaceme_core.artifacts import FitMoments, LinearTransform, Measurement, ModelHandle, Span
from replaceme_core.baselines import Request, llm_streamline
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.comparison import compare, logit_lens, speed_gain, timing
from replaceme_core.healing import heal
from replaceme_core.measurement import token_errors
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture import families, linearity
from replaceme_core.models.loading import load, make_handle
from replaceme_core.models.running.divergence import divergences
from replaceme_core.models.running.precision import exact, exact_device, finest_dtype
from replaceme_core.plans.plan import HealingSection, MethodSection, ModelSection
from replaceme_core.surgery import surgery
from tests.core.models.test_families import _NoTokenizer, handle_of, random_model
from tests.support.fake_device import FakeDevice, OnDevice
from tests.support.family_configs import random_tokens

SPAN = Span(2, 4)
REFITS = {
    "sequential_refit": MethodSection(name="sequential_refit"),
    "deep_refit": MethodSection(name="deep_refit", lookahead=0, max_iterations=3),
}


@pytest.fixture(scope="module", params=["mps", "cuda"])
def machine(request: pytest.FixtureRequest) -> FakeDevice:
    return FakeDevice(request.param)


@pytest.fixture
def device(machine: FakeDevice) -> Iterator[FakeDevice]:
    with machine:
        yield machine


@pytest.fixture(scope="module")
def there(machine: FakeDevice, llama_folder) -> ModelHandle:
    """The tiny llama, on the device that 'auto' finds."""
    with machine:
        return load(ModelSection(path=str(llama_folder), device="auto"))


@pytest.fixture(scope="module")
def measured(machine: FakeDevice, there: ModelHandle, calibration: CalibrationSet) -> Measurement:
    with machine:
        return measure(there, calibration, again=True)


@pytest.fixture(scope="module")
def short(calibration: CalibrationSet) -> CalibrationSet:
    """A quarter of the tokens, for what runs the model many times."""
    quarter = slice(len(calibration.sequences) // 4)
    return replace(calibration, sequences=calibration.sequences[quarter], heldout=calibration.heldout[quarter])


@pytest.fixture(scope="module")
def fitted(machine: FakeDevice, measured: Measurement) -> LinearTransform:
    with machine:  # moments are summed when they are asked for, where the model is
        return solvers.fit(measured, SPAN, "weighted_least_squares", 0.01)


@pytest.fixture(scope="module")
def refitted_here(llama: ModelHandle, short: CalibrationSet) -> Callable[[str], LinearTransform]:
    """The refits of the CPU, made once for both devices and without either."""
    return functools.cache(lambda name: refit.fit(llama, short, SPAN, REFITS[name]))


@functools.cache
def written_here(name: str) -> LinearTransform:
    """The fit of the CPU for a random model of a family, made once for both devices and without either."""
    handle = handle_of(name)
    return solvers.fit(measure(handle, random_tokens(3), spans=[SPAN]), SPAN, writing(handle))


def writing(handle: ModelHandle) -> MethodSection:
    return MethodSection(structure="diagonal" if handle.family.merge == "diagonal" else "full", ridge=0.1)


def moved(name: str, machine: FakeDevice) -> ModelHandle:
    """A random model of a family, on the device."""
    model = random_model(name).requires_grad_(False).to(machine.device)
    model.config._experts_implementation = "eager"  # what a GPU would choose counts integers, which the CPU underneath cannot
    return make_handle(name, model, _NoTokenizer(), linearity.confirm(model, families.find(model.config)))


def test_the_fake_device_refuses_what_the_device_would_refuse(device: FakeDevice) -> None:
    there, here = torch.ones(3, device=device.device), torch.ones(3)
    for mixed in (lambda: there + here, lambda: here[there.long()], lambda: torch.cat([there, here]), lambda: there @ here.unsqueeze(1)):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert (there * torch.tensor(2.0, dtype=torch.float64)).tolist() == [2.0, 2.0, 2.0]
    assert there[torch.tensor([0, 2])].shape == (2,)
    assert type(there.cpu()) is torch.Tensor
    assert type(here.to(there)) is OnDevice
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    doubles = (
        there.double,
        lambda: there.sum(dtype=torch.float64),
        lambda: here.double().to(device.device),
        lambda: torch.zeros(2, dtype=torch.float64, device=device.device),
        lambda: there.to("cpu", torch.float64),
        lambda: torch.zeros(3, dtype=torch.float64).copy_(there),
    )
    for double in doubles:
        if device.device.type == "cuda":
            assert double().dtype == torch.float64
            continue
        with pytest.raises(TypeError, match="float64"):
            double()


def test_gradients_flow_on_the_fake_device(device: FakeDevice) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0], device=device.device))
    weight.square().sum().backward()
    assert weight.grad.tolist() == [2.0, 4.0]


def test_exact_numbers_are_made_where_fp64_is(device: FakeDevice) -> None:
    third = torch.tensor([1 / 3], device=device.device)
    home = "cpu" if device.device.type == "mps" else device.device.type
    assert exact(third).dtype == torch.float64
    assert exact(third).device.type == exact_device(device.device).type == home
    assert exact(third).tolist() == third.tolist()
    assert finest_dtype(device.device) == (torch.float32 if home == "cpu" else torch.float64)


def test_auto_finds_the_device_and_the_loaded_model_is_the_same_as_on_the_cpu(there, device, llama) -> None:
    assert there.device == str(device.device)
    assert (there.fingerprint, there.family) == (llama.fingerprint, llama.family)


def test_the_pass_gives_the_sums_of_the_cpu(device, measured, measurement) -> None:  # noqa: ARG001
    assert measured.spans() == measurement.spans()
    for positions in ("all", "last"):
        torch.testing.assert_close(measured.distances[positions].values, measurement.distances[positions].values, equal_nan=True)
    for key, expected in measurement.moments.items():
        found: FitMoments = measured.moments[key]
        assert type(found.train.gram) is torch.Tensor, "a measurement is on the CPU"
        torch.testing.assert_close(found.train.gram, expected.train.gram)
        torch.testing.assert_close(found.heldout.cross, expected.heldout.cross)
    torch.testing.assert_close(measured.sample.boundaries[2], measurement.sample.boundaries[2])


def test_a_fit_is_merged_and_proved_and_scores_as_on_the_cpu(there, fitted, device, llama, measurement, calibration) -> None:
    variant = surgery.prune(there, fitted, "there")
    assert all(proof.passed for proof in variant.proofs)
    assert variant.handle.device == str(device.device)
    here = surgery.prune(llama, solvers.fit(measurement, SPAN, "weighted_least_squares", 0.01), "here")
    sequences = calibration.sequences[:6]
    found, expected = (
        [figure for row in compare.divergence(original, [pruned.handle], sequences) for figure in (row.kl, row.perplexity)]
        for original, pruned in ((there, variant), (llama, here))
    )
    assert found == pytest.approx(expected, rel=1e-4, abs=2e-6)


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "gemma2", "falcon"])
def test_every_kind_of_writer_is_measured_and_merged(name: str, machine: FakeDevice) -> None:
    """Conv1D with a bias, stacked experts, a norm's gain, attention and MLP side by side."""
    expected = written_here(name)
    with machine:
        handle = moved(name, machine)
        transform = solvers.fit(measure(handle, random_tokens(3), spans=[SPAN]), SPAN, writing(handle))
        proofs = surgery.prune(handle, transform, name).proofs
    torch.testing.assert_close(transform.matrix, expected.matrix, rtol=1e-4, atol=1e-5)
    assert all(proof.passed for proof in proofs)


@pytest.mark.usefixtures("device")
def test_a_separate_layer_is_put_in(there, measured) -> None:
    section = MethodSection(structure="low_rank_update", rank=4, separate=True)
    assert all(proof.passed for proof in surgery.prune(there, solvers.fit(measured, SPAN, section), "x").proofs)


@pytest.mark.parametrize("name", REFITS)
def test_a_refit_is_that_of_the_cpu(name: str, there, machine, refitted_here, short) -> None:
    expected = refitted_here(name)
    with machine:
        _check_refit(there, refit.fit(there, short, SPAN, REFITS[name]), expected, short)


def _check_refit(there: ModelHandle, found: LinearTransform, expected: LinearTransform, short: CalibrationSet) -> None:
    assert found.report.heldout_error == pytest.approx(expected.report.heldout_error, rel=0.02)
    assert found.settings == expected.settings
    assert all(proof.passed for proof in surgery.prune(there, found, "x").proofs)
    errors = token_errors.measured(there, short, found)
    assert errors.fitted.mean() < errors.removed.mean()


@pytest.mark.usefixtures("device")
def test_token_errors_are_those_of_the_cpu(there, fitted, llama, short) -> None:
    found, expected = (token_errors.measured(handle, short, fitted) for handle in (there, llama))
    torch.testing.assert_close(found.fitted, expected.fitted, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.removed, expected.removed, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", list(baselines.BASELINES))
def test_every_baseline_prunes_there(name: str, there, device, short, monkeypatch) -> None:
    monkeypatch.setattr(llm_streamline.choose, "__defaults__", (3,))
    made = baselines.prune(name, Request(there, short, 2))
    assert all(proof.passed for proof in made.proofs)
    assert made.handle.device == str(device.device)


@pytest.mark.parametrize("kind", ["transform", "lora"])
@pytest.mark.usefixtures("device")
def test_a_variant_is_healed_there(kind: str, there, fitted, short) -> None:
    section = HealingSection.parse({"kind": kind, "steps": 3, "batch_tokens": 64, "rate": 1e-3})
    healed = heal(there, surgery.prune(there, fitted, "x"), short, section)
    assert all(proof.passed for proof in healed.proofs)


def test_the_loss_of_healing_is_worked_out_in_the_finest_precision_there_is(device: FakeDevice) -> None:
    generator = torch.Generator().manual_seed(1)
    here = [torch.randn(2, 5, 9, generator=generator) for _ in range(2)]
    there = [tensor.to(device.device) for tensor in here]
    sums = []
    for reference, own in (here, there):
        own.requires_grad_(True)
        found = divergences(reference, own)
        found.sum().backward()
        sums.append((found.detach().cpu().double(), own.grad.cpu()))
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-5, atol=1e-6)


def test_timings_wait_for_the_device(there, device) -> None:
    device.synchronised = 0
    timing.timed_run(there, 8, 2)
    assert device.synchronised == 3, "before, between and after: a device goes on while the next line runs"


def test_speed_is_measured_there(there, fitted, device) -> None:
    pruned = surgery.prune(there, fitted, "x").handle
    assert [found.new_tokens for found in timing.speeds([there, pruned], 8, 2)] == [2, 2]
    if device.device.type == "mps":
        assert speed_gain.peak_bytes(there, speed_gain.Timing(8, 2, 1)) is None


@pytest.mark.usefixtures("device")
def test_text_is_written_and_read_there_as_on_the_cpu(there, llama) -> None:
    text = "w1 w5 w3 w8"
    assert "".join(compare.stream(there, text, 6)) == "".join(compare.stream(llama, text, 6))
    found, expected = (logit_lens.look(handle, text) for handle in (there, llama))
    assert [[guess.kl for guess in row] for row in found.guesses] == [
        pytest.approx([guess.kl for guess in row], abs=1e-4) for row in expected.guesses
    ]
