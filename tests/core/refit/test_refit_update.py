"""The closed form of one layer against a dense second route, also where the features do not determine it."""

import pytest
import torch
from torch import Tensor

from replaceme_core.refit.ridge_path import RIDGES, ByCholesky, ByEigenvectors, condition
from replaceme_core.refit.sums import UpdateSums
from replaceme_core.refit.update import GIVEN_UP, solve

INNER, WIDTH = 12, 5


def sums(features: Tensor, missed: Tensor, target: Tensor) -> UpdateSums:
    found = UpdateSums.zeros(features.shape[1], missed.shape[1], torch.device("cpu"))
    half = len(features) // 2
    found.add(features[:half], missed[:half], target[:half])
    found.add(features[half:], missed[half:], target[half:])
    return found


def problem(n: int, kind: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, what is missed, and the target, with outliers and collinear columns as `kind` says; one map behind all of them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, INNER, generator=generator, dtype=torch.float64)
    truth = torch.randn(INNER, WIDTH, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    if kind == "rank deficient":
        features[:, 6:] = features[:, :6]
    if kind == "ill-conditioned":
        features *= 10.0 ** torch.linspace(0, -6, INNER)
    if kind == "massive first token":
        features[0] *= 1000
    missed = features @ truth + 0.3 * torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    return features, missed, 3 * torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) + missed


def dense(features: Tensor, missed: Tensor, target: Tensor, centre: Tensor, ridge: float) -> Tensor:
    """Second route: one stacked least-squares problem by QR/SVD, no Gram matrix."""
    weight = target.norm(dim=-1, keepdim=True) ** -0.5
    scaled = features * weight
    shift = (ridge * float(scaled.square().sum(0).mean())) ** 0.5
    left = torch.cat([scaled, shift * torch.eye(INNER, dtype=torch.float64)])
    right = torch.cat([(missed - features @ centre) * weight, torch.zeros(INNER, WIDTH, dtype=torch.float64)])
    return centre + torch.linalg.lstsq(left, right, driver="gelsd").solution


def loss(features: Tensor, missed: Tensor, target: Tensor, change: Tensor) -> float:
    length = target.norm(dim=-1)
    return float(((missed - features @ change).square().sum(-1) / length).sum() / length.sum())


KINDS = ["plain", "rank deficient", "ill-conditioned", "massive first token"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 40, 400])
def test_without_a_weight_the_change_is_the_smallest_ridge_solution_that_keeps_most_of_the_gain(kind, n):
    train, heldout = problem(n, kind, 1), problem(50, kind, 2)
    update = solve(sums(*train), sums(*heldout), None)
    zero = torch.zeros(INNER, WIDTH, dtype=torch.float64)
    candidates = {ridge: dense(*train, zero, ridge) for ridge in RIDGES}
    errors = {ridge: loss(*heldout, change) for ridge, change in candidates.items()}
    assert update.before == pytest.approx(loss(*heldout, zero))
    least = min(errors.values())
    if least >= update.before:
        assert update.change is None
        return
    limit = least + GIVEN_UP * (update.before - least)
    best = min((ridge for ridge in RIDGES if errors[ridge] <= limit), key=lambda ridge: float(candidates[ridge].norm()))
    assert update.ridge == best
    assert update.after == pytest.approx(errors[best], rel=1e-6)
    assert torch.allclose(update.change, candidates[best], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_with_few_tokens_it_is_no_worse_than_the_best_transform_of_the_output(kind):
    """A weight whose output explains what is missed: T is the right answer, and 15 tokens do not determine 60 unknowns."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(INNER, WIDTH, generator=generator, dtype=torch.float64)
    matrix = torch.eye(WIDTH, dtype=torch.float64) + 0.5 * torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    parts = []
    for n, seed in ((15, 4), (60, 5)):
        features, _, _ = problem(n, kind, seed)
        noise = 0.05 * torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
        missed = features @ weight @ (matrix - torch.eye(WIDTH, dtype=torch.float64)) + noise
        parts.append((features, missed, 3 + missed))
    train, heldout = (sums(*part) for part in parts)
    update, free = solve(train, heldout, weight), solve(train, heldout, None)
    transform = (
        weight
        @ torch.linalg.lstsq(
            parts[0][0] @ weight / parts[0][2].norm(dim=-1, keepdim=True), parts[0][1] / parts[0][2].norm(dim=-1, keepdim=True)
        ).solution
    )
    gain, best = update.before - update.after, update.before - min(loss(*parts[1], transform), free.after)
    assert gain >= (1 - GIVEN_UP) * best * (1 - 1e-3)


@pytest.mark.parametrize("seed", [2, 3])
def test_between_the_transform_of_the_output_and_a_free_change_it_is_the_one_whose_error_is_said(seed):
    """Half of what is missed is a transform of the output, half is not: a change shrunk toward that transform's is chosen."""
    generator = torch.Generator().manual_seed(seed)
    weight, other = torch.randn(2, INNER, WIDTH, generator=generator, dtype=torch.float64)
    truth = weight @ torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64) / 2 + other
    parts = []
    for n, own in ((60, 4), (60, 5)):
        features, _, _ = problem(n, "plain", own)
        parts.append((features, features @ truth, 3 + features @ truth))
    update, free = solve(*(sums(*part) for part in parts), weight), solve(*(sums(*part) for part in parts), None)
    assert update.ridge is not None
    assert update.after == pytest.approx(loss(*parts[1], update.change), rel=1e-6)
    assert float(update.change.norm()) < float(free.change.norm()), "it is nearer to what the weight is"


def test_no_features_and_no_tokens_change_nothing():
    features, missed, target = problem(20, "plain", 1)
    zero = sums(torch.zeros_like(features), missed, target)
    assert solve(zero, zero, None).change is None
    one = sums(features[:1], missed[:1], target[:1])
    update = solve(one, sums(*problem(50, "plain", 2)), None)
    assert update.after <= update.before


def test_sums_are_additive_and_errors_those_of_the_rows():
    features, missed, target = problem(30, "massive first token", 7)
    target[3] *= 50
    whole = sums(features, missed, target)
    change = torch.randn(INNER, WIDTH, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    weight = 1 / target.norm(dim=-1)
    expected = float(weight @ (missed - features @ change).square().sum(-1)) / float(weight @ target.square().sum(-1))
    assert whole.error(change) == pytest.approx(expected, rel=1e-9)
    assert torch.allclose(whole.gram, features.T @ torch.diag(weight) @ features, rtol=1e-10)


@pytest.mark.parametrize(("size", "spread", "shift"), [(12, 3, 0.0), (200, 2, 1e-4), (200, 8, 1e-3), (1, 0, 0.0)])
def test_the_condition_is_estimated_from_below_and_near(size, spread, shift):
    values = 10.0 ** -torch.linspace(0, spread, size, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    exact = float((values[0] + shift) / (values[-1] + shift))
    assert 0.7 * exact < condition(basis @ values.diag() @ basis.T, shift) <= exact * (1 + 1e-6)
    assert condition(torch.zeros(size, size, dtype=torch.float64), 0.0) == float("inf")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 3, 40])
def test_both_routes_along_the_ridges_give_the_same(kind, n):
    """Eigenvectors (on a CPU) beside one factorisation for each ridge (on an accelerator), toward no change and toward one."""
    train, heldout = sums(*problem(n, kind, 1)), sums(*problem(50, kind, 2))
    toward = torch.randn(INNER, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    one, other = (route(train, heldout, [None, toward]) for route in (ByEigenvectors, ByCholesky))
    factored = {(each.centre, each.ridge): each for each in other.candidates()}
    assert len(factored) == 2 * len(RIDGES)
    for each in one.candidates():
        beside, change = factored[each.centre, each.ridge], one.change(each.centre, each.ridge)
        assert torch.allclose(change, other.change(each.centre, each.ridge), rtol=1e-5, atol=1e-7)
        assert each.size == pytest.approx(float(change.square().sum()), rel=1e-6, abs=1e-12)
        assert each.size == pytest.approx(beside.size, rel=1e-6, abs=1e-12)
        assert each.error == pytest.approx(heldout.error(change), rel=1e-6)
        assert each.error == pytest.approx(beside.error, rel=1e-6)
        assert one.condition(each.ridge) == pytest.approx(other.condition(each.ridge), rel=0.3)
