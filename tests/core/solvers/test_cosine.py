"""The cosine objectives: fixed points without gradient, below Adam, never worse than their start on held-out tokens."""

import dataclasses

import pytest
import torch

from replaceme_core import solvers
from replaceme_core.artifacts import SpanMoments, TokenSample
from replaceme_core.errors import Cancelled, InputError, NumericsError
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import MethodSection
from replaceme_core.solvers import cosine
from replaceme_core.solvers.objectives import Directions
from tests.core.solvers.test_solvers import SPAN, measured, normal, tokens

WIDTH = 24
BOTH = ["cosine", "cosine_simplified"]


def made(measurement, n_tokens, spread, noise):
    """The intact stream is a linear map of what is written, stretched token by token: directions are easy, lengths are noise."""
    written = normal(n_tokens, WIDTH)
    target = written @ normal(WIDTH, WIDTH, seed=1) + noise * normal(n_tokens, WIDTH, seed=2)
    plain = tokens(written, target, n_tokens // 5)
    end = plain.end * (spread * normal(n_tokens, 1, seed=5)).exp()
    return measured(measurement, dataclasses.replace(plain, target=end - plain.beside))


@pytest.fixture(scope="module")
def problem(llama, calibration):
    return made(measure(llama, calibration), 1500, spread=0.7, noise=0.5)


@pytest.fixture(scope="module")
def noisy(llama, calibration):
    """As in a real model: weighted least squares is near the answer, and the noise is large."""
    return made(measure(llama, calibration), 3000, spread=0.3, noise=2.0)


def heldout_loss(measurement, method, matrix):
    """mean 1 - cos on the held-out tokens, by torch's own cosine."""
    sample = measurement.sample
    written, end = sample.writers[SPAN.carrier].double(), sample.boundaries[SPAN.end].double()
    beside = sample.boundaries[SPAN.start].double() - written
    pair = (written @ matrix, end - beside) if method == "cosine_simplified" else (written @ matrix + beside, end)
    return float((1 - torch.nn.functional.cosine_similarity(*pair, dim=-1)).mean())


@pytest.mark.parametrize("method", BOTH)
def test_the_gradient_vanishes_at_the_fixed_point_of_the_reweighted_steps(problem, monkeypatch, method):
    monkeypatch.setattr("replaceme_core.solvers.cosine._ENOUGH", -1.0)  # go on to the last step
    same = dataclasses.replace(problem, sample=problem.train_sample)  # the step of least train loss is kept
    start = solvers.fit(problem, SPAN, "weighted_least_squares", 0.0).matrix
    report = solvers.fit(same, SPAN, MethodSection(name=method, ridge=0.0, max_iterations=60)).report
    train = Directions.of(problem.train_sample, SPAN, method == "cosine_simplified")

    def gradient(matrix):
        matrix = matrix.clone().requires_grad_(True)
        patched = train.written @ matrix if train.beside is None else train.written @ matrix + train.beside
        (1 - torch.nn.functional.cosine_similarity(patched, train.unit, dim=-1)).mean().backward()
        return float(matrix.grad.norm())

    assert report.gradient * gradient(torch.eye(WIDTH).double()) < 1e-4 * gradient(start)


@pytest.mark.parametrize("method", BOTH)
def test_it_is_never_worse_on_heldout_tokens_than_where_it_starts(problem, method):
    start = solvers.fit(problem, SPAN, "weighted_least_squares")
    found = solvers.fit(problem, SPAN, method)
    assert heldout_loss(problem, method, found.matrix) < heldout_loss(problem, method, start.matrix)
    if method == "cosine":
        assert found.report.heldout_cosine == pytest.approx(1 - heldout_loss(problem, method, found.matrix), abs=1e-6)


def stored_only(measurement, n_tokens):
    """The same measurement, with the first `n_tokens` train tokens stored one by one and all of them in the sums."""
    sample = measurement.train_sample
    few = TokenSample(*({at: states[:n_tokens] for at, states in points.items()} for points in (sample.boundaries, sample.writers)))
    return dataclasses.replace(measurement, train_sample=few)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("which", ["problem", "noisy"])
def test_a_few_stored_tokens_correct_the_sums_of_all_or_replace_them(request, method, which):
    """A pass stores some of its train tokens only. Fitted to these alone, the first step can lose more than the reweighting gains."""
    whole = request.getfixturevalue(which)
    few = stored_only(whole, 16 * WIDTH)
    start, found, best = (
        heldout_loss(few, method, solvers.fit(each, SPAN, name).matrix)
        for each, name in ((few, "weighted_least_squares"), (few, method), (whole, method))
    )
    assert max(best, found) < start


def test_what_lies_beyond_the_stored_tokens_is_nothing_where_all_tokens_are_copies_of_these(problem):
    few = stored_only(problem, 16 * WIDTH)
    stored = few.train_sample
    m, y = (stored.writers[SPAN.carrier].double(), stored.boundaries[SPAN.start].double() - stored.writers[SPAN.carrier].double())
    end = stored.boundaries[SPAN.end].double()
    weight = 1 / end.norm(dim=1, keepdim=True)
    train = SpanMoments(3 * m.T @ (weight * m), 3 * m.T @ (weight * (end - y)), 0.0, 3 * len(m))
    moments = dataclasses.replace(few.moments[SPAN, "end_norm"], train=train)
    beyond = cosine._beyond(dataclasses.replace(few, moments=few.moments | {(SPAN, "end_norm"): moments}), SPAN)
    assert beyond is not None
    torch.testing.assert_close(beyond.gram, torch.zeros_like(beyond.gram), atol=1e-9, rtol=0)
    torch.testing.assert_close(beyond.cross, torch.zeros_like(beyond.cross), atol=1e-9, rtol=0)


def test_steps_that_gain_nothing_are_said_with_the_tokens_that_are_stored(problem):
    """The held-out tokens are those that weighted least squares fits exactly: nothing is better there."""
    written = normal(400, WIDTH)
    plain = tokens(written, written @ normal(WIDTH, WIDTH, seed=1), 100)
    exact = stored_only(measured(problem, plain), 2 * WIDTH)
    transform = solvers.fit(exact, SPAN, MethodSection(name="cosine", ridge=0.0))
    assert torch.allclose(transform.matrix, solvers.fit(exact, SPAN, "weighted_least_squares", 0.0).matrix, atol=1e-9)
    assert transform.report.converged
    assert any("48 of 300 train tokens are looked at one by one" in note for note in transform.report.notes)


def test_a_step_that_raises_the_held_out_loss_is_halved_and_a_smaller_one_is_taken(problem, monkeypatch):
    """The whole step goes three times too far."""
    section = MethodSection(name="cosine", ridge=0.0, max_iterations=1)
    start, once = (solvers.fit(problem, SPAN, name).matrix for name in (MethodSection(ridge=0.0), section))
    nearer, seen = cosine._Problem._nearer, []

    def too_far(self, at, matrix, *rest):
        seen.append(nearer(self, at, at.matrix + 10 * (matrix - at.matrix), *rest))
        return seen[-1]

    monkeypatch.setattr(cosine._Problem, "_nearer", too_far)
    found = solvers.fit(problem, SPAN, section).matrix
    halves = [start + 10 / 2**n * (once - start) for n in range(4)]
    losses = [heldout_loss(problem, "cosine", half) for half in halves]
    assert losses[0] > heldout_loss(problem, "cosine", start), "the whole step does harm"
    first = next(n for n, loss in enumerate(losses) if loss <= heldout_loss(problem, "cosine", start))
    assert torch.allclose(found, halves[first], atol=1e-9)


@pytest.mark.parametrize("method", BOTH)
def test_a_library_finds_no_lower_train_loss_than_the_reweighted_steps(problem, monkeypatch, method):
    """L-BFGS run to a small gradient, from the identity; the ridge is off, so that both look for the same minimum."""
    monkeypatch.setattr("replaceme_core.solvers.cosine._ENOUGH", -1.0)  # go on to the last step
    same = dataclasses.replace(problem, sample=problem.train_sample)
    ours = solvers.fit(same, SPAN, MethodSection(name=method, ridge=0.0, max_iterations=60))
    library = solvers.fit(same, SPAN, MethodSection(name="lbfgs", loss=method, max_iterations=2000))
    assert library.report.converged
    assert heldout_loss(same, method, ours.matrix) <= heldout_loss(same, method, library.matrix) * (1 + 1e-5)


def test_the_simplified_form_has_the_scale_of_least_squares(problem):
    moments = problem.moments[SPAN, "end_norm"].train
    for section in (MethodSection(name="cosine_simplified"), MethodSection(name="lbfgs", loss="cosine_simplified")):
        matrix = solvers.fit(problem, SPAN, section).matrix
        errors = [moments.error(scale * matrix) for scale in (0.99, 1.0, 1.01)]
        assert errors[1] == min(errors)
        assert errors[0] > errors[1] < errors[2]


def test_a_target_against_all_directions_of_the_fit_is_an_error_not_a_negative_scale(problem):
    moments = problem.moments[SPAN, "end_norm"]
    against = dataclasses.replace(moments, train=dataclasses.replace(moments.train, cross=-moments.train.cross))
    wrong = dataclasses.replace(problem, moments=problem.moments | {(SPAN, "end_norm"): against})
    with pytest.raises(NumericsError, match=r"least-squares scale is .*, not positive; use the exact form"):
        solvers.fit(wrong, SPAN, MethodSection(name="lbfgs", loss="cosine_simplified"))


def test_it_is_below_adam_on_heldout_tokens_and_adam_says_that_it_hardly_moved(problem):
    adam = solvers.fit(problem, SPAN, MethodSection(name="adam"))
    assert heldout_loss(problem, "cosine", solvers.fit(problem, SPAN, "cosine").matrix) < heldout_loss(problem, "cosine", adam.matrix)
    assert "hardly moved T from the identity" in " ".join(adam.report.notes)


def test_on_a_real_model_every_span_gains_over_removal(llama, calibration):
    measurement = measure(llama, calibration)
    for span in measurement.spans():
        report = solvers.fit(measurement, span, "cosine").report
        assert report.heldout_cosine > report.removal_cosine, str(span)


def test_too_few_steps_are_said_with_the_knob(problem):
    report = solvers.fit(problem, SPAN, MethodSection(name="cosine", max_iterations=1)).report
    assert report.iterations == 1
    assert report.converged is False
    assert any("still falling after 1 steps; raise max_iterations (now 1)" in note for note in report.notes)
    assert solvers.fit(problem, SPAN, MethodSection(name="cosine", max_iterations=50)).report.converged


def test_cancelling_stops_the_reweighted_steps(problem):
    class Cancel:
        def update(self, _done, _total, _unit, what):
            raise Cancelled(what)

    with pytest.raises(Cancelled, match="reweighted"):
        solvers.fit(problem, SPAN, MethodSection(name="cosine"), progress=Cancel())


@pytest.mark.parametrize("method", [*BOTH, "adam", "lbfgs"])
def test_a_store_smaller_than_the_width_is_an_error_with_the_way_out(problem, method):
    sample = problem.train_sample
    few = TokenSample(*({at: state[:5] for at, state in points.items()} for points in (sample.boundaries, sample.writers)))
    with pytest.raises(NumericsError, match=r"5 are stored for a width of 24.*Use more calibration tokens"):
        solvers.fit(dataclasses.replace(problem, train_sample=few), SPAN, method)


def test_a_method_without_a_path_has_no_ridges_and_no_map(problem):
    assert solvers.ridge_path(problem, SPAN, "cosine") == []
    with pytest.raises(InputError, match="no map of errors for 'cosine'"):
        solvers.error_map(problem, "cosine")
