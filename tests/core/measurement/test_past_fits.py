"""Fits are made once: found again to the last bit, whole or not at all, and bounded."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from replaceme_core import memory, pipeline, refit
from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, RefitStep, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import ModelError
from replaceme_core.measurement import past_fits
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import MethodSection
from replaceme_core.refit import streams
from replaceme_core.storage import shelf
from replaceme_core.storage.transform_record import put_together, taken_apart

SPAN = Span(2, 4)
REFIT = MethodSection(name="refit")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own, in which every fit is worth keeping."""
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path))
    monkeypatch.setattr(past_fits, "WORTH", 0.0)
    return tmp_path / "fits"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every refit that is made, not found."""
    calls: list[str] = []
    own = refit.fit
    monkeypatch.setattr(refit, "fit", lambda *args, **more: (calls.append("refit"), own(*args, **more))[1])
    return calls


def same(left: LinearTransform, right: LinearTransform) -> None:
    (tensors, said), (others, told) = taken_apart(left), taken_apart(right)
    assert list(tensors) == list(others)
    assert all(torch.equal(tensors[name], others[name]) and tensors[name].dtype == others[name].dtype for name in tensors)
    assert repr(said) == repr(told), "a NaN is itself"
    assert (left.cut, left.steps, dict(left.lookaheads), left.report.notes, left.report.remarks) == (
        right.cut,
        right.steps,
        dict(right.lookaheads),
        right.report.notes,
        right.report.remarks,
    )


def test_a_fit_is_found_again_to_the_last_bit_and_only_for_what_it_was_made_of(
    llama: ModelHandle, calibration: CalibrationSet, made: list[str]
) -> None:
    first = pipeline.fit(llama, calibration, None, SPAN, REFIT)
    again = pipeline.fit(llama, calibration, None, SPAN, REFIT)
    assert made == ["refit"]
    same(first, again)
    pipeline.fit(llama, calibration, None, SPAN, REFIT, keep=False)
    assert len(made) == 2, "unless it is not to be"
    pipeline.fit(llama, calibration, None, Span(2, 5), REFIT)
    pipeline.fit(llama, calibration, None, SPAN, MethodSection(name="refit", attention=False))
    pipeline.fit(llama, calibration.first(600), None, SPAN, REFIT)
    assert len(made) == 5, "another span, other settings, another set"
    other = replace(llama, fingerprint="another model's")
    assert past_fits.find(past_fits.key_of(other, calibration, Cut((SPAN,)), REFIT), other) is None


@pytest.mark.parametrize("cut", [Cut((SPAN,)), Cut((SPAN, Span(5, 6)))], ids=str)
def test_a_fit_that_had_memory_for_a_part_of_the_set_is_made_again(
    llama: ModelHandle, calibration: CalibrationSet, made: list[str], monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    method = REFIT if len(cut.spans) == 1 else MethodSection()
    with monkeypatch.context() as short:
        room = 0.6 * calibration.n_tokens * streams.stream_bytes(llama.width, 4, len(cut.spans))
        short.setattr(memory, "spare", lambda: int(room))
        part = pipeline.fit(llama, calibration, None, cut, method)
    assert any("free more of it" in note for note in part.report.notes)
    whole = pipeline.fit(llama, calibration, None, cut, method)
    assert (len(made), len(whole.report.notes)) == (2, 0)
    assert whole.report.n_tokens > part.report.n_tokens
    skipping = replace(calibration, skip_first=True, fingerprint="without first tokens")
    for _ in range(2):
        pipeline.fit(llama, skipping, None, cut, method)
    assert len(made) == 3, "first tokens that are to stay out are not missing"


def test_a_fit_of_the_moments_is_found_again_and_one_of_another_measurement_is_not_taken_for_it(
    llama: ModelHandle, calibration: CalibrationSet, folder: Path
) -> None:
    measurement, method = measure(llama, calibration), MethodSection()
    first = pipeline.fit(llama, calibration, measurement, SPAN, method)
    assert first.report.seconds == pipeline.fit(llama, calibration, measurement, SPAN, method).report.seconds
    pipeline.fit(llama, calibration, replace(measurement, store=None), Span(3, 5), method)
    pipeline.fit(llama, calibration.first(600), measurement, SPAN, method)
    assert len(list(folder.iterdir())) == 1, "what this process does not have whole is kept for nobody, nor for a part of the set"


@contextmanager
def steered(handle: ModelHandle) -> Iterator[None]:
    """Somebody's own hook, which moves the stream behind one block."""
    with handle.borrow() as model:
        hook = model.model.layers[3].register_forward_hook(lambda _module, _args, output: output + 3.0)
    try:
        yield
    finally:
        hook.remove()


def test_a_fit_of_a_model_with_hooks_is_kept_for_nobody_and_none_is_found_for_it(
    llama: ModelHandle, calibration: CalibrationSet, folder: Path
) -> None:
    def fitted() -> LinearTransform:
        return pipeline.fit(llama, calibration, measure(llama, calibration), SPAN, MethodSection())

    with steered(llama):
        hooked, measurement = fitted(), measure(llama, calibration)
    pipeline.fit(llama, calibration, measurement, SPAN, MethodSection())
    assert not folder.exists(), "nor what was measured under a hook, when the hook is gone"
    plain = fitted()
    assert plain.report.heldout_error != hooked.report.heldout_error
    assert len(list(folder.iterdir())) == 1
    with steered(llama):
        assert fitted().report.heldout_error == hooked.report.heldout_error
    assert fitted().report.seconds == plain.report.seconds, "found again"


def test_a_refit_of_the_plain_model_is_not_found_for_one_with_hooks_which_cannot_be_refitted(
    llama: ModelHandle, calibration: CalibrationSet
) -> None:
    pipeline.fit(llama, calibration, None, SPAN, REFIT)
    with steered(llama), pytest.raises(ModelError, match="carries a hook"):
        pipeline.fit(llama, calibration, None, SPAN, REFIT)


def test_a_fit_of_the_moments_does_not_wait_for_a_model_that_is_lent_out(llama: ModelHandle, calibration: CalibrationSet) -> None:
    measurement = measure(llama, calibration)
    with ThreadPoolExecutor(1) as other, llama.borrow():
        other.submit(pipeline.fit, llama, calibration, measurement, SPAN, MethodSection()).result(timeout=20)


@pytest.mark.parametrize("damage", ["cut off", "a bit", "another program's", "no safetensors"])
def test_a_damaged_file_is_made_again(llama: ModelHandle, calibration: CalibrationSet, made: list[str], folder: Path, damage: str) -> None:
    first = pipeline.fit(llama, calibration, None, SPAN, REFIT)
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "a bit":
        data[-1] ^= 1
    elif damage == "another program's":
        shelf.put(past_fits.KIND, path.stem, {"matrix": torch.eye(2)}, {"spans": "none"})
        data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2] if damage == "cut off" else b"nothing" if damage == "no safetensors" else bytes(data))
    again = pipeline.fit(llama, calibration, None, SPAN, REFIT)
    assert len(made) == 2
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    pipeline.fit(llama, calibration, None, SPAN, REFIT)
    assert len(made) == 2, "and kept anew"


def test_what_lies_there_is_bounded_and_the_oldest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"values": torch.zeros(1000, dtype=torch.float64)}
    assert shelf.put("fits", "a", value, {})
    size = shelf.held("fits")[1]
    monkeypatch.setenv(shelf.LIMIT, str(25 * size / 2**30))
    assert shelf.put("variants", "b", value, {}), "a tenth of what the passes may: two and a half"
    os.utime(folder / "a.safetensors", (1, 1))
    os.utime(folder.parent / "variants" / "b.safetensors", (2, 2))
    assert shelf.get("fits", "a") is not None, "which makes it the newest"
    assert shelf.put("fits", "c", value, {})
    assert (shelf.keys("fits"), shelf.keys("variants")) == (["a", "c"], [])
    assert not shelf.put("fits", "d", {"values": torch.zeros(10_000)}, {}), "more than all of them may take"
    assert shelf.keys("fits") == ["a", "c"]
    left = folder / ".of a process that was killed"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    shelf.put("fits", "e", value, {})
    assert not left.exists()
    shelf.clear()
    assert shelf.held("fits") == (0, 0)


def test_a_disk_that_cannot_be_written_costs_nothing_but_the_next_time(
    llama: ModelHandle, calibration: CalibrationSet, made: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "a file").write_text("in the way")
    monkeypatch.setenv("REPLACEME_CACHE", str(folder.parent / "a file"))
    for _ in range(2):
        assert pipeline.fit(llama, calibration, None, SPAN, REFIT).weights
    assert len(made) == 2


def test_all_that_a_transform_may_hold_comes_back() -> None:
    removal = LinearTransform.removal(Cut.parse("1:2,3:5"))
    whole = replace(
        removal,
        matrix=torch.randn(4, 4, dtype=torch.float64),
        weights={"0.mlp.down_proj.weight": torch.randn(3, 2).bfloat16()},
        steps=(RefitStep(3, "mlp", None, 0.5, 0.25), RefitStep(2, "attention", 1e-3, 0.5, 0.1 + 0.2, 7.0, 3)),
        report=replace(removal.report, notes=("a", "b"), remarks=("c",)),
        lookaheads={0: 0.1, 2: float("inf")},
        stand_ins={4: (torch.randn(4, 4), torch.randn(4))},
    )
    assert shelf.put("fits", "whole", *taken_apart(whole))
    kept = shelf.get("fits", "whole")
    assert kept is not None
    same(whole, put_together(*kept))
