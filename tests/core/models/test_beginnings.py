"""What two models have in common is found by their tensors, and by nothing that only looks alike."""

import copy

import pytest
import torch

from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.models.running.beginnings import layout, shared_blocks
from replaceme_core.surgery import surgery


def shared(llama: ModelHandle, other: object) -> int:
    with llama.borrow() as model:
        return shared_blocks(layout(other, llama.family), layout(model, llama.family))


def test_a_cut_shares_all_blocks_before_the_span_and_a_variant_all_before_its_carrier(llama, variant):
    with llama.borrow() as model:
        assert shared(llama, model) == llama.n_blocks
        for span in (Span(1, 3), Span(2, 4), Span(4, 6)):
            assert shared(llama, surgery.cut(model, llama.family, span)) == span.start
    with variant.handle.borrow() as pruned:
        assert shared(llama, pruned) == 1, "the carrier of 2:4 is block 1, whose output projection is new"


def test_equal_values_in_another_place_are_not_the_same(llama):
    """A model that was read twice could be told by its values only, and that costs what it saves."""
    with llama.borrow() as model:
        assert shared(llama, copy.deepcopy(model)) == 0


@pytest.mark.parametrize("change", ["embedding", "parameter", "buffer", "setting", "module"])
def test_one_change_ends_what_is_shared(llama, change):
    with llama.borrow() as model:
        other = surgery.cut(model, llama.family, Span(5, 6))
    assert shared(llama, other) == 5
    block = other.model.layers[3]
    if change == "embedding":
        other.model.embed_tokens.weight = torch.nn.Parameter(other.model.embed_tokens.weight.clone(), requires_grad=False)
    elif change == "parameter":
        block.mlp.up_proj.bias = torch.nn.Parameter(block.mlp.up_proj.bias.clone(), requires_grad=False)
    elif change == "buffer":
        other.model.rotary_emb.inv_freq.mul_(1.01)
    elif change == "setting":
        block.self_attn.scaling = 0.5
    else:
        block.mlp.more = torch.nn.Identity()
    assert shared(llama, other) == (0 if change in {"embedding", "buffer"} else 3)
