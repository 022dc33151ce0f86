"""The logit lens against a second route: hidden states of the unhooked model, and norm, head and scale written out by hand."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import Cut, ModelHandle, Span, Variant
from replaceme_core.comparison import logit_lens
from replaceme_core.errors import Cancelled, FamilyError, InputError
from replaceme_core.models.architecture import families
from replaceme_core.models.loading import make_handle
from tests.support import family_configs

PROMPT = "w1 w2 w3 w4"


def tiny(name: str, tokenizer, **changes) -> ModelHandle:
    """A random model of a family with a head that is not shy, so that scales and soft caps matter."""
    torch.manual_seed(3)
    config = family_configs.FAMILIES[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return make_handle(name, model, tokenizer, families.find(config))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("opt", {"word_embed_proj_dim": 16}),
        ("gpt_neox", {}),
        ("qwen3_next", {}),
        ("mixtral", {}),
        ("granite", {"logits_scaling": 7.0}),
        ("cohere", {"logit_scale": 0.3}),
        ("gemma2", {"final_logit_softcapping": 1.5}),
    ],
)
def test_the_last_boundary_says_what_the_model_says(llama: ModelHandle, name: str, changes: dict) -> None:
    handle = tiny(name, llama.tokenizer, **changes)
    ids = torch.arange(5, 17)
    with handle.borrow() as model:
        expected = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0].double().log_softmax(-1)
        states = logit_lens.capture.read_states(model, handle.family, ids.unsqueeze(0), None, writers=()).boundaries
    found = [logit_lens.answers(handle, states[at][0]).double().log_softmax(-1) for at in (-1, 2)]
    assert torch.allclose(found[0], expected, atol=1e-5)
    assert not torch.allclose(found[1], expected, atol=0.1)


@pytest.mark.parametrize(
    ("name", "changes", "end"),
    [
        ("llama", {}, lambda m, h: m.lm_head(m.model.norm(h))),
        ("gpt2", {}, lambda m, h: m.lm_head(m.transformer.ln_f(h))),
        ("opt", {"word_embed_proj_dim": 16}, lambda m, h: m.lm_head(m.model.decoder.project_out(m.model.decoder.final_layer_norm(h)))),
        ("granite", {"logits_scaling": 7.0}, lambda m, h: m.lm_head(m.model.norm(h)) / 7.0),
        ("cohere", {"logit_scale": 0.3}, lambda m, h: m.lm_head(m.model.norm(h)) * 0.3),
        ("gemma2", {"final_logit_softcapping": 1.5}, lambda m, h: 1.5 * torch.tanh(m.lm_head(m.model.norm(h)) / 1.5)),
    ],
)
def test_every_other_boundary_is_normed_unembedded_and_scaled_as_the_family_does(llama: ModelHandle, name: str, changes, end) -> None:
    """Second route: transformers' own hidden states (all but the last are the boundaries), and the family's end by hand."""
    handle = tiny(name, llama.tokenizer, **changes)
    ids = torch.arange(5, 17)
    with handle.borrow() as model:
        hidden = model(input_ids=ids.unsqueeze(0), use_cache=False, output_hidden_states=True).hidden_states
        for state in hidden[:-1]:
            expected = end(model, state[0]).double().log_softmax(-1)
            assert torch.allclose(logit_lens.answers(handle, state[0]).double().log_softmax(-1), expected, atol=1e-5)


def test_guesses_carry_the_likeliest_tokens_and_the_kl_to_the_answer(llama: ModelHandle) -> None:
    found = logit_lens.look(llama, PROMPT, last=3)
    ids = torch.tensor([llama.tokenizer(PROMPT)["input_ids"]])
    with llama.borrow() as model, torch.no_grad():
        logits = model(input_ids=ids).logits[0, -3:].double().log_softmax(-1)
        early = model(input_ids=ids, output_hidden_states=True).hidden_states[2][0, -3:]
        guess = model.lm_head(model.model.norm(early)).double().log_softmax(-1)
    assert len(found.guesses) == llama.n_blocks + 1
    assert found.skipped == ids.shape[1] - 3
    assert "".join(found.tokens) == llama.tokenizer.decode(ids[0])[-len("".join(found.tokens)) :]
    for at in range(3):
        assert found.guesses[-1][at].kl == 0.0
        assert found.guesses[-1][at].top[0][0] == llama.tokenizer.decode([int(logits[at].argmax())])
        assert found.guesses[-1][at].top[0][1] == pytest.approx(float(logits[at].exp().max()), rel=1e-4)
        kl = torch.nn.functional.kl_div(guess[at], logits[at], log_target=True, reduction="sum")
        assert found.guesses[2][at].kl == pytest.approx(float(kl), rel=1e-3)
        assert len(found.guesses[2][at].top) == 5


def hooks_of(model) -> list[int]:
    """The hooks of every module; transformers keeps some of its own."""
    return [id(hook) for module in model.modules() for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())]


def test_looking_leaves_no_hook_and_changes_no_answer(llama: ModelHandle) -> None:
    ids = torch.arange(5, 17).unsqueeze(0)
    with llama.borrow() as model, torch.no_grad():
        before, hooks = model(input_ids=ids).logits, hooks_of(model)
        logit_lens.look(llama, PROMPT)
        assert torch.equal(model(input_ids=ids).logits, before)
        assert hooks_of(model) == hooks


def test_a_pruned_model_is_set_beside_the_original_by_the_blocks_that_both_have(llama: ModelHandle, variant: Variant) -> None:
    """Before its carrier a pruned model is the original, so both guess alike there; behind it they part."""
    rows = logit_lens.original_boundaries(llama.n_blocks, variant.transform.cut)
    assert rows == [0, 1, 4, 5, 6], "the span 2:4 joins boundary 2 to boundary 4"
    original, pruned = (logit_lens.look(handle, PROMPT, last=2) for handle in (llama, variant.handle))
    for own, of_original in enumerate(rows[:2]):
        assert pruned.guesses[own][0].top == original.guesses[of_original][0].top
    assert pruned.guesses[2][0].top != original.guesses[4][0].top
    assert logit_lens.original_boundaries(6, None) == list(range(7))
    assert logit_lens.original_boundaries(6, Cut.of([Span(1, 2), Span(4, 6)])) == [0, 2, 3, 6]


def test_a_longer_prompt_is_looked_at_in_its_last_tokens_only(llama: ModelHandle) -> None:
    found = logit_lens.look(llama, "w1 " * 40, last=4)
    assert len(found.tokens) == 4
    assert all(len(row) == 4 for row in found.guesses)


def test_what_the_lens_cannot_read_is_refused_in_a_sentence(llama: ModelHandle) -> None:
    with llama.borrow() as model:
        unknown = make_handle("odd", model, llama.tokenizer, families.unknown("oddity"))
        headless = make_handle("headless", model.model, llama.tokenizer, llama.family)
    with pytest.raises(FamilyError, match="where a model keeps its blocks, but the architecture 'oddity' is not in the table"):
        logit_lens.look(unknown, PROMPT)
    with pytest.raises(FamilyError, match="has no head that names one"):
        logit_lens.look(headless, PROMPT)
    with pytest.raises(InputError, match="The prompt is empty"):
        logit_lens.look(llama, " ")


def test_the_lens_can_be_cancelled_between_boundaries(llama: ModelHandle) -> None:
    seen = []

    class StopAtTwo:
        def update(self, done, total, unit, _what):
            seen.append((done, total, unit))
            if done == 2:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        logit_lens.look(llama, PROMPT, 4, StopAtTwo())
    assert seen == [(at, 7, "boundaries") for at in range(3)]
