"""Models that are run together say what each says alone: heads in parts, shared blocks once, and whole where that is not exact."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import together as stage
from replaceme_core.comparison.compare import divergence
from replaceme_core.comparison.together import Together
from replaceme_core.models.architecture import families
from replaceme_core.models.loading import make_handle
from replaceme_core.models.running import resume
from replaceme_core.surgery import surgery
from tests.support.dense import hooks_on
from tests.support.family_configs import FAMILIES
from tests.support.straight import kl, log_probabilities

CHANGED = {
    "granite": {"logits_scaling": 7.0, "embedding_multiplier": 3.0},
    "cohere": {"logit_scale": 0.3},
    "gemma2": {"final_logit_softcapping": 1.5},
    "opt": {"word_embed_proj_dim": 16},
}
TRIED = ["llama", "qwen3", "smollm3", "gpt2", "gpt_neo", "opt", "bloom", "mpt", "gpt_neox", "falcon", "gptj", "codegen", "phi", "cohere2", "mixtral", "qwen3_next", "deepseek_v3", "gpt_oss", "granite", "cohere", "gemma2", "glm4"]  # fmt: skip


def tiny(name: str) -> ModelHandle:
    """A random model of a family, with biases in its head where it has them, and a head that is not shy."""
    torch.manual_seed(3)
    config = FAMILIES[name]()
    for key, value in CHANGED.get(name, {}).items():
        setattr(config, key, value)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return make_handle(name, model, None, families.find(config))


def cut(handle: ModelHandle, span: Span) -> ModelHandle:
    with handle.borrow() as model:
        return make_handle(str(span), surgery.cut(model, handle.family, Cut.of((span,))), None, handle.family)


def logits(handle: ModelHandle, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    with handle.borrow() as model, torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


def ran(handle: ModelHandle) -> list[int]:
    """A list that fills with the block of every block of a model that computes."""
    seen: list[int] = []
    for number, block in enumerate(families.blocks_of(handle._model, handle.family)):
        inner = next(iter(block.children()))
        inner.register_forward_hook(lambda *_, number=number: seen.append(number))
    return seen


@pytest.mark.parametrize("name", TRIED)
def test_every_family_says_the_same_as_in_a_plain_pass(name: str) -> None:
    handle = tiny(name)
    handles = [handle, cut(handle, Span(3, 5)), cut(handle, Span(4, 6)), cut(handle, Span(1, 2))]
    ids = torch.randint(3, 300, (2, 21), generator=torch.Generator().manual_seed(1))
    models = Together(handles, ids[0])
    assert not models.whole, "this family is run in parts"
    assert models.shared == [0, 3, 4, 1]
    ends = models.read(ids)
    positions = torch.tensor([0, 3, 19, 22, 41])
    for number, each in enumerate(handles):
        plain = logits(each, ids).flatten(0, 1)[positions]
        assert (ends.logits(number, positions) - plain).norm() <= 1e-6 * plain.norm()
        assert not any("forward" in vars(block) for block in families.blocks_of(each._model, each.family))
    assert (ends.logits(0, positions) - ends.logits(1, positions)).norm() > 1e-3 * plain.norm(), "the models must differ"


def test_padding_changes_nothing(llama: ModelHandle) -> None:
    ids = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    models = Together([llama, cut(llama, Span(2, 4))], ids[0])
    ends = models.read(ids, mask)
    alone = Together([llama, cut(llama, Span(2, 4))], ids[0]).read(ids[1:, :13])
    for number in range(2):
        together, single = ends.logits(number, torch.arange(20, 33)), alone.logits(number, torch.arange(13))
        assert (together - single).norm() <= 1e-5 * single.norm()


def test_a_shared_block_is_run_once_and_a_head_without_its_blocks() -> None:
    handle = tiny("llama")
    pruned = cut(handle, Span(3, 5))
    models = Together([handle, pruned], torch.arange(5, 30))
    first, second = ran(handle), ran(pruned)
    ends = models.read(torch.arange(5, 30).unsqueeze(0))
    assert (first, second) == ([0, 1, 2, 3, 4, 5], [3])
    ends.logits(1, torch.arange(4))
    assert second == [3]


def test_a_model_shares_with_the_one_it_has_most_in_common_with() -> None:
    """Two cuts of which one begins with the other's blocks beyond those of the original; the second goes on from the first."""
    handle = tiny("llama")
    one = cut(handle, Span(2, 3))
    two = cut(one, Span(4, 5))
    models = Together([handle, one, two], torch.arange(5, 30))
    assert models.shared == [0, 2, 4]
    assert [system.parent for system in models.systems] == [-1, 0, 1]


def test_a_model_whose_beginning_is_not_that_of_its_tensors_shares_nothing() -> None:
    """What cannot be seen in tensors and settings shows in the trial: here a hook that doubles the embedding."""
    handle = tiny("llama")
    odd = cut(handle, Span(3, 5))
    odd._model.model.embed_tokens.register_forward_hook(lambda _module, _args, output: 2 * output)
    models = Together([handle, odd], torch.arange(5, 30))
    assert models.shared == [0, 0]
    ids = torch.arange(5, 30).unsqueeze(0)
    assert torch.allclose(models.read(ids).logits(1, torch.arange(25)), logits(odd, ids)[0], atol=1e-5)


def test_an_end_that_reads_more_than_single_positions_makes_a_model_run_whole() -> None:
    handle, odd = tiny("llama"), tiny("llama")
    odd._model.model.norm.register_forward_hook(lambda _module, _args, output: output.cumsum(1))
    models = Together([handle, odd], torch.arange(5, 30))
    assert models.whole
    ids = torch.arange(5, 30).unsqueeze(0)
    ends = models.read(ids)
    assert [len(part) for part in ends.parts(torch.arange(25))] == [25]
    assert torch.equal(ends.logits(1, torch.arange(25)), logits(odd, ids)[0])
    text = TextPart.given([torch.arange(5, 30), torch.arange(40, 52)])
    found = divergence(handle, [odd], text)[1]
    places = torch.cat([kl(*(log_probabilities(each, sequence) for each in (handle, odd))) for sequence in text.sequences])
    assert found.kl == pytest.approx(float(places.mean()), abs=1e-6)


def test_an_unknown_family_is_compared_whole(llama: ModelHandle) -> None:
    with llama.borrow() as model:
        unknown = make_handle("unknown", model, None, families.unknown("something new"))
    text = TextPart.given([torch.arange(5, 30)])
    assert divergence(llama, [unknown], text)[1].kl == 0.0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_in_a_model_when_a_pass_fails(llama: ModelHandle, error: type[BaseException]) -> None:
    def fail(*_: object) -> None:
        raise error("in the head")

    models = Together([llama, cut(llama, Span(2, 4))], torch.arange(5, 30))
    with llama.borrow() as model:
        before, hook = hooks_on(model), model.lm_head.register_forward_pre_hook(fail)
        try:
            with pytest.raises(error, match="in the head"):
                models.read(torch.arange(5, 30).unsqueeze(0)).logits(0, torch.arange(3))
        finally:
            hook.remove()
        assert hooks_on(model) == before
        assert not any("forward" in vars(block) for block in model.model.layers)


def test_a_forward_that_somebody_put_into_a_block_is_there_again_afterwards() -> None:
    handle = tiny("llama")
    block = handle._model.model.layers[1]
    own = block.forward
    block.forward = own
    start = resume.Start(3, torch.zeros(1, 4, 32))
    with resume.resumed(handle._model, handle.family, start, [None] * 6):
        assert vars(block)["forward"] is not own
    assert vars(block)["forward"] is own


@pytest.mark.parametrize("at_once", [1, 7, 10**9])
def test_the_size_of_the_parts_changes_nothing(llama, variant, calibration, monkeypatch, at_once) -> None:
    text = calibration.test_text(200)
    expected = divergence(llama, [variant.handle], text)[1]
    monkeypatch.setattr(stage, "_NUMBERS", 320 * at_once)
    found = divergence(llama, [variant.handle], text)[1]
    assert found.kl == pytest.approx(expected.kl, abs=1e-8)
    assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-6)
    assert found.agreement == expected.agreement


def test_texts_of_one_token_and_of_none_predict_nothing(llama, variant) -> None:
    long = torch.arange(5, 17)
    some = divergence(llama, [variant.handle], [long, torch.tensor([3]), torch.tensor([3, 4])])
    assert [row.n_tokens for row in some] == [12, 12]
    assert divergence(llama, [variant.handle], [torch.tensor([3, 4])])[1].n_tokens == 1
