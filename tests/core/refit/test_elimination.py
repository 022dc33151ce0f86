"""Sums of a part of the features, and which features cost least to leave out, against dense second routes."""

import pytest
import torch
from torch import Tensor

from replaceme_core.refit.elimination import change, eliminate, ridge_for
from replaceme_core.refit.sums import UpdateSums
from tests.core.refit.test_refit_update import INNER, KINDS, WIDTH, dense, loss, problem, sums

RIDGE = 0.1


def layer(seed: int = 5) -> Tensor:
    return torch.randn(INNER, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without(features: Tensor, missed: Tensor, weight: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Second route: the features that are left, and what is missed once the others write nothing."""
    gone = torch.ones(INNER, dtype=torch.bool)
    gone[kept] = False
    return features[:, kept], missed + features[:, gone] @ weight[gone]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [[0, 3, 4, 11], [7], list(range(INNER))])
def test_sums_of_a_part_are_those_of_the_layer_without_the_rest(kind, kept):
    features, missed, target = problem(40, kind, 1)
    chosen, weight = torch.tensor(kept), layer()
    found = sums(features, missed, target).kept(chosen, weight)
    own, left = without(features, missed, weight, chosen)
    again = sums(own, left, target)
    for name in ("gram", "cross"):
        assert torch.allclose(getattr(found, name), getattr(again, name), rtol=1e-9, atol=1e-9 * float(again.gram.abs().max()))
    assert found.missed == pytest.approx(again.missed, rel=1e-9)
    assert found.aimed == again.aimed


def objective(features: Tensor, missed: Tensor, target: Tensor, weight: Tensor, kept: Tensor, shift: float) -> float:
    """Second route: what is minimised where only `kept` may write, at its least, from one stacked least-squares problem."""
    own, left = without(features, missed, weight, kept)
    scale = target.norm(dim=-1, keepdim=True) ** -0.5
    matrix = torch.cat([own * scale, shift**0.5 * torch.eye(len(kept), dtype=torch.float64)])
    right = torch.cat([left * scale, torch.zeros(len(kept), WIDTH, dtype=torch.float64)])
    found = torch.linalg.lstsq(matrix, right, driver="gelsd").solution
    gone = torch.ones(INNER, dtype=torch.bool)
    gone[kept] = False
    return float((matrix @ found - right).square().sum() + shift * weight[gone].square().sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 40])
def test_the_one_that_goes_first_is_the_one_without_which_the_least_is_lost(kind, n):
    features, missed, target = problem(n, kind, 2)
    weight = layer()
    added = sums(features, missed, target)
    kept = eliminate(added, weight, INNER - 1, RIDGE)
    shift = RIDGE * float(added.gram.diagonal().mean())
    everyone = torch.arange(INNER)
    losses = [objective(features, missed, target, weight, everyone[everyone != out], shift) for out in range(INNER)]
    (out,) = set(range(INNER)) - set(kept.tolist())
    assert losses[out] == pytest.approx(min(losses), rel=1e-6)


def test_those_that_say_nothing_or_what_others_say_go_first_and_order_is_kept():
    features, missed, target = problem(200, "plain", 3)
    truth = torch.linalg.lstsq(features, missed).solution
    features[:, 5] = 0
    features[:, 9] *= 1e-4
    missed = features @ truth
    kept = eliminate(sums(features, missed, target), torch.zeros(INNER, WIDTH, dtype=torch.float64), INNER - 2, RIDGE)
    assert kept.tolist() == [i for i in range(INNER) if i not in (5, 9)]
    assert eliminate(sums(features, missed, target), truth, INNER, RIDGE).tolist() == list(range(INNER))


@pytest.mark.parametrize("kind", KINDS)
def test_the_change_is_the_ridge_solution(kind):
    features, missed, target = problem(40, kind, 4)
    found = change(sums(features, missed, target), RIDGE)
    expected = dense(features, missed, target, torch.zeros(INNER, WIDTH, dtype=torch.float64), RIDGE)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))
    assert loss(features, missed, target, found) < loss(features, missed, target, torch.zeros_like(found))


def test_many_are_taken_away_in_parts_and_the_best_are_left():
    """Of 60 features 12 carry the signal, strongly; whatever goes in one round, they stay."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 60, generator=generator, dtype=torch.float64)
    truth = torch.zeros(60, WIDTH, dtype=torch.float64)
    signal = torch.arange(2, 60, 5)
    truth[signal] = torch.randn(len(signal), WIDTH, generator=generator, dtype=torch.float64).sign()
    target = 5 * torch.randn(2000, WIDTH, generator=generator, dtype=torch.float64)
    added = UpdateSums.zeros(60, WIDTH, torch.device("cpu"))
    added.add(features, features @ truth, target)
    assert eliminate(added, torch.zeros_like(truth), len(signal), RIDGE).tolist() == signal.tolist()


def test_the_ridge_falls_with_the_tokens_as_that_of_a_prior_does():
    assert ridge_for(3072, 15667) == pytest.approx(0.098, abs=1e-3)
    assert ridge_for(3072, 15667) / ridge_for(3072, 4 * 15667) == pytest.approx(4)
    assert ridge_for(10, 0) == ridge_for(10, 1)
