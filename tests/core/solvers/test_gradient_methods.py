"""Gradient methods: derivatives against autograd, minima against closed forms and optimality conditions, and no silent failure."""

import dataclasses
import math

import pytest
import torch

from replaceme_core.errors import Cancelled, NumericsError
from replaceme_core.plans.plan import GRADIENT, MethodSection
from replaceme_core.solvers import fit
from replaceme_core.solvers.objectives import Shrunk, objective_of
from tests.core.solvers.test_solvers import SPAN, WIDTH, measured, noisy, normal, tokens

LOSSES = ["cosine", "cosine_simplified", "mse", "relative_mse"]
SCIPY = ["lbfgs", "nonlinear_cg", "newton_cg", "trust_region"]


@pytest.fixture
def problem(measurement):
    return measured(measurement, noisy(noise=1.0))


def by_autograd(data, loss, matrix):
    """The loss of its definition, from single tokens."""
    rows = data.part(heldout=False)
    written, target, beside, end = (part[rows] for part in (data.written, data.target, data.beside, data.end))
    if loss == "cosine":
        return (1 - torch.nn.functional.cosine_similarity(written @ matrix + beside, end, dim=-1)).mean()
    if loss == "cosine_simplified":
        return (1 - torch.nn.functional.cosine_similarity(written @ matrix, target, dim=-1)).mean()
    weight = 1 / end.norm(dim=-1, keepdim=True) if loss == "relative_mse" else torch.ones(len(end), 1).double()
    return (weight * (written @ matrix - target).square()).sum() / (weight * target.square()).sum()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_value_gradient_and_curvature_are_those_of_autograd(measurement, loss, l2):
    data = noisy(noise=1.0)
    data = dataclasses.replace(data, **{k: getattr(data, k).float().double() for k in ("written", "target", "beside")})
    objective = Shrunk(objective_of(measured(measurement, data), SPAN, loss), l2)
    at, direction = normal(WIDTH, WIDTH, seed=3), normal(WIDTH, WIDTH, seed=4)

    def whole(matrix):
        pinned = (matrix.square().sum() / WIDTH - 1) ** 2 / 2 if loss == "cosine_simplified" else 0.0
        return by_autograd(data, loss, matrix) + l2 * matrix.square().sum() / WIDTH + pinned

    value, gradient = objective.value_and_gradient(at)
    assert value == pytest.approx(float(whole(at)), rel=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(whole, at), rtol=1e-5, atol=1e-7)
    expected = torch.autograd.functional.hvp(whole, at, direction)[1]
    torch.testing.assert_close(objective.hessian(at)(direction), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["cosine", "mse", "relative_mse"])
def test_the_first_step_of_adam_goes_against_the_gradient_of_the_tokens_own_loss(measurement, loss):
    """Adam's first step is its rate in the direction of the gradient's sign."""
    data, at = noisy(noise=1.0), torch.eye(WIDTH, dtype=torch.float64)
    own = torch.autograd.functional.jacobian(lambda matrix: by_autograd(data, loss, matrix), at)
    least = float(own.diagonal().min())
    assert loss != "cosine" or least < 0
    l1 = -0.5 * WIDTH * least if least < 0 else 0.3  # half of what would turn the steepest entry of the diagonal around
    found = fit(measured(measurement, data), SPAN, MethodSection(name="adam", loss=loss, l1=l1, max_iterations=1)).matrix
    gradient = own + l1 / WIDTH * at.sign()
    clear = gradient.abs() > 1e-3 * gradient.abs().mean()
    assert clear.double().mean() > 0.95
    torch.testing.assert_close((at - found)[clear], 1e-4 * gradient.sign()[clear], rtol=2e-2, atol=1e-7)


@pytest.mark.parametrize("name", [*SCIPY, "proximal"])
@pytest.mark.parametrize(("loss", "method"), [("mse", "least_squares"), ("relative_mse", "weighted_least_squares")])
def test_squared_error_with_l2_ends_at_the_ridge_solution(problem, name, loss, method):
    """l2 |T|^2 / width beside |MT - Z|^2 / |Z|^2 is the ridge l2 |Z|^2 / (width * mean eigenvalue)."""
    train = problem.moments[SPAN, "uniform" if loss == "mse" else "end_norm"].train
    l2 = 0.2
    ridge = l2 * train.energy / (WIDTH * float(train.gram.diagonal().mean()))
    closed = fit(problem, SPAN, method, ridge)
    found = fit(problem, SPAN, MethodSection(name=name, loss=loss, l2=l2))
    assert found.report.converged
    assert found.report.gradient <= 1e-4
    torch.testing.assert_close(found.matrix, closed.matrix, rtol=0, atol=2e-3)
    assert found.report.heldout_error == pytest.approx(closed.report.heldout_error, rel=1e-3)


@pytest.mark.parametrize("loss", ["cosine", "cosine_simplified"])
def test_all_deterministic_methods_end_at_the_same_cosine(problem, loss):
    reports = [fit(problem, SPAN, MethodSection(name=name, loss=loss)).report for name in [*SCIPY, "proximal"]]
    assert all(report.converged for report in reports)
    assert max(r.heldout_cosine for r in reports) - min(r.heldout_cosine for r in reports) < 1e-3
    assert all(report.iterations >= 1 for report in reports)


@pytest.mark.parametrize("loss", ["mse", "relative_mse"])
@pytest.mark.parametrize(("l1", "l2"), [(0.02, 0.0), (0.2, 0.0), (0.05, 0.1)])
def test_the_proximal_fit_meets_the_optimality_conditions_of_the_elastic_net(problem, loss, l1, l2):
    """Convex, so these conditions prove the minimum: gradient = -l1 sign(T) / width where T is not 0, and at most l1 / width elsewhere."""
    train = problem.moments[SPAN, "uniform" if loss == "mse" else "end_norm"].train
    found = fit(problem, SPAN, MethodSection(name="proximal", loss=loss, l1=l1, l2=l2))
    matrix = found.matrix
    gradient = 2 * (train.gram @ matrix - train.cross) / train.energy + 2 * l2 / WIDTH * matrix
    scale = float((2 * (train.gram - train.cross) / train.energy).norm())
    alive = matrix != 0
    assert alive.any()
    assert (~alive).any(), "this strength must remove something, else the test says little"
    off = torch.where(alive, (gradient + l1 / WIDTH * matrix.sign()).abs(), (gradient.abs() - l1 / WIDTH).clamp_min(0))
    assert float(off.norm()) < 2e-4 * scale
    assert found.report.converged


def test_the_elastic_net_is_that_of_coordinate_descent(problem):
    """A second route to the same minimum: one entry at a time, by the soft threshold."""
    train, l1, l2 = problem.moments[SPAN, "uniform"].train, 0.1, 0.05
    gram, cross = train.gram / train.energy + l2 / WIDTH * torch.eye(WIDTH).double(), train.cross / train.energy
    matrix = torch.zeros(WIDTH, WIDTH).double()
    for _ in range(500):
        for row in range(WIDTH):
            rest = cross[row] - gram[row] @ matrix + gram[row, row] * matrix[row]
            matrix[row] = rest.sign() * (rest.abs() - l1 / (2 * WIDTH)).clamp_min(0) / gram[row, row]
    found = fit(problem, SPAN, MethodSection(name="proximal", l1=l1, l2=l2)).matrix
    torch.testing.assert_close(found, matrix, rtol=0, atol=2e-3)
    assert torch.equal(found == 0, matrix == 0)


def test_a_strong_l1_leaves_nothing_and_a_weak_one_leaves_least_squares(problem):
    assert not fit(problem, SPAN, MethodSection(name="proximal", l1=1e3)).matrix.any()
    weak = fit(problem, SPAN, MethodSection(name="proximal", l1=1e-9, max_iterations=5000)).matrix
    torch.testing.assert_close(weak, fit(problem, SPAN, "least_squares", 0.0).matrix, rtol=0, atol=5e-3)


def test_penalties_change_a_cosine_fit_and_l1_removes_entries(problem):
    bare = fit(problem, SPAN, MethodSection(name="lbfgs")).matrix
    shrunk = fit(problem, SPAN, MethodSection(name="lbfgs", l2=0.05)).matrix
    sparse = fit(problem, SPAN, MethodSection(name="proximal", loss="cosine", l1=0.05))
    assert shrunk.norm() < 0.9 * bare.norm()
    assert int((sparse.matrix == 0).sum()) > WIDTH
    assert sparse.report.converged


def test_adam_approaches_the_minimum_when_it_may_step_long_enough(problem, monkeypatch):
    monkeypatch.setattr("replaceme_core.solvers.adam.RATE", 1e-2)
    monkeypatch.setattr("replaceme_core.solvers.adam.BATCH", 64)
    best = fit(problem, SPAN, MethodSection(name="lbfgs")).report
    long = fit(problem, SPAN, MethodSection(name="adam", max_iterations=300)).report
    assert long.iterations == 300 * 3
    assert long.heldout_cosine == pytest.approx(best.heldout_cosine, abs=5e-3)


def test_adam_equals_the_reference_loop_written_with_autograd(measurement):
    """torch.optim.Adam on autograd's gradient of the definition; one batch, so that no order matters."""
    data = noisy(noise=1.0)
    matrix = torch.eye(WIDTH, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([matrix], lr=1e-4)
    for _ in range(10):
        optimiser.zero_grad()
        by_autograd(data, "cosine", matrix).backward()
        optimiser.step()
    found = fit(measured(measurement, data), SPAN, MethodSection(name="adam")).matrix
    torch.testing.assert_close(found, matrix.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("loss", LOSSES)
def test_stopping_early_is_said_with_the_knob_and_never_a_quiet_identity(problem, name, loss):
    report = fit(problem, SPAN, MethodSection(name=name, loss=loss, max_iterations=1)).report
    assert report.converged is False
    assert report.gradient > 1e-4
    assert any("Not converged" in note and "raise max_iterations (now 1)" in note for note in report.notes)


@pytest.mark.parametrize("name", GRADIENT)
def test_progress_is_reported_and_cancelling_stops_the_fit(problem, name):
    seen = []

    class Stop:
        def update(self, done, total, unit, what):
            seen.append((done, total, unit, what))
            if len(seen) == 2:
                raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        fit(problem, SPAN, MethodSection(name=name), progress=Stop())
    assert len(seen) == 2
    assert seen[0][1] > 1
    assert seen[0][2] in ("steps", "passes")


@pytest.mark.parametrize("name", GRADIENT)
def test_a_span_whose_blocks_do_nothing_ends_at_the_identity_as_converged(measurement, name):
    written = normal(100, WIDTH).float().double()
    taken = measured(measurement, dataclasses.replace(tokens(written, written.clone()), beside=torch.zeros(100, WIDTH).double()))
    transform = fit(taken, SPAN, MethodSection(name=name, loss="cosine"))
    torch.testing.assert_close(transform.matrix, torch.eye(WIDTH).double(), rtol=0, atol=2e-3)
    assert transform.report.heldout_error < 1e-5


@pytest.mark.parametrize("name", GRADIENT)
def test_a_carrier_that_writes_only_zeros_is_an_error(measurement, name):
    data = tokens(torch.zeros(50, WIDTH).double(), normal(50, WIDTH))
    with pytest.raises(NumericsError, match="writes only zeros"):
        fit(measured(measurement, data), SPAN, name)


@pytest.mark.parametrize("name", [*SCIPY, "proximal"])
def test_an_ill_conditioned_problem_converges_or_says_that_it_did_not(measurement, name):
    data = noisy(noise=0.1)
    data = tokens(data.written * torch.logspace(0, -5, WIDTH, dtype=torch.float64), data.target, 40)
    report = fit(measured(measurement, data), SPAN, MethodSection(name=name, loss="mse", max_iterations=20)).report
    assert math.isfinite(report.heldout_error)
    assert report.condition > 1e8
    assert report.converged == (not any("Not converged" in note for note in report.notes))


@pytest.mark.parametrize("name", GRADIENT)
def test_settings_repeat_the_fit_exactly(problem, name):
    first = fit(problem, SPAN, MethodSection(name=name, l2=0.1, max_iterations=3))
    again = fit(problem, SPAN, MethodSection.parse(first.settings))
    assert torch.equal(first.matrix, again.matrix)
    assert first.method == f"{name}_{'mse' if name == 'proximal' else 'cosine'}"
