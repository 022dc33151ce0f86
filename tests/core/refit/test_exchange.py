"""Neurons of removed blocks in a kept one: in every family a neuron is what it is taken for, or nothing is exchanged and the report says why."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from replaceme_core import refit
from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import MethodSection
from replaceme_core.progress import SILENT
from replaceme_core.refit import exchange
from replaceme_core.refit.neurons import Mlp, Neurons, NotExchanged
from replaceme_core.refit.streams import Streams
from replaceme_core.refit.sums import rows_of
from replaceme_core.surgery import surgery
from tests.core.models.test_families import MERGEABLE, handle_of
from tests.core.refit.test_refit import heldout_error, intact
from tests.support.family_configs import even_tokens, random_tokens

SPAN = Span(2, 4)
EXPERTS = {"mixtral", "olmoe", "phimoe", "granitemoe", "qwen2_moe", "qwen3_moe", "deepseek_v3", "qwen3_next", "gpt_oss", "llama4"}
"""families whose MLP is no single layer that writes, in some block at least"""
WITHOUT_BIAS = {"nemotron", "falcon", "stablelm"}
"""families whose norms add an offset, and whose layers behind them have no bias"""
EXACT = [name for name in MERGEABLE if intact(name).family.merge == "exact"]


@pytest.fixture(scope="module")
def even():
    return even_tokens(3)


@pytest.mark.parametrize("name", [name for name in EXACT if name not in EXPERTS])
def test_a_block_with_its_neurons_in_another_order_is_the_same_block(name, even):
    handle = intact(name)
    ids = even.sequences[0][None]
    with handle.borrow() as model, torch.no_grad():
        calls, streams = capture.read_calls(model, handle.family, ids, None, {1})
        block = copy.deepcopy(blocks_of(model, handle.family)[1])
        mlp = Mlp.of(block, handle.family)
        own = mlp.neurons(block)
        before = calls[1].run(block, streams[1])
        mlp.put(block, own.only(torch.arange(len(own)).flip(0)))
        assert not torch.equal(mlp.neurons(block).writing, own.writing)
        assert torch.allclose(calls[1].run(block, streams[1]), before, rtol=1e-4, atol=1e-5)
        mlp.put(block, own)
        assert torch.equal(calls[1].run(block, streams[1]), before)


@pytest.mark.parametrize("name", EXACT)
def test_every_family_exchanges_or_says_why_not_and_is_proved(name, even):
    fitted = refit.fit(intact(name), even, SPAN, "exchange_refit")
    assert all(proof.passed for proof in surgery.prune(intact(name), fitted, name).proofs)
    assert all(step.after < step.before for step in fitted.steps)
    whys = [note for note in fitted.report.remarks if "keeps its own neurons" in note]
    taken = {step.block for step in fitted.steps if step.own_neurons is not None}
    assert len(whys) == len({note.split(":")[0] for note in whys})
    if name in EXPERTS:
        assert not taken
        assert any("no single layer that writes" in why for why in whys)
    elif name in WITHOUT_BIAS:
        assert not taken
        assert all("have no bias for it" in why for why in whys)
    else:
        assert all("with the best of all" in why for why in whys), "it was weighed"
        assert not taken & {int(why.split()[1]) for why in whys}


def planted() -> ModelHandle:
    """Half of the carrier's neurons are dead, the removed blocks' attention says nothing: what their MLPs add, neurons of theirs could."""
    handle = handle_of("llama")
    with handle.borrow() as model, torch.no_grad():
        blocks = blocks_of(model, handle.family)
        blocks[1].mlp.down_proj.weight.zero_()
        for layer in (blocks[1].mlp.gate_proj, blocks[1].mlp.up_proj):
            layer.weight[: len(layer.weight) // 2].zero_()
            layer.bias[: len(layer.weight) // 2].zero_()
        for block in blocks[2:4]:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.gate_proj.weight.mul_(20)
            block.mlp.up_proj.weight.mul_(20)
            block.mlp.down_proj.weight.mul_(0.01)
            for bias in (block.self_attn.o_proj.bias, block.mlp.down_proj.bias):
                if bias is not None:
                    bias.zero_()
    return handle


def test_what_the_removed_mlps_say_is_said_by_their_neurons_in_the_carrier():
    tokens = random_tokens(3)
    handle = planted()
    alone, exchanged = (
        refit.fit(handle, tokens, SPAN, MethodSection(name=name, attention=False)) for name in ("local_refit", "exchange_refit")
    )
    (step,) = [step for step in exchanged.steps if step.own_neurons is not None and step.block == 1]
    assert step.own_neurons <= 24, "dead ones are not kept"
    assert exchanged.report.heldout_error < 0.7 * alone.report.heldout_error
    pruned, plain = (surgery.prune(handle, fitted, "x").handle for fitted in (exchanged, alone))
    at_the_cut = [heldout_error(handle, each, SPAN.end, SPAN.start, tokens) for each in (pruned, plain)]
    assert at_the_cut[0] < 0.7 * at_the_cut[1]
    with handle.borrow() as model, pruned.borrow() as other:
        for own, new in zip(model.parameters(), other.parameters(), strict=False):
            assert own.dtype == new.dtype
        names = {name.split(".", 3)[-1]: value.shape for name, value in blocks_of(model, handle.family)[1].named_parameters()}
        assert names == {name.split(".", 3)[-1]: value.shape for name, value in blocks_of(other, handle.family)[1].named_parameters()}


@pytest.mark.parametrize("name", ["llama", "glm", "gpt2", "starcoder2", "gpt_neox", "olmo", "cohere", "gptj"])
def test_a_removed_blocks_neurons_say_in_the_carrier_what_its_own_mlp_says_of_that_stream(name, even):
    """Second route: the removed block's norm and MLP as they are, at the stream that the carrier's norm reads."""
    handle = intact(name)
    streams = Streams(handle, even, 1, {2, 4}, 5, SILENT)
    with handle.borrow() as model:
        carrier, donor = copy.deepcopy(blocks_of(model, handle.family)[1]), blocks_of(model, handle.family)[3]
    place = exchange._Place(streams, carrier, 1, lambda batch: batch.intact, Mlp.of(carrier, handle.family))
    norm = exchange._norm_of(place)
    put_in = exchange._fitting(place, donor, norm)()
    with torch.no_grad(), capture.seen(donor.get_submodule(place.mlp.writer), "input") as seen:
        donor.get_submodule(place.mlp.writer.rpartition(".")[0])(donor.get_submodule(norm.path)(norm.stream[None]))
        own = seen[-1].flatten(0, -2)
    place.mlp.put(carrier, put_in)
    with torch.no_grad(), capture.seen(carrier.get_submodule(place.mlp.writer), "input") as seen:
        streams.run(streams.batches[0], carrier, 1, streams.batches[0].pruned)
        (said,) = rows_of(streams.batches[0].real, seen[-1])
    assert own.norm() > 0
    assert (said - own).norm() < 1e-4 * own.norm()
    assert torch.equal(put_in.writing, Mlp.of(donor, handle.family).neurons(donor).writing)


def test_candidates_are_its_own_and_those_that_would_write_most(even):
    """Second route: every removed neuron in the carrier, alone, and the weighted square of what it adds on the train tokens."""
    handle = intact("llama")
    streams = Streams(handle, even, 1, {2, 4}, 5, SILENT)
    with handle.borrow() as model:
        blocks = blocks_of(model, handle.family)
        carrier, donors = copy.deepcopy(blocks[1]), [blocks[2], blocks[3]]
    place = exchange._Place(streams, carrier, 1, lambda batch: batch.intact, Mlp.of(carrier, handle.family))
    norm, own = exchange._norm_of(place), place.mlp.neurons(carrier)
    fitting = [exchange._fitting(place, donor, norm) for donor in donors]
    found = exchange._candidates(place, own, fitting, copy.deepcopy(carrier), lambda _: None)
    everyone = fitting[0]().beside(fitting[1]())
    wide, squares = copy.deepcopy(carrier), torch.zeros(len(everyone), dtype=torch.float64)
    place.mlp.put(wide, everyone)
    with torch.no_grad(), capture.seen(wide.get_submodule(place.mlp.writer), "input") as seen:
        for batch in streams.batches:
            streams.run(batch, wide, 1, batch.pruned)
            features, goal = (rows.double() for rows in rows_of(batch.part(False), seen[-1], batch.intact))
            for features_of_one, length in zip(features, goal.norm(dim=-1), strict=True):
                squares += (features_of_one[:, None] * everyone.writing.double()).square().sum(1) / length
    best = squares.topk(len(own)).indices.sort().values
    assert torch.equal(found.writing, torch.cat([own.writing, everyone.writing[best]]))
    assert torch.equal(found.reading[0], torch.cat([own.reading[0], everyone.reading[0][:, best]], 1))


def test_several_spans_offer_the_neurons_of_all_removed_blocks():
    tokens = random_tokens(3)
    fitted = refit.fit(handle_of("llama"), tokens, Cut.of([Span(1, 2), Span(4, 5)]), "exchange_refit")
    assert {step.block for step in fitted.steps} <= {0, 2, 3, 5}
    assert all(proof.passed for proof in surgery.prune(handle_of("llama"), fitted, "x").proofs)


def test_bfloat16_weights_stay_in_their_dtype_and_the_exchange_pays_there_too():
    tokens, handle = random_tokens(3), planted()
    with handle.borrow() as model:
        model.bfloat16()
    fitted = refit.fit(replace(handle, dtype="bfloat16"), tokens, SPAN, "exchange_refit")
    assert {weight.dtype for weight in fitted.weights.values()} == {torch.bfloat16}
    assert {step.block for step in fitted.steps if step.own_neurons is not None} >= {1}
    assert all(proof.passed for proof in surgery.prune(replace(handle, dtype="bfloat16"), fitted, "x").proofs)


class Interleaved(nn.Module):
    """Gate and up of a neuron side by side in one matrix: its rows are not where those of two halves are."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        both = self.gate_up_proj(stream)
        return self.down_proj(torch.nn.functional.silu(both[..., ::2]) * both[..., 1::2])


class Normed(Interleaved):
    """A norm between the neurons and the layer that writes: no neuron acts by itself."""

    def forward(self, stream: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(stream).chunk(2, -1)
        return self.down_proj(torch.nn.functional.normalize(torch.nn.functional.silu(gate) * up, dim=-1))


@pytest.mark.parametrize("make", [Interleaved, Normed])
def test_an_mlp_whose_neurons_are_not_what_they_seem_keeps_its_own(make):
    handle = handle_of("llama")
    torch.manual_seed(0)
    with handle.borrow() as model:
        for block in blocks_of(model, handle.family):
            block.mlp = make(32, 48)
    fitted = refit.fit(handle, random_tokens(3), SPAN, "exchange_refit")
    assert not [step for step in fitted.steps if step.own_neurons is not None]
    assert [note for note in fitted.report.remarks if "its neurons do not act one by one" in note]


def test_one_norm_is_a_multiple_of_another_or_nothing_is_exchanged():
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    own[:, 4] = 0
    slope, offset = torch.tensor([2.0, -1, 0, 0.5, 3, 1]).double(), torch.tensor([0.0, 1, 2, 0, 0, -1]).double()
    found = exchange.between(own, slope * own + offset)
    slope[4] = 0
    assert torch.allclose(found[0], slope, atol=1e-12)
    assert torch.allclose(found[1], offset, atol=1e-12)
    assert found[1][0] == found[1][3] == 0, "rounding is no offset"
    with pytest.raises(NotExchanged, match="no multiple"):
        exchange.between(own, torch.randn(50, 6, generator=generator, dtype=torch.float64))
    with pytest.raises(NotExchanged, match="no multiple"):
        exchange.between(own, torch.full((50, 6), torch.nan, dtype=torch.float64))
    channel = own.clone()
    channel[:, 4] = own[:, 0]
    with pytest.raises(NotExchanged, match="no multiple"):
        exchange.between(own, channel)


def test_an_offset_goes_into_the_bias_and_needs_one():
    generator = torch.Generator().manual_seed(0)
    rows, writing, x = (torch.randn(*shape, generator=generator) for shape in ((2, 5, 3), (5, 3), (7, 3)))
    slope, offset = torch.tensor([2.0, 0.5, -1]), torch.tensor([1.0, 0, 3])
    moved = Neurons((rows,), (torch.ones(2, 5),), writing).behind(slope, offset)
    expected = torch.einsum("tw,fnw->tfn", slope * x + offset, rows) + 1
    assert torch.allclose(torch.einsum("tw,fnw->tfn", x, moved.reading[0]) + moved.biases[0], expected, atol=1e-5)
    bare = Neurons((rows,), (None,), writing)
    assert bare.behind(slope, torch.zeros(3)).biases == (None,)
    with pytest.raises(NotExchanged, match="no bias"):
        bare.behind(slope, offset)


def test_a_norm_under_dropout_is_found_and_a_stream_that_no_layer_makes_is_not():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop, self.up = nn.LayerNorm(4), nn.Dropout(0.5), nn.Linear(4, 8)

        def forward(self, stream: Tensor) -> Tensor:
            return self.up(self.drop(self.norm(stream + 1)))

    block, stream = Block().eval(), torch.randn(2, 3, 4)
    path, read = capture.source_of(block, block.up, lambda: block(stream))
    assert path == "norm"
    assert torch.equal(read, stream + 1)
    block.forward = lambda stream: block.up(stream * 2)
    assert capture.source_of(block, block.up, lambda: block(stream)) is None
    assert not block.up._forward_pre_hooks
    assert not block.norm._forward_hooks


def test_nothing_said_on_the_way_is_lost():
    said: list[str] = []
    progress = SimpleNamespace(update=lambda done, total, unit, detail="": said.append(f"{done}/{total} {unit} {detail}"))
    refit.fit(handle_of("llama"), random_tokens(3), SPAN, "exchange_refit", progress=progress)
    assert any("refitting block 1 - neurons of removed block 2 of 2" in each for each in said)
    assert any("refitting block 1 - choosing among both" in each for each in said)
