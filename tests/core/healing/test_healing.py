"""Healing (training): both kinds are exact, leave their inputs alone, resume bit for bit, and lower KL on text that nobody saw."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from replaceme_core import refit
from replaceme_core.artifacts import Cut, ModelHandle, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.comparison import compare
from replaceme_core.errors import NumericsError
from replaceme_core.export import export
from replaceme_core.healing import heal
from replaceme_core.healing.tokens import of
from replaceme_core.healing.training import rate_at
from replaceme_core.plans.plan import MethodSection
from replaceme_core.surgery import surgery
from tests.core.models.test_families import MERGEABLE
from tests.support.family_configs import even_tokens, random_tokens
from tests.support.healed import KINDS, SPAN, loud, pruned, same, settings, weights_of


@pytest.fixture(scope="module")
def tokens() -> CalibrationSet:
    return random_tokens(3)


@pytest.fixture(scope="module")
def twice(tokens: CalibrationSet) -> CalibrationSet:
    """Held-out sequences that are copies of train sequences: what lowers the one lowers the other, whatever the model."""
    return replace(tokens, sequences=[*tokens.sequences[:15]] * 2, heldout=[False] * 15 + [True] * 15)


@pytest.fixture(scope="module")
def few_twice() -> CalibrationSet:
    """Six and their copies: two batches for each look at the held-out part."""
    tokens = even_tokens(3)
    return replace(tokens, sequences=tokens.sequences[:6] * 2, heldout=[False] * 6 + [True] * 6)


@pytest.fixture(scope="module", params=MERGEABLE)
def cut_down(request: pytest.FixtureRequest, few_twice: CalibrationSet) -> tuple[ModelHandle, Variant]:
    """A model of every family and its pruned one; both kinds of healing must leave them as they are."""
    handle = loud(request.param)
    return handle, pruned(handle, few_twice)


@pytest.fixture(scope="module")
def first(tokens: CalibrationSet) -> tuple[ModelHandle, Variant]:
    handle = loud("llama")
    return handle, pruned(handle, tokens)


def heldout(tokens: CalibrationSet) -> list[torch.Tensor]:
    return [sequence for sequence, out in zip(tokens.sequences, tokens.heldout, strict=True) if out]


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_is_healed_exactly_and_its_inputs_stay_as_they_are(cut_down, kind, few_twice, tmp_path):
    handle, variant = cut_down
    before = weights_of(handle), weights_of(variant.handle)
    with handle.borrow() as model, variant.handle.borrow() as cut:
        flags = [p.requires_grad for m in (model, cut) for p in m.parameters()]
    healed = heal(handle, variant, few_twice, settings(kind, steps=4, rate=1e-3))
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
    row = compare.divergence(handle, [healed.handle, variant.handle], heldout(few_twice))
    assert row[1].kl == pytest.approx(report.after, rel=1e-3), "second route: sequence by sequence, unpadded, the merged model"
    assert row[2].kl == pytest.approx(report.before, rel=1e-3)
    assert export.export(healed, tmp_path / "out").proofs[-1].passed
    if kind == "lora" and handle.name in ("llama", "gpt2", "mixtral", "qwen3_moe", "llama4"):
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


def test_a_batch_holds_no_more_than_was_asked_and_no_sequence_of_one_token(tokens):
    some = replace(tokens, sequences=[*tokens.sequences, torch.tensor([5])], heldout=[*tokens.heldout, False])
    data = of(some, settings("lora", batch_tokens=64))
    for batch in [*data.heldout, *(data.batch(step) for step in range(20))]:
        assert len(batch.ids) == 1 or batch.ids.numel() <= 64
        assert int(batch.mask.sum(1).min()) > 1, "it would predict nothing"


def test_the_rate_warms_up_and_falls_to_zero():
    rates = [rate_at(step, settings("lora", steps=100, rate=1.0)) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert all(left > right for left, right in pairwise(rates[10:]))
    assert rates[-1] < 1e-3
    assert [rate_at(0, settings("lora", steps=1, rate=1.0))] == [1.0]


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
    healed = heal(handle, variant, few, settings("lora", steps=60, rate=2e-2))
    report = healed.healing
    assert compare.divergence(handle, [healed.handle], heldout(few))[1].kl == pytest.approx(report.after, rel=1e-3)
    assert report.after == min(point.heldout for point in report.points)
    assert report.best == next(point.step for point in report.points if point.heldout == report.after)
    assert 0 < report.best <= 30
    assert any("fitted the train part only" in note for note in report.notes)


def test_the_train_figure_of_a_look_is_the_mean_of_the_steps_since_the_one_before(first, tokens):
    """Second route: at a rate that changes nothing, two sequences by themselves, a step for each of them."""
    handle, variant = first
    own = [[each for each, out in zip(tokens.sequences, tokens.heldout, strict=True) if out is part] for part in (False, True)]
    rows = sorted(own[0], key=len)
    chosen = [rows[0], rows[-1], own[1][0]]
    few = replace(tokens, sequences=chosen, heldout=[False, False, True])
    report = heal(handle, variant, few, settings("transform", steps=40, rate=1e-9, batch_tokens=2)).healing
    kls = [compare.divergence(handle, [variant.handle], [each])[1].kl for each in chosen]
    look = report.points[1]
    assert (look.step, look.n_tokens) == (2, len(chosen[0]) + len(chosen[1]))
    assert (look.train, look.heldout) == (pytest.approx((kls[0] + kls[1]) / 2, rel=1e-4), pytest.approx(kls[2], rel=1e-4))
    assert (report.n_tokens, report.n_heldout_tokens) == (look.n_tokens, len(chosen[2]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_rate(kind, first, tokens):
    handle, variant = first
    with pytest.raises(NumericsError, match=r"not finite at step \d+.*lower rate \(now 10³⁰\)"):
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
