"""Intervals cover what they say, as far as a simulation can show; and there are none where there is too little text."""

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from replaceme_core.comparison.intervals import LEAST, bracketed, interval

REPEATS = 400


def documents(n: int, generator: np.random.Generator, spread: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Sums of KL and tokens of `n` documents: log-normal rates, as KLs are, on 30 to 127 tokens."""
    counts = generator.integers(30, 128, n).astype(float)
    return generator.lognormal(0, spread, n) * counts, counts


@pytest.fixture(scope="module")
def truth() -> float:
    sums, counts = documents(3_000_000, np.random.default_rng(9))
    return float(sums.sum() / counts.sum())


def covered(n: int, truth: float) -> float:
    generator, hits = np.random.default_rng(n), 0
    for _ in range(REPEATS):
        low, high = interval(*map(torch.tensor, documents(n, generator)))
        hits += low <= truth <= high
    return hits / REPEATS


@pytest.mark.parametrize("n", [10, 30, 60])
def test_nine_of_ten_intervals_or_more_hold_the_true_mean(n, truth):
    assert covered(n, truth) >= 0.90


def test_the_percentile_bootstrap_of_before_holds_it_too_seldom(truth):
    """Why it was given up; the same documents."""
    generator, hits = np.random.default_rng(10), 0
    for _ in range(REPEATS):
        sums, counts = documents(10, generator)
        found = bootstrap(
            (sums, counts), lambda total, n, axis=-1: total.sum(axis) / n.sum(axis), paired=True, vectorized=True, n_resamples=500,
            method="percentile", rng=0,
        ).confidence_interval  # fmt: skip
        hits += found.low <= truth <= found.high
    assert hits / REPEATS < 0.88
    assert covered(10, truth) > hits / REPEATS + 0.04


@pytest.mark.parametrize("n", [1, 3, 5, LEAST - 1])
def test_fewer_than_ten_documents_have_no_interval(n):
    assert interval(*map(torch.tensor, documents(n, np.random.default_rng(0)))) == (None, None)


def test_values_that_are_all_the_same_have_an_interval_of_no_width():
    counts = torch.arange(20, 40).double()
    assert interval(0 * counts, counts) == (0.0, 0.0)
    assert interval(2 * counts, counts) == pytest.approx((2.0, 2.0))


def test_one_odd_document_among_equals_makes_the_interval_wide_and_finite():
    counts = torch.full((40,), 50.0)
    sums = torch.zeros(40)
    sums[3] = 100.0
    low, high = interval(sums, counts)
    assert low < 0.05 < high < 2.2
    assert np.isfinite([low, high]).all()


def test_an_interval_repeats_itself():
    rows = list(map(torch.tensor, documents(30, np.random.default_rng(1))))
    assert interval(*rows) == interval(*rows)


def test_figures_are_shown_with_their_interval_or_alone():
    assert bracketed(0.0422, 0.0317, 0.0528) == "0.0422 [0.0317, 0.0528]"
    assert bracketed(0.0422, None, None) == "0.0422"
    assert bracketed(0.5, 0.4, 0.6, ".0%") == "50% [40%, 60%]"
