"""SliceGPT and LLM-Pruner: exact where nothing is lost, equal parameter budgets, importance worked out by hand."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from replaceme_core import baselines
from replaceme_core.baselines import Request, llm_pruner, slicegpt, width
from replaceme_core.errors import FamilyError, InputError
from replaceme_core.models.loading import load, make_handle
from replaceme_core.plans.plan import ModelSection
from tests.core.models.test_families import handle_of
from tests.support.tiny_models import save_tiny

WIDTH = [row.name for row in baselines.BASELINES.values() if row.kind == "width"]


@pytest.fixture(scope="module")
def one(llama, calibration) -> Request:
    return Request(llama, calibration, 1)


@pytest.fixture(scope="module", params=["llama_tied", "qwen3"])
def other(request, calibration, tmp_path_factory) -> Request:
    """Tied embeddings; and norms on the heads, sliding windows in some blocks."""
    folder = save_tiny(tmp_path_factory.mktemp(request.param), request.param)
    return Request(load(ModelSection(path=str(folder))), calibration, 1)


def logits(model) -> torch.Tensor:
    ids = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("only", [False, True])
def test_slicegpt_with_nothing_sliced_is_the_original(only, one, other):
    for request in (one, other):
        with request.handle.borrow() as model:
            turned = slicegpt.sliced(model, slicegpt.rotations(request, only), 32, only)
            torch.testing.assert_close(logits(turned), logits(model), atol=2e-3, rtol=1e-3)
            assert not torch.allclose(turned.model.embed_tokens.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize("only", [False, True])
def test_the_axes_are_the_principal_ones_of_what_the_norm_gives(only, one):
    """A second route: SVD of the rows, one sequence after the other, without the norms' gains."""
    found = slicegpt.rotations(one, only)
    rows: list[list[torch.Tensor]] = [[] for _ in found]
    with one.handle.borrow() as model:
        bare = copy.deepcopy(model)
        norms = slicegpt._norms(bare)
        for row, norm in zip(rows, norms, strict=True):
            gain = norm.weight
            norm.register_forward_hook(lambda _m, _a, out, row=row, gain=gain: row.append((out[0] / gain).detach().double()))
        for sequence, out in zip(one.calibration.sequences, one.calibration.heldout, strict=True):
            if not out:
                logits_of = bare(input_ids=sequence.unsqueeze(0), use_cache=False).logits
                assert logits_of.isfinite().all()
    every = [torch.cat(row) for row in rows]
    if only:
        every = [torch.cat(every)] * len(every)
    for base, data in zip(found, every, strict=True):
        values = torch.linalg.svdvals(data)
        torch.testing.assert_close((data @ base).norm(dim=0), values, rtol=1e-4, atol=1e-4 * float(values[0]))


def test_the_parameters_that_slicegpt_counts_are_those_it_makes(one, other):
    for request in (one, other):
        with request.handle.borrow() as model:
            for only in (False, True):
                made = slicegpt.sliced(model, slicegpt.rotations(request, only), 20, only)
                assert slicegpt.n_parameters(model, 20, only) == sum(p.numel() for p in made.parameters())


@pytest.mark.parametrize("name", WIDTH)
def test_a_width_method_removes_what_the_blocks_would_and_leaves_the_original(name, one):
    before = one.handle.fingerprint
    made = baselines.prune(name, one)
    with one.handle.borrow() as model:
        assert make_handle("again", model, None, one.handle.family).fingerprint == before
    assert made.method == name
    assert one.n_parameters <= made.n_parameters_removed < 1.35 * one.n_parameters
    assert made.handle.n_blocks == 6
    assert made.removed == ()
    assert not made.training
    assert all(proof.passed for proof in made.proofs)
    assert ("stays in memory" in " ".join(made.notes)) == (not baselines.find(name).plain)


@pytest.mark.parametrize("name", [name for name in WIDTH if baselines.find(name).plain])
def test_a_uniform_result_is_read_back_by_plain_transformers(name, one, other, tmp_path):
    for number, request in enumerate((one, other)):
        made = baselines.prune(name, request)
        with made.handle.borrow() as model:
            model.save_pretrained(tmp_path / str(number))
            again = AutoModelForCausalLM.from_pretrained(tmp_path / str(number))
            torch.testing.assert_close(logits(again), logits(model))


def test_importance_is_the_gradient_times_the_weight_summed_over_the_group(one):
    """By hand: one gradient of the mean loss over unpadded sequences, then loops over channels and heads."""
    with one.handle.borrow() as model:
        own = copy.deepcopy(model).requires_grad_(True)
    found = llm_pruner.importances(one, copy.deepcopy(own))
    rows = [s for s, out in zip(one.calibration.sequences, one.calibration.heldout, strict=True) if not out]
    count = sum(len(row) - 1 for row in rows)
    for row in rows:
        scores = own(input_ids=row.unsqueeze(0), use_cache=False).logits[0, :-1]
        (torch.nn.functional.cross_entropy(scores, row[1:], reduction="sum") / count).backward()
    block = own.model.layers[2]
    change = {name: (p * p.grad).abs() for name, p in block.named_parameters()}
    for channel in (0, 17, 47):
        expected = sum(change[f"mlp.{name}_proj.{kind}"][channel].sum() for name in ("gate", "up") for kind in ("weight", "bias"))
        expected += change["mlp.down_proj.weight"][:, channel].sum()
        assert float(found[2].channels[channel]) == pytest.approx(float(expected), rel=1e-3)
    for head, (queries, keys) in enumerate(((slice(0, 16), slice(0, 8)), (slice(16, 32), slice(8, 16)))):
        expected = sum(change[f"self_attn.q_proj.{kind}"][queries].sum() for kind in ("weight", "bias"))
        expected += sum(change[f"self_attn.{name}_proj.{kind}"][keys].sum() for name in "kv" for kind in ("weight", "bias"))
        expected += change["self_attn.o_proj.weight"][:, queries].sum()
        assert float(found[2].heads[head]) == pytest.approx(float(expected), rel=1e-3)


def test_channels_and_heads_whose_weights_are_zero_go_first_and_nothing_changes(one):
    with one.handle.borrow() as model:
        idle = width.own_copy(model)
    for block in idle.model.layers:
        block.mlp.down_proj.weight[:, 5:45] = 0
        block.mlp.gate_proj.weight[5:45] = 0
        block.mlp.gate_proj.bias[5:45] = 0
        block.mlp.up_proj.weight[5:45] = 0
        block.self_attn.o_proj.weight[:, 16:] = 0
    handle = make_handle("with idle parts", idle, one.handle.tokenizer, one.handle.family)
    made = baselines.prune("llm_pruner_uniform", Request(handle, one.calibration, 2))
    assert 0 < made.figures["channels_removed"] <= 40
    with made.handle.borrow() as pruned:
        if made.figures["heads_removed"] == 0:
            torch.testing.assert_close(logits(pruned), logits(idle), atol=1e-4, rtol=1e-4)
    scores = llm_pruner.importances(one, width.own_copy(idle))[1]
    kept = llm_pruner._best(scores.channels, 40)
    assert kept.tolist() == [*range(5), 45, 46, 47]
    for block in idle.model.layers:
        llm_pruner.narrow(block, torch.tensor([0]), kept)
    with one.handle.borrow() as model:
        zeroed = width.own_copy(model)
    for block in zeroed.model.layers:
        block.mlp.down_proj.weight[:, 5:45] = 0
        block.self_attn.o_proj.weight[:, 16:] = 0
    torch.testing.assert_close(logits(idle), logits(zeroed), atol=1e-4, rtol=1e-4)


def test_the_outer_blocks_stay_whole(one):
    made = baselines.prune("llm_pruner", one)
    assert made.figures["blocks"] == [1, 2, 3, 4]
    with made.handle.borrow() as model, one.handle.borrow() as original:
        sizes = [block.mlp.gate_proj.out_features for block in model.model.layers]
        assert sizes[0] == sizes[-1] == 48 > sizes[1]
        assert torch.equal(model.model.layers[0].mlp.gate_proj.weight, original.model.layers[0].mlp.gate_proj.weight)


@pytest.mark.parametrize("name", WIDTH)
def test_other_families_and_too_much_are_sentences(name, one):
    with pytest.raises(FamilyError, match="built for llama"):
        baselines.prune(name, Request(handle_of("gpt2"), one.calibration, 1))
    if name == "llm_pruner":
        with pytest.raises(InputError, match="at most"):
            baselines.prune(name, Request(one.handle, one.calibration, 5))
