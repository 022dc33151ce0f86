"""What is measured by the blocks behind a span alone is what the cut and merged model does, measured the usual way."""

from dataclasses import fields

import pytest
import torch
from transformers import AutoModelForCausalLM

from replaceme_core import solvers
from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, Span
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare, tails
from replaceme_core.comparison.compare import Divergence
from replaceme_core.comparison.tails import Tails
from replaceme_core.errors import InputError, NumericsError
from replaceme_core.models.architecture import families
from replaceme_core.models.loading import make_handle
from replaceme_core.models.running.capture import first
from replaceme_core.surgery import surgery
from tests.support.family_configs import FAMILIES

SPANS = [Span(1, 2), Span(2, 5), Span(4, 6)]


def tiny(name: str, **changed: object) -> ModelHandle:
    torch.manual_seed(3)
    config = FAMILIES[name]()
    for key, value in changed.items():
        setattr(config, key, value)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return make_handle(name, model, None, families.find(config))


def with_matrix(span: Span, handle: ModelHandle) -> LinearTransform:
    """Some T, diagonal where the family merges no other."""
    matrix = torch.eye(handle.width, dtype=torch.float64)
    change = 0.3 * torch.randn(matrix.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(span.start))
    removal = LinearTransform.removal(Cut((span,)))
    return LinearTransform(span, "made up", matrix + (change * matrix if handle.family.merge == "diagonal" else change), removal.report)


def require_same(own: Divergence, merged: Divergence) -> None:
    assert merged.kl > 1e-4, "there must be something to measure"
    for each in fields(Divergence):
        if each.name not in ("name", "part", "text", "note"):
            assert getattr(own, each.name) == pytest.approx(getattr(merged, each.name), rel=1e-3), each.name


def text_of(sizes: list[int]) -> TextPart:
    generator = torch.Generator().manual_seed(1)
    return TextPart.given([torch.randint(3, 300, (size,), generator=generator) for size in sizes])


@pytest.mark.parametrize("method", ["drop", "weighted_least_squares"])
def test_a_tail_is_the_merged_model(llama, calibration, measurement, method):
    text = TextPart.given(calibration.sequences[:14])
    assert len({len(row) for row in text.sequences}) > 2, "sequences of several lengths"
    fits = [solvers.fit(measurement, span, method) for span in SPANS]
    merged = compare.divergence(llama, [surgery.prune(llama, fit, "x").handle for fit in fits], text)[1:]
    own = Tails(llama, text)
    assert not own.whole
    for tail, usual in zip(own.measure(fits), merged, strict=True):
        require_same(tail.quality, usual)
        assert float(tail.sums.sum()) / usual.n_tokens == pytest.approx(usual.kl, rel=1e-3)


SLIDING = {
    "use_sliding_window": True,
    "sliding_window": 4,
    "max_window_layers": 3,
    "layer_types": ["full_attention"] * 3 + ["sliding_attention"] * 3,
}


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gpt2", "gpt_neo", "gptj", "granite", "cohere2", "qwen3_next", "gpt_oss"])
def test_every_family_is_measured_by_its_own_blocks_and_head(name):
    """gpt_neo and the sliding qwen2 have windows by the number of the block; granite scales M; cohere2 is parallel with a scaled head."""
    handle = tiny(name, **(SLIDING if name == "qwen2" else {}))
    text = text_of([13] * 8 + [9] * 3)
    spans = [Span(1, 3), Span(3, handle.n_blocks)]
    asked = [LinearTransform.removal(Cut((span,))) for span in spans] + [with_matrix(span, handle) for span in spans]
    merged = [surgery.prune(handle, transform, "x").handle for transform in asked]
    own = Tails(handle, text)
    assert not own.whole
    for tail, usual in zip(own.measure(asked), compare.divergence(handle, merged, text)[1:], strict=True):
        require_same(tail.quality, usual)


def test_the_window_of_a_sliding_block_counts():
    """The second route would not see a lost window if the tiny text were shorter than it."""
    text, span = text_of([13] * 10), [LinearTransform.removal(Cut((Span(2, 3),)))]
    windowed, plain = (Tails(tiny("qwen2", **kind), text).measure(span)[0].quality.kl for kind in (SLIDING, {}))
    assert abs(windowed - plain) > 0.01 * plain


def test_a_model_that_cannot_go_on_in_the_middle_is_measured_whole(monkeypatch):
    handle, text = tiny("llama"), text_of([11] * 10)
    asked = [LinearTransform.removal(Cut((Span(2, 4),))), with_matrix(Span(2, 4), handle)]
    quick = Tails(handle, text).measure(asked)
    monkeypatch.setattr(Tails, "_goes_on", lambda _self: False)
    own = Tails(handle, text)
    assert own.whole
    for tail, usual in zip(own.measure(asked), quick, strict=True):
        require_same(tail.quality, usual.quality)


def test_what_a_late_block_reads_of_an_early_one_is_found_out():
    handle = tiny("llama")
    blocks, kept = families.blocks_of(handle._model, handle.family), []
    blocks[0].register_forward_hook(lambda _module, _args, output: kept.append(first(output)))
    blocks[4].register_forward_hook(lambda _module, _args, output: first(output) + kept[-1])
    assert Tails(handle, text_of([11] * 10)).whole


def test_numbers_that_are_not_finite_are_the_error_of_their_span_alone():
    handle = tiny("llama")
    broken = with_matrix(Span(1, 3), handle)
    broken.matrix[0, 0] = torch.nan
    first, second = Tails(handle, text_of([11] * 10)).measure([broken, LinearTransform.removal(Cut((Span(1, 3),)))])
    assert isinstance(first, NumericsError)
    assert second.quality.kl > 0


def test_what_cannot_be_measured_this_way_is_refused_in_a_sentence(llama):
    two = LinearTransform.removal(Cut((Span(1, 2), Span(3, 4))))
    with pytest.raises(InputError, match=r"compare\.divergence"):
        Tails(llama, text_of([9] * 10)).measure([two])
    with pytest.raises(InputError, match="no text"):
        tails.Tails(llama, TextPart.given([]))
