"""The cosine objective: a fixed point without gradient, below Adam, never worse than its start on held-out tokens."""

import dataclasses
import time

import pytest
import torch
from test_solvers import SPAN, measured, normal, tokens

from replaceme_core import solvers
from replaceme_core.artifacts import TokenSample
from replaceme_core.errors import InputError, NumericsError
from replaceme_core.measure import measure
from replaceme_core.solvers.cosine import tokens_of

WIDTH = 24


@pytest.fixture(scope="module")
def problem(llama, calibration):
    """The intact stream is a linear map of what is written, stretched token by token: directions are easy, lengths are noise."""
    written = normal(1500, WIDTH)
    plain = tokens(written, written @ normal(WIDTH, WIDTH, seed=1) + 0.5 * normal(1500, WIDTH, seed=2), 300)
    end = plain.end * (0.7 * normal(1500, 1, seed=5)).exp()
    return measured(measure(llama, calibration), dataclasses.replace(plain, target=end - plain.beside))


def test_the_gradient_vanishes_at_the_fixed_point_of_the_reweighted_steps(problem, monkeypatch):
    monkeypatch.setattr("replaceme_core.solvers.cosine._STEPS", 60)
    monkeypatch.setattr("replaceme_core.solvers.cosine._ENOUGH", 0.0)
    train, _heldout = tokens_of(problem, SPAN)
    same = dataclasses.replace(problem, sample=problem.train_sample)  # the step of least train loss is kept
    start = solvers.fit(problem, SPAN, "weighted_least_squares", 0.0).matrix
    found = solvers.fit(same, SPAN, "cosine", 0.0).matrix

    def gradient(matrix):
        matrix = matrix.clone().requires_grad_(True)
        patched = train.written @ matrix + train.beside
        (1 - torch.nn.functional.cosine_similarity(patched, train.unit, dim=-1)).mean().backward()
        return float(matrix.grad.norm())

    assert gradient(found) < 1e-4 * gradient(start)


def test_it_is_never_worse_on_heldout_tokens_than_where_it_starts(problem):
    _train, heldout = tokens_of(problem, SPAN)
    start = solvers.fit(problem, SPAN, "weighted_least_squares")
    found = solvers.fit(problem, SPAN, "cosine")
    assert heldout.loss(found.matrix) < heldout.loss(start.matrix)
    assert found.report.heldout_cosine == pytest.approx(1 - heldout.loss(found.matrix), abs=1e-6)


def test_it_beats_adam_in_a_fraction_of_its_steps(problem):
    _train, heldout = tokens_of(problem, SPAN)
    began = time.perf_counter()
    adam = solvers.fit(problem, SPAN, "cosine_adam")
    assert heldout.loss(solvers.fit(problem, SPAN, "cosine").matrix) < heldout.loss(adam.matrix)
    assert adam.report.seconds <= time.perf_counter() - began
    assert "hardly moved T from the identity" in " ".join(adam.report.notes)


def test_on_a_real_model_every_span_gains_over_removal(llama, calibration):
    measurement = measure(llama, calibration)
    for span in measurement.spans():
        report = solvers.fit(measurement, span, "cosine").report
        assert report.heldout_cosine > report.removal_cosine, str(span)


def test_a_store_smaller_than_the_width_is_an_error_with_the_way_out(problem):
    sample = problem.train_sample
    few = TokenSample(tuple(b[:5] for b in sample.boundaries), tuple(w[:5] for w in sample.writers))
    with pytest.raises(NumericsError, match=r"5 are stored for a width of 24.*larger memory budget"):
        solvers.fit(dataclasses.replace(problem, train_sample=few), SPAN, "cosine")


def test_a_method_without_a_path_has_no_ridges_and_no_map(problem):
    assert solvers.ridge_path(problem, SPAN, "cosine") == []
    with pytest.raises(InputError, match="no map of errors for 'cosine'"):
        solvers.error_map(problem, "cosine")
