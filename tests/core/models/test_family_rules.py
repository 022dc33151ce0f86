"""Rules that hold for single blocks: each of them is seen in the logits, and is put right when blocks are cut out."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from replaceme_core import refit
from replaceme_core.artifacts import LinearTransform, ModelHandle, Span
from replaceme_core.export.export import export
from replaceme_core.models.architecture import families, modality
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import MethodSection
from replaceme_core.surgery import surgery
from tests.core.models.test_families import CUTS, MERGEABLE, handle_of, random_model
from tests.support.family_configs import FAMILIES, random_tokens

SEEN = 100 * surgery.TOLERANCE["float32"]
"""what a wrong rule must move the logits by"""
_OTHER = {
    "full_attention": ("sliding_attention", "chunked_attention", "linear_attention"),
    "sliding_attention": ("full_attention",),
    "chunked_attention": ("full_attention",),
    "linear_attention": ("full_attention",),
    "global": ("local",),
    "local": ("global",),
    0: (1,),
    1: (0,),
}
_SPARSE = ("mlp_only_layers", "moe_layers")
"""lists of the blocks that are dense, or sparse"""


def _entries(config: Any) -> list[str]:
    """The configuration's entries with a value for each block; `transformers` writes some of them itself."""
    return [key for key, value in config.to_dict().items() if isinstance(value, list) and len(value) == config.num_hidden_layers]


def other_rules(config: Any) -> Iterator[tuple[str, Any]]:
    """Every configuration in which the rule of one block is another one."""
    for entry in _entries(config):
        values = getattr(config, entry)
        for block, value in enumerate(values):
            known = next((other for other in _OTHER[value] if other in values), None)
            if known is not None:
                yield f"{entry}[{block}]", _with(config, entry, [*values[:block], known, *values[block + 1 :]])
    step = getattr(config, "decoder_sparse_step", 1)
    for entry in _SPARSE:
        held = getattr(config, entry, None)
        for block in range(config.num_hidden_layers) if held is not None else ():
            if (block + 1) % step == 0:  # the others are dense by the step
                yield f"{entry}: {block}", _with(config, entry, sorted(set(held) ^ {block}))
    if step > 1:
        yield "decoder_sparse_step: 1", _with(config, "decoder_sparse_step", 1)
    if getattr(config, "first_k_dense_replace", None) is not None:
        for moved in (-1, 1):
            yield f"first_k_dense_replace {moved:+}", _with(config, "first_k_dense_replace", config.first_k_dense_replace + moved)


def _with(config: Any, entry: str, value: Any) -> Any:
    changed = copy.deepcopy(config)
    setattr(changed, entry, value)
    if entry == "attention_layers":
        changed.attention_types = [[[kind], 1] for kind in value]
    return changed


def effect(model: Any, config: Any) -> float:
    """Relative difference of the logits under another configuration, same weights; infinite where the weights do not even fit."""
    other = AutoModelForCausalLM.from_config(config).eval()
    try:
        other.load_state_dict(model.state_dict())
    except RuntimeError:
        return math.inf
    return relative(logits(other), logits(model))


def logits(model: Any) -> torch.Tensor:
    """On the tokens that the proofs read."""
    with torch.no_grad():
        return model(input_ids=modality.TEXT.probe(model, None, surgery._PROBE), use_cache=False).logits


def relative(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.double() - right.double()).norm() / right.double().norm())


@pytest.mark.parametrize("name", MERGEABLE)
def test_every_rule_of_every_block_is_seen_in_the_logits(name: str) -> None:
    """Else a cut that forgets the rule would pass the proofs, and the family's tests with it."""
    model = random_model(name)
    found = {rule: effect(model, config) for rule, config in other_rules(model.config)}
    assert {rule: value for rule, value in found.items() if value < SEEN} == {}


def test_the_number_in_the_attention_scores_of_gpt2_is_seen_in_the_logits() -> None:
    model = random_model("gpt2_scaled")
    right = logits(model)
    for number, block in enumerate(model.transformer.h):
        own = block.attn
        block.attn = type(own)(model.config, layer_idx=number + 1).eval()
        block.attn.load_state_dict(own.state_dict())
        block.attn.layer_idx = number
        assert relative(logits(model), right) > SEEN, number
        block.attn = own


def test_every_entry_with_one_value_per_block_is_in_the_familys_row() -> None:
    for name in MERGEABLE:
        config = FAMILIES[name]()
        row = families.find(config)
        assert set(_entries(config)) <= {*row.layer_lists, *_SPARSE}, name


def _numbers(module: Any) -> dict[str, Any]:
    """Plain attributes of a module that it computes with; those that begin with _ are transformers' own marks."""
    kinds = (bool, int, float, str)
    return {key: value for key, value in vars(module).items() if isinstance(value, kinds) and not key.startswith("_") and key != "training"}


def test_both_lists_of_a_cut_gpt_neo_say_the_same() -> None:
    """Its configuration keeps the kinds of attention twice; transformers' own reading of one is the other."""
    handle = handle_of("gpt_neo")
    for span in CUTS:
        with handle.borrow() as model:
            config = surgery.cut(model, handle.family, span).config
        assert config.expand_attention_types_params(config.attention_types) == config.attention_layers


@pytest.mark.parametrize("name", MERGEABLE)
def test_what_stays_is_what_transformers_builds_from_the_mended_configuration(name: str) -> None:
    """Whatever a family computes once, when it builds a block of some number: kind of attention, window, factors."""
    handle = handle_of(name)
    for span in CUTS:
        with handle.borrow() as model:
            pruned = surgery.cut(model, handle.family, span)
        with torch.device("meta"):
            fresh = AutoModelForCausalLM.from_config(pruned.config)
        built = {path: _numbers(module) for path, module in fresh.named_modules()}
        found = {path: _numbers(module) for path, module in pruned.named_modules()}
        assert built.keys() == found.keys()
        assert {path: (found[path], own) for path, own in built.items() if found[path] != own} == {}


def removal(handle: ModelHandle, span: Span) -> LinearTransform:
    """Without a matrix and new weights."""
    return LinearTransform(span, "drop", None, refit.fit(handle, random_tokens(3), span, "drop").report)


@pytest.mark.parametrize("span", [*CUTS, Span(5, 6)], ids=str)
def test_a_cut_gpt2_computes_what_its_blocks_computed_before(span: Span) -> None:
    """Second route: the original's blocks called one after the other, the removed ones left out."""
    handle = handle_of("gpt2_scaled")
    variant = surgery.prune(handle, removal(handle, span), "pruned")
    ids = torch.randint(3, 320, (2, 24), generator=torch.Generator().manual_seed(1))
    with handle.borrow() as model, variant.handle.borrow() as pruned, torch.no_grad():
        calls, streams = capture.read_calls(model, handle.family, ids, None, {0})
        stream = streams[0]
        for number, block in enumerate(blocks_of(model, handle.family)):
            if number not in span.blocks:
                stream = calls[number].run(block, stream)
        expected = model.lm_head(model.transformer.ln_f(stream))
        assert relative(pruned(input_ids=ids, use_cache=False).logits, expected) < 1e-5
        forgotten = surgery.opened(model, handle.family, span)
        stale = AutoModelForCausalLM.from_config(forgotten.config).eval()
        stale.load_state_dict(forgotten.state_dict())
        assert span.end == 6 or relative(stale(input_ids=ids, use_cache=False).logits, expected) > SEEN


def test_new_weights_of_a_block_are_meant_for_its_old_number() -> None:
    """Whole blocks are given (LaCo, gradient steps): those that they have already change nothing."""
    handle = handle_of("gpt2_scaled")
    with handle.borrow() as model:
        own = {f"4.{path}": value.detach().clone() for path, value in blocks_of(model, handle.family)[4].named_parameters()}
        plain, given = (surgery.applied(model, handle.family, Span(2, 4), weights) for weights in (None, own))
        assert relative(logits(given), logits(plain)) < 1e-6
        with capture.simulated(model, handle.family, Span(2, 4), None, own):
            assert relative(logits(given), logits(model)) < 1e-5


@pytest.mark.parametrize("name", ["refit", "sequential_refit", "deep_refit"])
def test_a_refit_of_gpt2_with_numbered_scores_is_what_its_export_is(name: str, tmp_path: Any) -> None:
    handle = handle_of("gpt2_scaled")
    fitted = refit.fit(handle, random_tokens(3), Span(2, 4), MethodSection(name=name, max_iterations=5 if name == "deep_refit" else None))
    assert fitted.weights
    assert all(proof.passed for proof in export(surgery.prune(handle, fitted, name), tmp_path / "out").proofs)
