"""Structures of T against a second route: masked least squares per column, alternating minimisation, rotations by gradient."""

import math

import pytest
import torch

from replaceme_core.artifacts import SpanMoments
from replaceme_core.errors import InputError, NumericsError, PlanError
from replaceme_core.plans.plan import MethodSection, PruningPlan
from replaceme_core.solvers import error_map, fit, ridge_path
from tests.core.solvers.test_solvers import SPAN, WIDTH, measured, noisy, normal, tokens

NAMES = ["least_squares", "weighted_least_squares"]
RIDGES = [1e-6, 0.1]


def part(data, name):
    """Weighted rows of M and Z of the train part."""
    rows = data.part(heldout=False)
    root = data.weights(name)[rows].sqrt().unsqueeze(1)
    return data.written[rows] * root, data.target[rows] * root


def shifted_loss(written, target, matrix, ridge, base=0.0):
    """The loss that a ridge fit lowers: |M T - Z|^2 + a |T - base|^2, a relative to the mean eigenvalue."""
    shift = ridge * float(written.square().sum()) / written.shape[1]
    return float((written @ matrix - target).square().sum() + shift * (matrix - base).square().sum())


def ill_conditioned():
    """Directions from 1 down to 1e-5: condition 1e10 in M'M."""
    data = noisy(noise=0.1)
    return tokens(data.written * torch.logspace(0, -5, WIDTH, dtype=torch.float64), data.target, 40)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ridge", [0.0, *RIDGES])
@pytest.mark.parametrize("make", [noisy, ill_conditioned])
def test_each_column_of_a_triangular_fit_is_its_own_least_squares_on_the_allowed_rows(measurement, name, ridge, make):
    data = make()
    written, target = part(data, name)
    found = fit(measured(measurement, data), SPAN, MethodSection(name=name, structure="triangular", ridge=ridge))
    shift = math.sqrt(ridge * float(written.square().sum()) / WIDTH)
    assert torch.equal(found.matrix, found.matrix.tril())
    for column in range(WIDTH):
        allowed = written[:, column:]
        padded = torch.cat([allowed, shift * torch.eye(WIDTH - column).double()])
        wanted = torch.cat([target[:, column], torch.zeros(WIDTH - column).double()])
        expected = torch.linalg.lstsq(padded, wanted, driver="gelsd", rcond=1e-15).solution
        got = found.matrix[column:, column]
        size = float((allowed @ expected).norm())
        assert float((allowed @ (got - expected)).norm()) < 1e-6 * size + 1e-9, "what it predicts"
        if make is noisy:
            torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)
    assert found.report.unknowns == WIDTH * (WIDTH + 1) // 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ridge", [0.0, *RIDGES])
def test_a_diagonal_fit_is_one_regression_per_channel(measurement, name, ridge):
    data = noisy()
    written, target = part(data, name)
    found = fit(measured(measurement, data), SPAN, MethodSection(name=name, structure="diagonal", ridge=ridge))
    pull = torch.tensor([[(ridge * written.square().sum() / WIDTH).sqrt()]])
    for channel in range(WIDTH):
        rows, goal = torch.cat([written[:, [channel]], pull]), torch.cat([target[:, [channel]], torch.zeros_like(pull)])
        expected = torch.linalg.lstsq(rows, goal).solution
        torch.testing.assert_close(found.matrix[channel, [channel]], expected[0], rtol=1e-10, atol=0)
    assert torch.equal(found.matrix, torch.diag(found.matrix.diagonal()))
    assert found.report.unknowns == WIDTH


def rotation(seed):
    q, r = torch.linalg.qr(normal(WIDTH, WIDTH, seed=seed))
    return q * r.diagonal().sign()


@pytest.mark.parametrize("name", NAMES)
def test_no_rotation_beats_the_orthogonal_fit(measurement, name):
    """Against 200 random rotations, small turns of itself, and a gradient descent over skew matrices from five starts."""
    data = noisy(noise=1.0)
    written, target = part(data, name)
    found = fit(measured(measurement, data), SPAN, MethodSection(name=name, structure="orthogonal"))
    torch.testing.assert_close(found.matrix @ found.matrix.T, torch.eye(WIDTH).double(), rtol=0, atol=1e-12)
    best = shifted_loss(written, target, found.matrix, 0.0)
    for seed in range(200):
        turn = normal(WIDTH, WIDTH, seed=seed)
        for candidate in (rotation(seed), found.matrix @ torch.matrix_exp(1e-3 * (turn - turn.T))):
            assert shifted_loss(written, target, candidate, 0.0) >= best * (1 - 1e-12)
    ends = []
    for seed in range(5):
        start, free = rotation(100 + seed), torch.zeros(WIDTH, WIDTH, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([free], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

        def closure(start=start, free=free, optimiser=optimiser):
            optimiser.zero_grad()
            loss = (written @ start @ torch.matrix_exp(free - free.T) - target).square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        ends.append(float(closure()))
    assert min(ends) == pytest.approx(best, rel=1e-8), "the descent must find it, else it proves nothing"


def alternating(written, target, rank, seed, steps=300):
    """Rank-r least squares by turns: V given U, then U given V."""
    left = normal(written.shape[1], rank, seed=seed)
    for _ in range(steps):
        right = torch.linalg.lstsq(written @ left, target).solution
        left = torch.linalg.lstsq(written, target @ torch.linalg.pinv(right)).solution
    return left @ torch.linalg.lstsq(written @ left, target).solution


@pytest.mark.parametrize("structure", ["low_rank", "low_rank_update"])
@pytest.mark.parametrize("rank", [1, 3, WIDTH])
@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("name", NAMES)
def test_the_low_rank_fit_equals_alternating_minimisation_from_many_starts(measurement, structure, rank, ridge, name):
    """Rank 1 is the two-vector form, T = u v'."""
    data = noisy(noise=1.0)
    written, target = part(data, name)
    base = torch.eye(WIDTH).double() * (structure == "low_rank_update")
    found = fit(measured(measurement, data), SPAN, MethodSection(name=name, structure=structure, rank=rank, ridge=ridge))
    assert int(torch.linalg.matrix_rank(found.matrix - base, rtol=1e-9)) == rank
    shift = math.sqrt(ridge * float(written.square().sum()) / WIDTH)
    padded = torch.cat([written, shift * torch.eye(WIDTH).double()])
    wanted = torch.cat([target - written @ base, torch.zeros(WIDTH, WIDTH).double()])
    losses = [shifted_loss(written, target, base + alternating(padded, wanted, rank, seed), ridge, base) for seed in range(6)]
    assert shifted_loss(written, target, found.matrix, ridge, base) == pytest.approx(min(losses), rel=1e-8)
    assert found.report.unknowns == rank * (2 * WIDTH - rank)


@pytest.mark.parametrize("structure", ["low_rank", "low_rank_update"])
def test_the_full_rank_is_the_full_fit_and_errors_fall_with_the_rank(measurement, structure):
    taken = measured(measurement, noisy(noise=1.0))
    full = fit(taken, SPAN, "weighted_least_squares", 1e-10).matrix
    errors = []
    for rank in range(1, WIDTH + 1):
        transform = fit(taken, SPAN, MethodSection(structure=structure, rank=rank, ridge=1e-10))
        errors.append(transform.report.train_error)
    assert errors == sorted(errors, reverse=True)
    torch.testing.assert_close(transform.matrix, full, rtol=0, atol=1e-7)


def test_a_true_update_of_rank_two_is_found_and_its_ridge_pulls_to_plain_removal(measurement):
    written = normal(120, WIDTH)
    true = torch.eye(WIDTH).double() + normal(WIDTH, 2, seed=1) @ normal(2, WIDTH, seed=2)
    taken = measured(measurement, tokens(written, written @ true))
    section = MethodSection(structure="low_rank_update", rank=2, ridge=1e-14)
    torch.testing.assert_close(fit(taken, SPAN, section).matrix, true, rtol=0, atol=1e-8)
    strong = fit(taken, SPAN, section.model_copy(update={"ridge": 1e12})).matrix
    torch.testing.assert_close(strong, torch.eye(WIDTH).double(), rtol=0, atol=1e-8)


def sections(name="least_squares", **extra):
    return [
        MethodSection(name=name, structure=structure, rank=2 if structure.startswith("low_rank") else None, **extra)
        for structure in ("full", "diagonal", "triangular", "orthogonal", "low_rank", "low_rank_update")
    ]


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.structure)
@pytest.mark.parametrize("kind", ["one token", "duplicated direction", "ill-conditioned"])
def test_hard_cases_stay_finite_and_never_silent(measurement, section, kind):
    if kind == "one token":
        data = noisy(n=11, n_heldout=10)
    elif kind == "duplicated direction":
        data = noisy()
        data.written[:, 1] = data.written[:, 0]
    else:
        data = ill_conditioned()
        data = tokens(data.written * torch.logspace(0, -3, WIDTH, dtype=torch.float64), data.target, 40)
    taken = measured(measurement, data)
    transform = fit(taken, SPAN, section)
    assert transform.matrix.isfinite().all()
    assert math.isfinite(transform.report.heldout_error)
    if kind == "one token":
        assert transform.report.notes, "one token cannot go without a warning"
    if section.structure == "orthogonal":
        torch.testing.assert_close(transform.matrix @ transform.matrix.T, torch.eye(WIDTH).double(), rtol=0, atol=1e-10)
        if kind == "one token":
            assert any("M'Z has rank 1 of 8, so this rotation is one of many" in note for note in transform.report.notes)
            assert transform.report.condition == math.inf


@pytest.mark.parametrize("section", [s for s in sections(ridge=None) if s.takes_ridge], ids=lambda section: section.structure)
def test_a_singular_gram_without_a_ridge_is_solved_and_said_or_refused_with_the_knob(measurement, section):
    data = noisy()
    data.written[:, 1] = data.written[:, 0]
    bare = section.model_copy(update={"ridge": 0.0})
    taken = measured(measurement, data)
    if section.structure == "triangular":
        with pytest.raises(NumericsError, match=r"spans 7 of 8 directions, .* use a ridge above 0 \(now 0\)"):
            fit(taken, SPAN, bare)
    elif section.structure == "diagonal":
        assert fit(taken, SPAN, bare).report.condition < 1e3, "channels do not see one another"
    else:
        assert any("pseudo-inverse" in note for note in fit(taken, SPAN, bare).report.notes)


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.structure)
def test_a_carrier_that_writes_only_zeros_is_an_error_for_every_structure(measurement, section):
    data = tokens(torch.zeros(50, WIDTH).double(), normal(50, WIDTH))
    with pytest.raises(NumericsError, match="writes only zeros"):
        fit(measured(measurement, data), SPAN, section)


@pytest.mark.parametrize("section", sections("weighted_least_squares"), ids=lambda section: section.structure)
def test_every_structure_has_a_path_a_map_and_settings_that_repeat_it(measurement, section):
    transform = fit(measurement, SPAN, section)
    again = fit(measurement, SPAN, MethodSection.parse(transform.settings))
    torch.testing.assert_close(again.matrix, transform.matrix, rtol=0, atol=0)
    assert bool(ridge_path(measurement, SPAN, section)) == section.takes_ridge
    assert float(error_map(measurement, section)[1, 2]) == pytest.approx(transform.report.heldout_error, rel=1e-12)
    assert 0 <= transform.report.heldout_error <= 1.05
    assert transform.method == section.label


def test_more_freedom_never_fits_the_train_tokens_worse(measurement):
    taken = measured(measurement, noisy(noise=1.0))
    errors = {
        s.structure: fit(taken, SPAN, s.model_copy(update={"ridge": 1e-9} if s.takes_ridge else {})).report.train_error for s in sections()
    }
    assert errors["full"] <= min(errors.values()) + 1e-9
    assert errors["triangular"] <= errors["diagonal"]


def test_a_rank_above_the_width_is_an_error_that_says_the_range(measurement):
    with pytest.raises(InputError, match="rank is 99, but T has 8 rows and columns; choose a rank from 1 to 8"):
        fit(measured(measurement, noisy()), SPAN, MethodSection(structure="low_rank", rank=99))


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ({"structure": "low_rank"}, "go together, for example rank: 16"),
        ({"rank": 3}, "go together"),
        ({"name": "cosine", "structure": "diagonal"}, "'cosine' takes no structure; it goes with weighted_least_squares, least_squares"),
        ({"name": "drop", "ridge": 1.0}, "'drop' takes no ridge"),
        ({"structure": "orthogonal", "ridge": 1.0}, "an orthogonal T keeps lengths"),
        ({"name": "lbfgs", "l1": 0.1}, "'lbfgs' takes no l1; it goes with adam, proximal"),
        ({"name": "least_squares", "l2": 0.1}, "'least_squares' takes no l2"),
        ({"max_iterations": 5}, "takes no max_iterations"),
        ({"name": "adam", "loss": "cosine_simplified", "l2": 0.1}, "a penalty only shrinks T to 0"),
        ({"structure": "banded"}, "method.structure"),
    ],
)
def test_a_plan_refuses_what_a_method_would_ignore(method, sentence):
    with pytest.raises(PlanError, match="problem") as caught:
        PruningPlan.parse({"model": {"path": "demo"}, "method": method})
    assert sentence in str(caught.value)


def test_moments_that_are_not_finite_are_an_error(measurement):
    bad = SpanMoments(torch.full((WIDTH, WIDTH), torch.nan).double(), torch.zeros(WIDTH, WIDTH).double(), 1.0, 10)
    taken = measured(measurement, noisy())
    moments = type(taken.moments[SPAN, "uniform"])(bad, bad)
    taken.moments[SPAN, "uniform"] = moments
    with pytest.raises(NumericsError, match="not finite"):
        fit(taken, SPAN, "least_squares")
