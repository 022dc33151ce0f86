"""KL, likelihood and agreement from what the heads read, slice by slice, against whole tables in float64."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from replaceme_core.models.running import slices
from replaceme_core.models.running.divergence import Table
from replaceme_core.models.running.slices import Side, compare
from tests.support.straight import kl

WORDS, WIDTH = 3001, 24
GRAINS = [(0.1, 0.01), (1, 0.1), (4, 1), (30, 0.001), (30, 3), (200, 1)]
"""scale of the logits (the last ones all but name one word), and how far the models are apart"""


def heads(scale: float, change: float, positions: int = 300, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    states, noise = (torch.randn(positions, WIDTH, generator=generator) for _ in range(2))
    weight = scale * WIDTH**-0.5 * torch.randn(WORDS, WIDTH, generator=generator)
    following = torch.randint(0, WORDS, (positions,), generator=generator)
    return states.to(dtype), (states + change * noise).to(dtype), weight.to(dtype), following


def straight(states: torch.Tensor, own: torch.Tensor, weight: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Logits as the head makes them, and all that follows in float64, whole."""
    left, right = states @ weight.T, own @ weight.T
    lost = -right.double().log_softmax(-1).gather(-1, following.unsqueeze(-1)).squeeze(-1)
    return torch.stack([lost, kl(left, right), (left.argmax(-1) == right.argmax(-1)).double()], -1)


@pytest.mark.parametrize("words_at_once", [100, 3001, 7000])
@pytest.mark.parametrize(("scale", "change"), GRAINS)
def test_means_are_those_of_float64_to_a_millionth_of_a_nat(scale, change, words_at_once, monkeypatch):
    states, own, weight, following = heads(scale, change)
    monkeypatch.setattr(slices, "_NUMBERS", 300 * words_at_once)
    found = compare([Side(states, weight, None), Side(own, weight, None)], following)
    expected = straight(states, own, weight, following)
    assert found[1].mean(0).tolist() == pytest.approx(expected.mean(0).tolist(), abs=1e-6)
    assert (found[1] - expected).abs().max() <= 2e-6 * max(1, scale), "single positions, by the rounding of the logits themselves"
    assert expected[:, 1].mean() > 0
    table, other = Table(states @ weight.T), Table(own @ weight.T)
    assert float(table.divergences(other).mean()) == pytest.approx(float(expected[:, 1].mean()), abs=1e-6)
    assert float(-other.log_likelihoods(following).mean()) == pytest.approx(float(expected[:, 0].mean()), abs=1e-6, rel=1e-8)


def test_a_model_is_at_zero_from_itself_exactly():
    states, _, weight, following = heads(30, 0)
    first, second = compare([Side(states, weight, None), Side(states.clone(), weight.clone(), None)], following)
    assert first[:, 1].tolist() == second[:, 1].tolist() == [0.0] * 300
    assert torch.equal(first, second)
    assert Table(states @ weight.T).divergences(Table(states @ weight.T)).tolist() == [0.0] * 300


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_head_with_a_bias_in_another_precision_and_of_one_token(dtype):
    states, own, weight, following = heads(4, 0.3, 1, dtype)
    bias = torch.linspace(-3, 3, WORDS).to(dtype)
    found = compare([Side(states, weight, bias), Side(own, weight, bias)], following)[1][0]
    left, right = states @ weight.T + bias, own @ weight.T + bias
    lost = -float(right.double().log_softmax(-1)[0, following[0]])
    assert found[:2].tolist() == pytest.approx([lost, float(kl(left, right)[0])], abs=1e-6)


def test_of_equal_logits_the_first_word_is_the_most_likely_as_argmax_says(monkeypatch):
    monkeypatch.setattr(slices, "_NUMBERS", 2)
    weight = torch.tensor([[1.0], [3.0], [2.0], [3.0], [3.0]])
    side = Side(torch.ones(2, 1), weight, None)
    compare([side], torch.tensor([0, 1]))
    assert side.most_likely.tolist() == [1, 1]


def test_what_is_not_finite_is_no_figure():
    states, own, weight, following = heads(1, 0.1, 5)
    own[2] = torch.nan
    found = compare([Side(states, weight, None), Side(own, weight, None)], following)
    assert found[0].isfinite().all()
    assert found[1].isfinite().all(-1).tolist() == [True, True, False, True, True]


class Largest(TorchDispatchMode):
    """The most numbers in one table that an operation made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.most = max([self.most, *(each.numel() for each in tree_leaves(made) if isinstance(each, torch.Tensor))])
        return made


def test_no_table_is_larger_than_a_slice(monkeypatch):
    states, own, weight, following = heads(1, 0.1)
    monkeypatch.setattr(slices, "_NUMBERS", 300 * 100)
    sides = [Side(states, weight, None), Side(own, weight, None)]
    with Largest() as seen:
        compare(sides, following)
    assert 300 * 99 <= seen.most <= max(300 * 100, weight.numel())
    assert seen.most < 300 * WORDS / 10
