"""Healing as a run: it resumes, is cancelled, repeats itself, and its name, record and plan say that it is training."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from replaceme_core import healing, pipeline
from replaceme_core.artifacts import ModelHandle, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet, documents, prepare
from replaceme_core.comparison import compare
from replaceme_core.errors import Cancelled, InputError, ModelError, PlanError
from replaceme_core.export import export
from replaceme_core.healing import heal
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, HealingSection, ModelSection, PruningPlan
from replaceme_core.solvers import fit
from replaceme_core.surgery import surgery
from tests.support.app_session import needs_demo
from tests.support.family_configs import random_tokens
from tests.support.healed import KINDS, loud, pruned, same, settings, weights_of


@pytest.fixture(scope="module")
def tokens() -> CalibrationSet:
    return random_tokens(3)


@pytest.fixture(scope="module")
def first(tokens: CalibrationSet) -> tuple[ModelHandle, Variant]:
    handle = loud("llama")
    return handle, pruned(handle, tokens)


class _StopAt:
    """Cancels when a step is begun."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done: float, _total: float, _unit: str, what: str) -> None:
        assert what == "healing (training)"
        if done == self.step:
            raise Cancelled("stopped by the test")


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_healing_ends_with_the_same_bits(kind, first, tokens, tmp_path):
    handle, variant = first
    tokens = replace(tokens, sequences=tokens.sequences[:12], heldout=tokens.heldout[:12])
    section = settings(kind, steps=40, rate=1e-3)
    whole = heal(handle, variant, tokens, section)
    for stop in (17, 29):
        with pytest.raises(Cancelled):
            heal(handle, variant, tokens, section, _StopAt(stop), tmp_path / "at")
        assert [path.name for path in (tmp_path / "at").iterdir()] == [f"step-{stop - 1:07d}"]
    names = sorted(path.name for path in next((tmp_path / "at").iterdir()).iterdir())
    assert names == ["state.json", "state.safetensors"]
    resumed = heal(handle, variant, tokens, section, resume_from=tmp_path / "at")
    assert same(weights_of(whole.handle), weights_of(resumed.handle))
    assert whole.healing.points == resumed.healing.points
    assert whole.handle.fingerprint == resumed.handle.fingerprint
    again = heal(handle, variant, tokens, section, _StopAt(0), tmp_path / "at")
    assert same(weights_of(whole.handle), weights_of(again.handle)), "a finished one is read back without a step"


def test_a_healing_that_goes_on_after_its_best_step_ends_with_the_weights_of_that_step(first, tokens, tmp_path):
    handle, variant = first
    few, section = replace(tokens, sequences=tokens.sequences[:5], heldout=tokens.heldout[:5]), settings("lora", steps=60, rate=2e-2)
    with pytest.raises(Cancelled):
        heal(handle, variant, few, section, _StopAt(50), tmp_path / "at")
    said = json.loads((next((tmp_path / "at").iterdir()) / "state.json").read_text())
    resumed, whole = heal(handle, variant, few, section, resume_from=tmp_path / "at"), heal(handle, variant, few, section)
    assert 0 < whole.healing.best == said["best"] < said["step"]
    assert resumed.handle.fingerprint == whole.handle.fingerprint
    assert resumed.healing.seconds > said["seconds"], "of both sittings"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 3])
def test_a_cancelled_healing_leaves_nothing_but_the_inputs(kind, stop, first, tokens, tmp_path):
    handle, variant = first
    before = weights_of(handle), weights_of(variant.handle)
    with pytest.raises(Cancelled):
        heal(handle, variant, tokens, settings(kind), _StopAt(stop))
    assert same(before[0], weights_of(handle))
    assert same(before[1], weights_of(variant.handle))
    with handle.borrow() as model, variant.handle.borrow() as cut:
        assert not any(module._forward_hooks for m in (model, cut) for module in m.modules())
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_of_another_healing_or_a_damaged_one_is_refused(first, tokens, tmp_path):
    handle, variant = first
    heal(handle, variant, tokens, settings("transform"), resume_from=tmp_path / "at")
    with pytest.raises(InputError, match=r"belongs to another healing .*Remove it to begin anew"):
        heal(handle, variant, tokens, settings("transform", seed=1), resume_from=tmp_path / "at")
    for cut, text in ((variant, replace(tokens, fingerprint="another text")), (pruned(handle, tokens, "least_squares"), tokens)):
        with pytest.raises(InputError, match="belongs to another healing"):
            heal(handle, cut, text, settings("transform"), resume_from=tmp_path / "at")
    step = next((tmp_path / "at").iterdir())
    (step / "state.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot be read"):
        heal(handle, variant, tokens, settings("transform"), resume_from=tmp_path / "at")


def test_what_cannot_be_healed_is_a_sentence(first, tokens):
    handle, variant = first
    healed = heal(handle, variant, tokens, settings("lora"))
    with pytest.raises(InputError, match="healed already"):
        heal(handle, healed, tokens, settings("lora"))
    with pytest.raises(InputError, match="was not made from"):
        heal(handle, replace(variant, original_fingerprint="other"), tokens, settings("lora"))
    with pytest.raises(ModelError, match="held quantised"):
        heal(replace(handle, checkpoint=Path("x")), variant, tokens, settings("lora"))
    with pytest.raises(InputError, match="reads images"):
        heal(replace(handle, family=replace(handle.family, inputs="images")), variant, tokens, settings("lora"))
    with pytest.raises(InputError, match="layer of its own"):
        heal(handle, replace(variant, transform=replace(variant.transform, settings={"separate": True})), tokens, settings("lora"))
    with pytest.raises(InputError, match="train and a held-out part"):
        heal(handle, variant, replace(tokens, heldout=[False] * 30), settings("lora"))
    with pytest.raises(PlanError, match="takes no rank"):
        settings("transform", rank=4)
    with pytest.raises(PlanError, match="leave out quantisation"):
        PruningPlan.parse({"model": {"path": "x", "quantisation": "nf4"}, "healing": {}})


def test_name_recipe_record_and_card_say_that_it_is_training(first, tokens):
    handle, variant = first
    beside = {"files": {"notes.txt": b"one"}, "distances": measure(handle, tokens, spans=[]).distances["all"]}
    healed = heal(handle, replace(variant, **beside), tokens, settings("lora"))
    assert {"files": healed.files, "distances": healed.distances} == beside
    assert (healed.healing.best > 3, healed.healing.notes) == (True, ()), "nothing to warn of"
    assert healed.name == "pruned, LoRA healed (training)"
    assert healed.handle.name == healed.name
    assert healed.recipe["healing"]["label"] == "healed (training)"
    assert HealingSection.parse(healed.recipe["healing"]) == settings("lora", rank=healing.healers.RANK)
    assert healed.transform.method == "drop, healed (training)"
    said = json.loads(json.dumps(export.record(healed, healed.proofs)))["healing"]
    assert [point["step"] for point in said["points"]] == list(range(7))
    assert said["points"][0]["train"] is None
    assert said["points"][-1]["n_tokens"] > 0
    card = export.model_card(healed, healed.proofs)
    assert "## Healing (training)" in card
    assert f"{healed.healing.before:.4f}" in card
    assert "| 6 |" in card
    assert "as it was before the training" in card
    moved = heal(handle, variant, tokens, settings("transform"))
    assert "as it was before the training" not in export.model_card(moved, moved.proofs)


def test_the_healing_repeats_bit_for_bit_and_a_seed_changes_it(first, tokens):
    handle, variant = first
    runs = [heal(handle, variant, tokens, settings("lora", seed=seed)).handle.fingerprint for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_a_plan_heals_after_the_merge_and_its_recipe_repeats_it(llama_folder: Path, tmp_path: Path):
    data = {
        "model": {"path": str(llama_folder)},
        "calibration": {"source": "demo:stories", "max_tokens": 600, "max_length": 64},
        "span": {"start": 2, "end": 4},
        "method": {"name": "drop"},
        "healing": {"kind": "lora", "steps": 4, "batch_tokens": 128, "rank": 2},
    }
    done = pipeline.run(PruningPlan.parse(data), tmp_path / "run")
    assert done.variant.healing.lowered
    assert done.variant.name.endswith("LoRA healed (training)")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert len(report["healing"]["points"]) == 5
    assert os.listdir(tmp_path) == ["run"], "no checkpoint may stay"
    again = pipeline.run(PruningPlan.read(tmp_path / "run" / "model" / "recipe.yaml"), tmp_path / "again")
    assert again.variant.handle.fingerprint == done.variant.handle.fingerprint
    reloaded = loading.load(ModelSection(path=str(tmp_path / "run" / "model")))
    assert reloaded.fingerprint == done.variant.handle.fingerprint


def test_a_run_that_was_stopped_while_healing_goes_on(llama_folder: Path, tmp_path: Path):
    data = {
        "model": {"path": str(llama_folder)},
        "calibration": {"source": "demo:stories", "max_tokens": 600, "max_length": 64},
        "span": {"start": 2, "end": 4},
        "method": {"name": "drop"},
        "healing": {"steps": 6, "batch_tokens": 128},
    }

    class Stop:
        def __init__(self) -> None:
            self.seen: list[float] = []

        def update(self, done: float, _total: float, _unit: str, what: str) -> None:
            self.seen += [done] if what == "healing (training)" else []
            if self.seen[-1:] == [4]:
                raise Cancelled("stopped by the test")

    plan = PruningPlan.parse(data)
    with pytest.raises(Cancelled):
        pipeline.run(plan, tmp_path / "run", Stop())
    assert os.listdir(tmp_path) == [".run.healing"]
    watch = Stop()
    watch.update = lambda done, _total, _unit, what: watch.seen.append(done) if what == "healing (training)" else None
    done = pipeline.run(plan, tmp_path / "run", watch)
    assert min(watch.seen) >= 3
    assert os.listdir(tmp_path) == ["run"]
    assert done.variant.handle.fingerprint == pipeline.run(plan, tmp_path / "other").variant.handle.fingerprint


@needs_demo
def test_a_few_dozen_steps_lower_the_demo_models_kl_on_text_that_neither_fit_nor_healing_saw():
    handle = loading.load(ModelSection(path="demo"))
    calibration = prepare(CalibrationSection(max_tokens=2048), handle.tokenizer)
    span = Span(5, 8)
    variant = surgery.prune(handle, fit(measure(handle, calibration, spans=[span]), span, "weighted_least_squares"), "w", {})
    sections = [HealingSection(kind=kind, steps=24, batch_tokens=256) for kind in KINDS]
    healed = [heal(handle, variant, calibration, section).handle for section in sections]
    _, before, transform, lora = compare.divergence(handle, [variant.handle, *healed], documents(handle.tokenizer, 1024))
    assert transform.kl < before.kl
    assert lora.kl < 0.95 * before.kl
