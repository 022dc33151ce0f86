"""Cutting and merging: the pruned model is what it claims to be, the input is untouched, and the proofs can fail."""

import copy
import dataclasses

import pytest
import torch
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, LlamaConfig

from replaceme_core.artifacts import FitReport, LinearTransform, ModelHandle, Span
from replaceme_core.baselines import width
from replaceme_core.errors import FamilyError, ModelError, ProofError, SpanError
from replaceme_core.healing import healers
from replaceme_core.models.architecture import families
from replaceme_core.models.architecture.families import FAMILIES, blocks_of, written_of
from replaceme_core.models.running import capture
from replaceme_core.surgery import surgery

SPANS = [Span(1, 3), Span(2, 5), Span(4, 6), Span(1, 6)]
IDS = torch.randint(3, 300, (2, 24), generator=torch.Generator().manual_seed(11))
_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 320}
_REPORT = FitReport(0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0, 0.0, 0.0)


def transform_of(handle: ModelHandle, span: Span, seed: int = 0) -> LinearTransform:
    """A random matrix, far from the identity and from its own transpose."""
    matrix = torch.randn(handle.width, handle.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return LinearTransform(span, "least_squares", matrix / handle.width**0.5, _REPORT)


def by_hand(model, span: Span, matrix, ids):
    """Logits of the pruned model, the blocks called one by one: the third route, without hooks and without a merge."""
    base = model.model
    stream = base.embed_tokens(ids)
    positions = torch.arange(ids.shape[1]).unsqueeze(0)
    rotary = base.rotary_emb(stream, positions)
    window = getattr(model.config, "sliding_window", None)
    types = getattr(model.config, "layer_types", None)
    distance = positions.T - positions
    for index, block in enumerate(base.layers):
        if index in span.blocks:
            continue
        sliding = window and (types is None or types[index] == "sliding_attention")
        mask = (distance >= 0) & (distance < window) if sliding else distance >= 0
        attended = block.self_attn(
            hidden_states=block.input_layernorm(stream),
            position_embeddings=rotary,
            attention_mask=mask[None, None].expand(len(ids), 1, -1, -1),
        )[0]
        beside = stream + attended
        written = block.mlp(block.post_attention_layernorm(beside))
        if index == span.carrier:
            written = (written.double() @ matrix).to(written.dtype)
        stream = beside + written
    return model.lm_head(base.norm(stream))


def relative(left, right) -> float:
    return float((left.double() - right.double()).norm() / right.double().norm())


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_the_merged_model_computes_what_blocks_called_by_hand_compute(handle, span):
    transform = transform_of(handle, span)
    pruned = surgery.prune(handle, transform, "pruned").handle
    with handle.borrow() as model, pruned.borrow() as smaller, torch.no_grad():
        merged = smaller(input_ids=IDS, use_cache=False).logits
        expected = by_hand(model, span, transform.matrix, IDS)
        shifted = by_hand(
            model, Span(span.start + 1, span.end + 1) if span.end < 6 else Span(span.start, span.end - 1), transform.matrix, IDS
        )
    assert relative(merged, expected) < 1e-4
    assert relative(merged, shifted) > 1e-2


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_merged_equals_hooked_and_cached_equals_uncached(handle, span):
    variant = surgery.prune(handle, transform_of(handle, span), "pruned")
    assert [proof.name for proof in variant.proofs] == ["merged = hooked", "cached = uncached"]
    for proof in variant.proofs:
        assert proof.passed
        assert proof.error <= proof.tolerance == 1e-4
    with variant.handle.borrow() as pruned, torch.no_grad():
        sequence = pruned.generate(
            input_ids=IDS[:1], attention_mask=torch.ones_like(IDS[:1]), max_new_tokens=20, do_sample=False, pad_token_id=0
        )
        for _ in range(sequence.shape[1] - IDS.shape[1]):
            assert int(pruned(input_ids=sequence[:, :-1], use_cache=False).logits[0, -1].argmax()) == int(sequence[0, -1])
            sequence = sequence[:, :-1]


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_plain_removal_leaves_every_remaining_weight_as_it_was(handle, span):
    variant = surgery.prune(handle, dataclasses.replace(transform_of(handle, span), matrix=None), "dropped")
    with handle.borrow() as model, variant.handle.borrow() as pruned:
        kept = [block for index, block in enumerate(model.model.layers) if index not in span.blocks]
        for block, original in zip(pruned.model.layers, kept, strict=True):
            for (name, tensor), (other, reference) in zip(block.named_parameters(), original.named_parameters(), strict=True):
                assert name == other
                assert tensor.data_ptr() == reference.data_ptr()


def test_the_input_model_and_its_configuration_are_not_changed(handle):
    with handle.borrow() as model:
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        before = (model.config.to_dict(), [m.layer_idx for m in model.modules() if hasattr(m, "layer_idx")], handle.fingerprint)
        own = model.generation_config.to_dict()
    for span in SPANS:
        surgery.prune(handle, transform_of(handle, span), "pruned")
    with handle.borrow() as model:
        assert (model.config.to_dict(), [m.layer_idx for m in model.modules() if hasattr(m, "layer_idx")], handle.fingerprint) == before
        assert model.generation_config.to_dict() == own
        after = model.state_dict()
    assert tensors.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors.items())


def test_only_the_carriers_writer_is_a_new_tensor_and_all_others_are_shared(handle):
    span = Span(2, 4)
    variant = surgery.prune(handle, transform_of(handle, span), "pruned")
    with handle.borrow() as model, variant.handle.borrow() as pruned:
        shared = {tensor.data_ptr() for tensor in model.parameters()}
        new = {name for name, tensor in pruned.named_parameters() if tensor.data_ptr() not in shared}
        writer = written_of(blocks_of(pruned, handle.family)[span.carrier], handle.family)
    expected = {"model.layers.1.mlp.down_proj.weight"} | ({"model.layers.1.mlp.down_proj.bias"} if writer.bias is not None else set())
    assert new == expected


def test_tied_embeddings_stay_tied(handle):
    variant = surgery.prune(handle, transform_of(handle, Span(2, 4)), "pruned")
    with handle.borrow() as model, variant.handle.borrow() as pruned:
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert (pruned.get_input_embeddings().weight is pruned.get_output_embeddings().weight) is tied
        assert tied is bool(model.config.tie_word_embeddings)


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_the_number_of_parameters_falls_by_exactly_the_removed_blocks(handle, span):
    variant = surgery.prune(handle, transform_of(handle, span), "pruned")
    with handle.borrow() as model:
        removed = sum(p.numel() for index in span.blocks for p in model.model.layers[index].parameters())
    assert handle.n_parameters - variant.handle.n_parameters == removed > 0
    assert variant.handle.n_blocks == handle.n_blocks - len(span)
    assert variant.original_fingerprint == handle.fingerprint != variant.handle.fingerprint


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_everything_that_counts_blocks_is_cut_with_them(handle, span):
    variant = surgery.prune(handle, transform_of(handle, span), "pruned")
    kept = [i for i in range(6) if i not in span.blocks]
    with handle.borrow() as model, variant.handle.borrow() as pruned:
        assert pruned.config.num_hidden_layers == len(pruned.model.layers) == len(kept)
        assert [block.self_attn.layer_idx for block in pruned.model.layers] == list(range(len(kept)))
        stale = [name for name, value in pruned.config.to_dict().items() if isinstance(value, list) and len(value) == 6]
        assert stale == []
        types = getattr(model.config, "layer_types", None)
        if types is not None:
            assert pruned.config.layer_types == [types[i] for i in kept]
            for block, index in zip(pruned.model.layers, kept, strict=True):
                original = model.model.layers[index].self_attn
                assert getattr(block.self_attn, "sliding_window", None) == getattr(original, "sliding_window", None)


def test_the_pruned_model_reports_hidden_states_of_its_own_blocks(handle):
    """transformers keeps hooks of its own on a model that was asked for hidden states; a copy must not answer for the original."""
    with handle.borrow() as model, torch.no_grad():
        model(input_ids=IDS, output_hidden_states=True)
    variant = surgery.prune(handle, transform_of(handle, Span(2, 5)), "pruned")
    with variant.handle.borrow() as pruned, torch.no_grad():
        states = pruned(input_ids=IDS, output_hidden_states=True).hidden_states
        expected = capture.read_states(pruned, handle.family, IDS, torch.ones_like(IDS)).boundaries
    assert len(states) == 4
    assert all(torch.equal(a, b) for a, b in zip(states[:-1], expected[:-1], strict=True))


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre", "state_dict"])
@pytest.mark.parametrize("copied", ["cut", "narrowed", "trained"])
def test_a_model_that_carries_a_hook_is_not_copied(llama, kind, copied):
    """A copy would go on calling it: another thread's capture would read the copy's streams beside its own."""
    make = {"cut": lambda m: surgery.cut(m, llama.family, Span(2, 4)), "narrowed": width.own_copy, "trained": healers._own}[copied]
    with llama.borrow() as model:
        module = model.model.layers[4].mlp
        watch = getattr(module, "register_state_dict_post_hook" if kind == "state_dict" else f"register_{kind}_hook")(lambda *_: None)
        try:
            if kind == "state_dict":  # says nothing in a forward pass; transformers and peft have such hooks of their own
                make(model)
                return
            with pytest.raises(ModelError, match=r"'model\.layers\.4\.mlp' carries a hook .* remove it"):
                make(model)
        finally:
            watch.remove()
        make(model)


def test_a_copy_has_rotary_tables_of_its_own_where_a_forward_pass_rewrites_them():
    """Long rope writes into its table at every pass: original and variant have locks of their own, so no table may be shared."""
    config = LlamaConfig(
        **_SMALL, max_position_embeddings=64, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4, "original_max_position_embeddings": 16},
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    pruned = surgery.cut(model, families.find(config), Span(1, 2))
    short, long = IDS[:1, :8] % 300, IDS[:1, :24] % 300
    with torch.no_grad():
        pruned(input_ids=short)
        table = pruned.model.rotary_emb.inv_freq.clone()
        model(input_ids=long)
    assert not torch.equal(model.model.rotary_emb.inv_freq, table), "the table is rewritten for long texts"
    assert torch.equal(pruned.model.rotary_emb.inv_freq, table)


def test_a_bias_of_the_writer_is_merged_too(llama):
    transform = transform_of(llama, Span(3, 5))
    with llama.borrow() as model:
        block = copy.deepcopy(model.model.layers[2])
    writer = block.mlp.down_proj
    assert writer.bias.norm() > 0.1
    inner = torch.randn(7, 48, generator=torch.Generator().manual_seed(1))
    expected = linear(inner, writer.weight, writer.bias).double() @ transform.matrix
    surgery.merge(block, llama.family, transform.matrix)
    torch.testing.assert_close(linear(inner, writer.weight, writer.bias).double(), expected, rtol=1e-4, atol=1e-5)
    assert writer.weight.dtype == torch.float32
    assert not writer.weight.requires_grad


def test_the_merge_computes_in_float64_even_for_a_bfloat16_model():
    generator = torch.Generator().manual_seed(0)
    writer = torch.nn.Linear(48, 32, dtype=torch.bfloat16)
    matrix = torch.randn(32, 32, generator=generator, dtype=torch.float64)
    expected = (matrix.T @ writer.weight.double()).to(torch.bfloat16)
    block = torch.nn.ModuleDict({"mlp": torch.nn.ModuleDict({"down_proj": writer})})
    surgery.merge(block, FAMILIES[0], matrix)
    assert torch.equal(writer.weight, expected)


def test_two_spans_can_be_cut_one_after_the_other(handle):
    once = surgery.prune(handle, transform_of(handle, Span(4, 6)), "once").handle
    twice = surgery.prune(once, transform_of(once, Span(1, 2), seed=1), "twice")
    assert twice.handle.n_blocks == 3
    assert all(proof.passed for proof in twice.proofs)


def test_a_span_outside_the_model_is_refused_before_anything_is_cut(llama):
    with pytest.raises(SpanError, match="4:7"):
        surgery.prune(llama, transform_of(llama, Span(4, 7)), "pruned")


def test_a_refused_family_is_refused_with_its_reason(llama):
    refused = dataclasses.replace(llama, family=dataclasses.replace(llama.family, name="odd", merge="refused", reason="its parts are odd"))
    with pytest.raises(FamilyError, match="'odd' cannot be pruned here: its parts are odd"):
        surgery.prune(refused, transform_of(llama, Span(2, 4)), "pruned")


# The proofs must be able to fail: each of these breaks the surgery in one way that has happened elsewhere.


def test_a_transposed_merge_fails_the_proof(handle, monkeypatch):
    right = surgery.merge
    monkeypatch.setattr(surgery, "merge", lambda block, family, matrix: right(block, family, matrix.T))
    with pytest.raises(ProofError, match="failed the check 'merged = hooked'"):
        surgery.prune(handle, transform_of(handle, Span(2, 4)), "pruned")


def test_a_forgotten_bias_fails_the_proof(llama, monkeypatch):
    def weight_only(block, _family, matrix):
        writer = block.mlp.down_proj
        writer.weight = torch.nn.Parameter((matrix.T @ writer.weight.double()).float(), requires_grad=False)

    monkeypatch.setattr(surgery, "merge", weight_only)
    with pytest.raises(ProofError, match="merged = hooked"):
        surgery.prune(llama, transform_of(llama, Span(2, 4)), "pruned")


def test_a_merge_into_the_wrong_block_fails_the_proof(handle):
    span = Span(3, 5)
    transform = transform_of(handle, span)
    with handle.borrow() as model:
        pruned = surgery.cut(model, handle.family, span)
        surgery.merge(blocks_of(pruned, handle.family)[span.carrier - 1], handle.family, transform.matrix)
        proof = surgery.prove_merge(model, pruned, handle.family, transform, 1e-4)
    assert not proof.passed
    assert proof.error > 1e-2


def test_a_cut_shifted_by_one_block_fails_the_proof(handle):
    transform = transform_of(handle, Span(3, 5))
    for wrong in (Span(2, 4), Span(4, 6), Span(3, 4), Span(3, 6)):
        with handle.borrow() as model:
            pruned = surgery.cut(model, handle.family, wrong)
            surgery.merge(blocks_of(pruned, handle.family)[transform.span.carrier], handle.family, transform.matrix)
            proof = surgery.prove_merge(model, pruned, handle.family, transform, 1e-4)
        assert not proof.passed, str(wrong)


@pytest.mark.parametrize("numbering", ["stale", "doubled"])
def test_block_numbers_that_were_not_renewed_fail_the_cache_proof(handle, monkeypatch, numbering):
    mend = surgery.mend

    def forgetful(pruned, family, kept):
        mend(pruned, family, kept)
        for index, block in enumerate(blocks_of(pruned, family)):
            block.self_attn.layer_idx = kept[index] if numbering == "stale" else max(0, index - 1)

    monkeypatch.setattr(surgery, "mend", forgetful)
    with pytest.raises((ProofError, IndexError, RuntimeError)) as caught:
        surgery.prune(handle, transform_of(handle, Span(1, 3)), "pruned")
    if numbering == "doubled" and handle.family.name == "llama":  # a sliding window trips over it before the proof does
        assert "cached = uncached" in str(caught.value)


def test_the_cache_is_proved_also_where_the_checkpoint_generates_without_one(llama):
    with llama.borrow() as model:
        pruned = surgery.cut(model, llama.family, Span(2, 4))
    pruned.model.layers[3].self_attn.layer_idx = 2  # in the way of another block's entries
    for use_cache in (True, False):
        pruned.generation_config.use_cache = use_cache
        assert not surgery.prove_cache(pruned, 1e-4).passed, f"use_cache={use_cache}"


@pytest.mark.parametrize(
    "rules",
    [
        {"use_cache": False},
        {"num_beams": 2},
        {"num_return_sequences": 2, "num_beams": 2},
        {"do_sample": True, "temperature": 0.5},
        {"stop_strings": ["a"]},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "low"},
        {"eos_token_id": list(range(320))},
        {"repetition_penalty": 1.3, "max_length": 20},
    ],
    ids=str,
)
def test_a_good_model_is_proved_whatever_rules_its_checkpoint_generates_by_and_keeps_them(llama, rules):
    with llama.borrow() as model:
        pruned = surgery.cut(model, llama.family, Span(2, 4))
    for name, value in rules.items():
        setattr(pruned.generation_config, name, value)
    own, before = pruned.generation_config, pruned.generation_config.to_dict()
    assert surgery.prove_cache(pruned, 1e-4).passed
    assert pruned.generation_config is own
    assert own.to_dict() == before


@pytest.mark.parametrize("span", [Span(1, 2), Span(2, 4)], ids=str)
def test_a_family_row_that_forgets_its_lists_per_block_is_refused_and_fails_the_proof(handle, span, monkeypatch):
    """Without `layer_lists` the blocks behind the cut would take the attention kind of the removed ones."""
    forgetful = dataclasses.replace(handle, family=dataclasses.replace(handle.family, layer_lists=()))
    if len(set(_types(handle))) < 2:
        surgery.prune(forgetful, transform_of(handle, span), "pruned")  # this family has no such list to forget
        return
    with pytest.raises(FamilyError, match="would build other blocks than those that stay"):
        surgery.prune(forgetful, transform_of(handle, span), "pruned")
    monkeypatch.setattr(surgery, "require_cut", lambda *_: None)
    with pytest.raises(ProofError, match="merged = hooked"):
        surgery.prune(forgetful, transform_of(handle, span), "pruned")


def _types(handle) -> list[str]:
    with handle.borrow() as model:
        return list(getattr(model.config, "layer_types", None) or [])


def test_a_failed_proof_is_an_error_that_names_the_proof_and_the_numbers():
    from replaceme_core.artifacts import Proof

    with pytest.raises(ProofError, match=r"'cached = uncached': relative difference 0.3, allowed 0.0001 \(some detail\)"):
        surgery.require(Proof("cached = uncached", False, 0.3, 1e-4, "some detail"))
