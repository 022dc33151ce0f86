"""Healing (training): both kinds are exact, leave their inputs alone, resume bit for bit, and lower KL on text that nobody saw."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from app_session import needs_demo
from family_configs import random_tokens
from test_families import MERGEABLE, handle_of

from replaceme_core import compare, export, families, healing, linearity, loading, pipeline, refit, surgery
from replaceme_core.artifacts import Cut, ModelHandle, Span, Variant
from replaceme_core.calibration import CalibrationSet, prepare
from replaceme_core.errors import Cancelled, InputError, ModelError, NumericsError, PlanError
from replaceme_core.healing import heal
from replaceme_core.healing.divergence import divergence
from replaceme_core.healing.training import rate_at
from replaceme_core.loading import make_handle
from replaceme_core.measure import measure
from replaceme_core.plan import CalibrationSection, HealingSection, MethodSection, ModelSection, PruningPlan
from replaceme_core.solvers import fit

SPAN = Span(2, 4)
KINDS = ("transform", "lora")


@pytest.fixture(scope="module")
def tokens() -> CalibrationSet:
    return random_tokens(3)


@pytest.fixture(scope="module")
def twice(tokens: CalibrationSet) -> CalibrationSet:
    """Held-out sequences that are copies of train sequences: what lowers the one lowers the other, whatever the model."""
    return replace(tokens, sequences=[*tokens.sequences[:15]] * 2, heldout=[False] * 15 + [True] * 15)


def pruned(handle: ModelHandle, tokens: CalibrationSet, method: str = "drop") -> Variant:
    section = MethodSection(name=method)
    return surgery.prune(handle, fit(measure(handle, tokens, spans=[SPAN]), SPAN, section), "pruned", {"model": {"path": "x"}})


def loud(name: str) -> ModelHandle:
    """A random model whose next-token probabilities are far from even, so that there is something to heal."""
    with handle_of(name).borrow() as model:
        model.get_output_embeddings().weight.mul_(3 if model.config.tie_word_embeddings else 30)
    return make_handle(name, model, handle_of(name).tokenizer, linearity.confirm(model, families.find(model.config)))


@pytest.fixture(scope="module")
def first(tokens: CalibrationSet) -> tuple[ModelHandle, Variant]:
    handle = loud("llama")
    return handle, pruned(handle, tokens)


def settings(kind: str, **more: object) -> HealingSection:
    return HealingSection.parse({"kind": kind, "steps": 6, "batch_tokens": 128, "rate": 3e-3} | more)


def weights_of(handle: ModelHandle) -> dict[str, torch.Tensor]:
    with handle.borrow() as model:
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def heldout(tokens: CalibrationSet) -> list[torch.Tensor]:
    return [sequence for sequence, out in zip(tokens.sequences, tokens.heldout, strict=True) if out]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MERGEABLE)
def test_every_family_is_healed_exactly_and_its_inputs_stay_as_they_are(name, kind, twice, tmp_path):
    handle = loud(name)
    variant = pruned(handle, twice)
    before = weights_of(handle), weights_of(variant.handle)
    with handle.borrow() as model, variant.handle.borrow() as cut:
        flags = [p.requires_grad for m in (model, cut) for p in m.parameters()]
    healed = heal(handle, variant, twice, settings(kind, steps=8, rate=1e-3))
    report = healed.healing
    assert report is not None
    assert report.lowered, report
    names = {"transform": ["merged = trained", "merged = hooked", "cached = uncached"], "lora": ["merged = trained", "cached = uncached"]}
    assert [proof.name for proof in healed.proofs] == names[kind]
    assert all(proof.passed for proof in healed.proofs)
    assert (same(before[0], weights_of(handle)), same(before[1], weights_of(variant.handle))) == (True, True)
    with handle.borrow() as model, variant.handle.borrow() as cut, healed.handle.borrow() as own:
        assert [p.requires_grad for m in (model, cut) for p in m.parameters()] == flags
        assert all(p.grad is None for m in (model, cut, own) for p in m.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for m in (model, cut, own) for module in m.modules())
        shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (cut, own)]
    assert shapes[0] == shapes[1], "nothing may be added"
    row = compare.divergence(handle, [healed.handle, variant.handle], heldout(twice))
    assert row[1].kl == pytest.approx(report.after, rel=1e-3), "second route: sequence by sequence, unpadded, the merged model"
    assert row[2].kl == pytest.approx(report.before, rel=1e-3)
    assert export.export(healed, tmp_path / "out").proofs[-1].passed
    if kind == "lora" and name in ("llama", "gpt2", "mixtral", "qwen3_moe", "llama4"):
        after = weights_of(healed.handle)
        blocks = [key for key in after if f"{handle.family.blocks}." in key and after[key].ndim > 1 and "router" not in key]
        still = [key for key in blocks if torch.equal(after[key], before[1][key])]
        assert [key for key in still if not key.endswith("mlp.gate.weight")] == [], "every linear layer and every stack of experts moves"


def test_only_the_writer_of_the_carrier_moves_when_t_is_healed(first, tokens):
    handle, variant = first
    healed = heal(handle, variant, tokens, settings("transform"))
    before, after = weights_of(variant.handle), weights_of(healed.handle)
    assert {key for key in after if not torch.equal(after[key], before[key])} == {
        f"model.layers.1.mlp.down_proj.{k}" for k in ("weight", "bias")
    }
    assert healed.transform.matrix is not None


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2"])
def test_a_refit_is_healed_with_t_below_its_weights(name, twice):
    handle = loud(name)
    fitted = refit.fit(handle, twice, SPAN, MethodSection(name="sequential_refit", lookahead=0))
    worse = {path: 0.8 * value for path, value in fitted.weights.items()}  # a good refit leaves T little to do on random text
    variant = surgery.prune(handle, replace(fitted, weights=worse), "refit", {})
    healed = heal(handle, variant, twice, settings("transform", rate=1e-3, steps=10))
    assert healed.healing.lowered
    assert healed.transform.matrix is None
    moved = {
        key
        for key, value in healed.transform.weights.items()
        if not torch.equal(value, variant.transform.weights.get(key, torch.nan * value))
    }
    assert moved
    assert all(key.startswith("1.") for key in moved), "the carrier is block 1"
    assert all(proof.passed for proof in healed.proofs)


def test_several_spans_have_one_t_each(twice):
    handle = loud("llama")
    cut = Cut((Span(1, 2), Span(3, 4)))
    fitted = refit.fit(handle, twice, cut, MethodSection(name="refit"))
    worse = {path: 0.8 * value for path, value in fitted.weights.items()}
    variant = surgery.prune(handle, replace(fitted, weights=worse), "two spans", {})
    healed = heal(handle, variant, twice, settings("transform", rate=1e-3, steps=10))
    assert healed.healing.lowered
    assert healed.healing.n_trained == 2 * handle.width**2
    before, after = weights_of(variant.handle), weights_of(healed.handle)
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    assert moved == {f"model.layers.{place}.mlp.down_proj.{leaf}" for place in (0, 1) for leaf in ("weight", "bias")}
    assert heal(handle, variant, twice, settings("lora", rate=1e-3, steps=10)).healing.lowered


def test_closed_gradient_and_loss_are_those_of_autograd():
    generator = torch.Generator().manual_seed(0)
    reference, own = (torch.randn(3, 7, 50, generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    reference[..., 5] = -torch.inf
    own[..., 5] = -torch.inf
    counted = torch.rand(3, 7, generator=generator) > 0.3
    own.requires_grad_()
    p, q = reference.log_softmax(-1), own.log_softmax(-1)
    expected = torch.where(p.exp() > 0, p.exp() * (p - q), 0.0).sum(-1)[counted].sum()
    total, slope = divergence(reference, own.detach(), counted, True)
    assert total == pytest.approx(float(expected.detach()), rel=1e-12)
    assert torch.allclose(slope, torch.autograd.grad(expected, own)[0], atol=1e-12)
    assert divergence(own.detach(), own.detach(), counted, True)[0] == 0


def test_the_rate_warms_up_and_falls_to_zero():
    rates = [rate_at(step, settings("lora", steps=100, rate=1.0)) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert all(left > right for left, right in pairwise(rates[10:]))
    assert rates[-1] < 1e-3
    assert [rate_at(0, settings("lora", steps=1, rate=1.0))] == [1.0]


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
    step = next((tmp_path / "at").iterdir())
    (step / "state.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot be read"):
        heal(handle, variant, tokens, settings("transform"), resume_from=tmp_path / "at")


def test_a_healing_that_lowers_nothing_returns_the_variant_with_a_note(first, tokens):
    handle, variant = first
    kept = heal(handle, variant, tokens, settings("transform", rate=50.0))
    assert kept.handle is variant.handle
    assert (kept.name, kept.recipe, kept.transform) == (variant.name, variant.recipe, variant.transform)
    assert kept.healing.best == 0
    assert any("did not lower the held-out KL" in note and "lower rate" in note for note in kept.healing.notes)
    assert "did not lower" in export.model_card(kept, kept.proofs)
    heal(handle, kept, tokens, settings("transform"))


def test_weights_are_those_of_the_least_held_out_kl_and_overfitting_is_said(first, tokens):
    handle, variant = first
    few = replace(tokens, sequences=tokens.sequences[:5], heldout=tokens.heldout[:5])
    report = heal(handle, variant, few, settings("lora", steps=120, rate=2e-2)).healing
    assert report.after == min(point.heldout for point in report.points)
    assert report.best == next(point.step for point in report.points if point.heldout == report.after)
    assert 0 < report.best <= 60
    assert any("fitted the train part only" in note for note in report.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_rate(kind, first, tokens):
    handle, variant = first
    with pytest.raises(NumericsError, match=r"not finite at step \d+.*lower rate \(now 1\.0e\+30\)"):
        heal(handle, variant, tokens, settings(kind, rate=1e30))


def test_bfloat16_weights_stay_in_their_dtype(tokens):
    handle = loud("llama")
    with handle.borrow() as model:
        model.bfloat16()
    handle = replace(handle, dtype="bfloat16")
    variant = pruned(handle, tokens)
    for kind in KINDS:
        healed = heal(handle, variant, tokens, settings(kind, steps=10))
        assert healed.healing.lowered
        assert {tensor.dtype for tensor in weights_of(healed.handle).values()} == {torch.bfloat16}


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
    healed = heal(handle, variant, tokens, settings("lora"))
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
    calibration = prepare(CalibrationSection(max_tokens=4096), handle.tokenizer)
    span = Span(5, 8)
    variant = surgery.prune(handle, fit(measure(handle, calibration, spans=[span]), span, "weighted_least_squares"), "w", {})
    sections = [HealingSection(kind=kind, steps=24, batch_tokens=512) for kind in KINDS]
    healed = [heal(handle, variant, calibration, section).handle for section in sections]
    _, before, transform, lora = compare.divergence(handle, [variant.handle, *healed], compare.heldout_sequences(handle, 2048))
    assert transform.kl < before.kl
    assert lora.kl < 0.95 * before.kl
