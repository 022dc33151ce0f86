"""One KL for figures and training: as exact as float64 throughout, in chunks, differentiable, and never a number where there is none."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from replaceme_core.errors import NumericsError
from replaceme_core.models.running import divergence
from replaceme_core.models.running.divergence import divergences, log_likelihoods, require_finite
from tests.support.straight import kl


def pair(
    scale: float, shift: float, change: float, width: int = 3000, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, noise = (torch.randn(9, width, generator=generator) for _ in range(2))
    return (scale * left + shift).to(dtype), (scale * (left + change * noise) - shift).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("scale", "shift", "change"), [(0.1, 0, 0.01), (1, 0, 0.1), (4, 30, 1), (12, -500, 0.5), (12, 500, 3)])
def test_it_is_that_of_float64_to_a_millionth_of_a_nat(scale, shift, change, dtype, monkeypatch):
    left, right = pair(scale, shift, change, dtype=dtype)
    expected = kl(left, right)
    assert (divergences(left, right) - expected).abs().max() <= 1e-6
    monkeypatch.setattr(divergence, "_NUMBERS", 2 * left.shape[-1] + 1)
    assert (divergences(left, right) - expected).abs().max() <= 1e-6, "two rows at a time"
    ids = torch.arange(9)
    assert (log_likelihoods(left, ids) - left.double().log_softmax(-1)[torch.arange(9), ids]).abs().max() <= 1e-6
    assert torch.equal(log_likelihoods(left, ids.unsqueeze(1))[:, 0], log_likelihoods(left, ids))


def test_a_model_is_at_distance_zero_from_itself_exactly():
    left, _ = pair(5, 3, 0)
    assert divergences(left, left.clone()).tolist() == [0.0] * 9


class Largest(TorchDispatchMode):
    """The most bytes that one operation made in float64."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                self.most = max(self.most, tensor.numel() * tensor.element_size())
        return made


def test_no_table_in_float64_is_larger_than_a_chunk(monkeypatch):
    monkeypatch.setattr(divergence, "_NUMBERS", 2**12)
    left, right = (torch.randn(64, 1000) for _ in range(2))
    right.requires_grad_()
    with Largest() as seen:
        torch.autograd.grad(divergences(left, right).sum(), right)
        log_likelihoods(left, torch.zeros(64, dtype=torch.long))
    assert 0 < seen.most <= 8 * 2**12


@pytest.mark.parametrize("part", [False, True], ids=["all positions", "some positions"])
def test_gradients_are_those_of_autograd(part):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(3, 7, 50, generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    counted = torch.rand(3, 7, generator=generator) > 0.3 if part else torch.ones(3, 7, dtype=torch.bool)
    weights = torch.rand(int(counted.sum()), generator=generator)
    right.requires_grad_()
    p, q = left.log_softmax(-1), right.log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)[counted] @ weights.double()
    found = divergences(left, right, counted if part else None) @ weights.double()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert torch.allclose(torch.autograd.grad(found, right)[0], torch.autograd.grad(expected, right)[0], atol=1e-12)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_single_value_that_is_not_finite_is_an_error_with_the_way_out(value, side):
    tables = pair(1, 0, 0.1)
    tables[side][4, 7] = value
    with pytest.raises(NumericsError, match=r"not finite \(NaN or infinity\) at 1 of 9 positions.*float32 or bfloat16 instead of float16"):
        divergences(*tables)
    with pytest.raises(NumericsError, match=r"of 'a model' are not finite \(NaN or infinity\) at 1 of 9 positions.*bfloat16"):
        require_finite(tables[side], "a model")
    require_finite(tables[1 - side], "a model")
    assert divergences(*tables, torch.arange(9) != 4).isfinite().all(), "a position that does not count may be anything"
