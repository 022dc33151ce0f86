"""Families whose blocks differ and that no row knows: found block by block, measured in one of each kind, or refused in a sentence."""

from pathlib import Path

import pytest
import torch

from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.errors import FamilyError, ProofError
from replaceme_core.export.export import export
from replaceme_core.models.architecture import families, linearity, recognition
from replaceme_core.models.architecture.families import blocks_of, scale_of, written_of
from replaceme_core.models.running import capture
from replaceme_core.models.running.precision import exact
from replaceme_core.surgery import surgery
from replaceme_core.surgery.merge import merge
from replaceme_core.surgery.surgery import prune
from tests.core.models.test_families import handle_of, pruned, random_model
from tests.support.family_configs import SHAPE, UNKNOWN, random_tokens
from tests.support.mixed_configs import MIXED, NUMBERED, REFUSED

TOKENS = random_tokens(6)


@pytest.mark.parametrize("name", MIXED)
def test_blocks_of_two_kinds_are_confirmed_in_one_of_each(name: str) -> None:
    model = random_model(name, MIXED)
    row = linearity.confirm(model, families.find(model.config))
    assert row.merge == "exact", row.reason
    blocks = blocks_of(model, row)
    kinds = recognition.kinds(blocks)
    assert len(kinds) > 1
    for number in kinds:  # second route: the merge itself, with a full matrix, on what the block read
        with capture.called(written_of(blocks[number], row)) as calls:
            capture.read_states(model, row, torch.arange(3, 15).view(1, -1), None, stop=number + 1)
        args, options, before = calls[0]
        matrix = torch.randn(SHAPE["hidden_size"], SHAPE["hidden_size"], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        merge(blocks[number], row, matrix)
        after = exact(capture.first(written_of(blocks[number], row)(*args, **options)))
        expected = exact(before) @ matrix
        assert (after - expected).norm() / expected.norm() < 1e-4
    assert scale_of(model, row) == 1


def test_more_than_fifteen_families_are_tried_and_the_page_names_them() -> None:
    assert len(MIXED) + len(REFUSED) >= 15
    accepted, refused = (
        (Path(__file__).parents[3] / "docs" / "reference" / "families.md").read_text().split("- accepted")[1].split("- refused")
    )
    assert {name for name in MIXED if f"`{name}`" in accepted} == set(MIXED)
    assert {name for name in REFUSED if f"`{name}`" in refused} == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_a_norm_behind_experts_is_refused_in_a_sentence(name: str) -> None:
    handle = handle_of(name, REFUSED)
    assert handle.family.merge == "refused"
    assert "no output projection in its 2 kinds of blocks passes the linearity probe" in handle.family.reason


@pytest.mark.parametrize("name", ["glm4_moe", "ernie4_5_moe", "lfm2_moe"])
def test_cuts_through_both_kinds_pass_every_check(name: str, tmp_path: Path) -> None:
    handle = handle_of(name, MIXED)
    for span in (Span(1, 3), Span(4, 6)):
        assert all(proof.passed for proof in export(pruned(handle, TOKENS, span), tmp_path / str(span.start)).proofs)


def test_a_block_that_the_probe_would_miss_in_the_middle_is_found() -> None:
    """A row is confirmed in every kind of block: here the first is dense and has its writer somewhere else."""
    model = random_model("glm4_moe", MIXED)
    row = linearity.confirm(model, families.find(model.config))
    first = model.model.layers[0].mlp
    first.forward = lambda states: 2 * type(first).forward(first, states)
    assert linearity.probe(model, row) < 1e-6  # the middle block is sparse and passes
    short = families.Family("short", ("short",), row.blocks, ("mlp.down_proj",), "a row")
    assert linearity.confirm(model, short).merge == "refused"


def test_experts_that_lie_the_other_way_are_told_apart_where_sides_are_equal() -> None:
    model = random_model("minimax_m2", {"minimax_m2": _square})
    row = linearity.confirm(model, families.find(model.config))
    assert (row.merge, row.experts) == ("exact", "outer_first")
    turned = families.Family(row.name, row.model_types, row.blocks, row.writers, "a row", written=row.written, experts="inner_first")
    assert not recognition.takes_a_transform(model, turned, 0)


def _square() -> object:
    from transformers import MiniMaxM2Config

    return MiniMaxM2Config(**(SHAPE | {"intermediate_size": 32}), head_dim=8, num_local_experts=4, num_experts_per_tok=2)


def test_a_list_that_is_only_as_long_as_the_model_is_deep_is_not_cut() -> None:
    config = UNKNOWN["apertus"]()
    config.eos_token_id = [2, 3, 4, 5, 6, 7]
    handle = handle_of("apertus", {"apertus": lambda: config})
    assert handle.family.layer_lists == ()
    with handle.borrow() as model:
        assert surgery.cut(model, handle.family, Span(2, 4)).config.eos_token_id == [2, 3, 4, 5, 6, 7]


def test_a_list_that_blocks_read_by_their_number_is_cut_whatever_its_name(tmp_path: Path) -> None:
    heads = [4, 2, 4, 2, 4, 4]
    config = MIXED["laguna"]()
    config.num_attention_heads_per_layer = heads
    handle = handle_of("laguna", {"laguna": lambda: config})
    assert "num_attention_heads_per_layer" in handle.family.layer_lists
    variant = pruned(handle, TOKENS, Span(2, 4))
    export(variant, tmp_path / "out")
    with variant.handle.borrow() as model:
        assert model.config.num_attention_heads_per_layer == [4, 2, 4, 4]


def removal(handle: ModelHandle, span: Span):
    from tests.core.models.test_family_rules import removal

    return removal(handle, span)


@pytest.mark.parametrize(
    ("name", "span", "kept"),
    [
        ("bamba", Span(2, 4), {"attn_layer_indices": [1, 2]}),
        ("recurrent_gemma", Span(1, 3), {"block_types": ["recurrent", "recurrent", "recurrent", "attention"]}),
        ("jamba", Span(3, 5), {"attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2}),
    ],
)
def test_a_pattern_of_numbers_is_said_anew_of_what_stays(name: str, span: Span, kept: dict[str, object], tmp_path: Path) -> None:
    variant = pruned(handle_of(name, NUMBERED), TOKENS, span)
    assert all(proof.passed for proof in export(variant, tmp_path / "out").proofs)
    with variant.handle.borrow() as model:
        assert {key: getattr(model.config, key) for key in kept} == kept


@pytest.mark.parametrize(("name", "span", "works"), [("diffllama", Span(1, 3), "4:6"), ("jamba", Span(2, 5), "1:4, 3:6")])
def test_what_the_configuration_cannot_say_is_refused_with_the_spans_that_it_can(name: str, span: Span, works: str) -> None:
    handle = handle_of(name, NUMBERED)
    with pytest.raises(FamilyError, match=f"would build other blocks than those that stay.*these spans can be removed: {works}") as said:
        prune(handle, _nothing(span), "pruned")
    assert "float32" not in str(said.value)
    last = Span(6 - len(span), 6)
    assert pruned(handle, TOKENS, last).handle.n_blocks == last.start


def _nothing(span: Span):
    from types import SimpleNamespace

    return SimpleNamespace(span=span, cut=span, matrix=None, weights={}, stand_ins={}, settings={})


def test_a_model_that_fails_the_check_of_the_cache_by_itself_is_said_to(monkeypatch) -> None:
    handle = handle_of("llama")
    failed = surgery.Proof("cached = uncached", False, 0.5, 1e-4, "")
    monkeypatch.setattr(surgery, "prove_cache", lambda *_: failed)
    with pytest.raises(ProofError, match="The original model generates other logits with its key-value cache"):
        pruned(handle, TOKENS, Span(2, 4))


def test_what_fails_inside_generation_is_a_sentence() -> None:
    class Broken(torch.nn.Module):
        device = torch.device("cpu")

        def get_input_embeddings(self):
            return torch.nn.Embedding(4, 2)

        def generate(self, **_options):
            raise AttributeError("no attribute 'conv_states'")

    with pytest.raises(ProofError, match=r"cannot generate with its cache \(AttributeError: no attribute 'conv_states'\)"):
        surgery.prove_cache(Broken(), 1e-4)
