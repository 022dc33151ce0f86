"""Closed forms against a second route, hard numeric cases on purpose, and reports that can be trusted."""

import dataclasses
import math
from typing import get_args

import pytest
import torch

from replaceme_core.artifacts import Measurement, Span, TokenSample
from replaceme_core.errors import InputError, NumericsError, SpanError
from replaceme_core.measurement.moments import MomentSums
from replaceme_core.plans.plan import MethodSection
from replaceme_core.solvers import METHODS, error_map, fit, ridge_path

SPAN = Span(1, 2)
WIDTH = 8
FITS = ["least_squares", "weighted_least_squares"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclasses.dataclass(eq=False)
class Tokens:
    """What the carrier writes, what it should have written, and what the stream holds beside it; the last `n_heldout` stay out."""

    written: torch.Tensor
    target: torch.Tensor
    beside: torch.Tensor
    n_heldout: int

    @property
    def end(self) -> torch.Tensor:
        return self.beside + self.target

    def part(self, heldout: bool) -> slice:
        cut = len(self.written) - self.n_heldout
        return slice(cut, None) if heldout else slice(None, cut)

    def weights(self, method: str) -> torch.Tensor:
        return torch.ones(len(self.end)).double() if method in ("least_squares", "drop") else 1 / self.end.norm(dim=-1)


def tokens(written: torch.Tensor, target: torch.Tensor, n_heldout: int = 10) -> Tokens:
    return Tokens(written, target, 3 * normal(*written.shape, seed=9), n_heldout)


def noisy(n: int = 200, width: int = WIDTH, noise: float = 0.3, n_heldout: int = 40) -> Tokens:
    """Tokens whose target is a linear map of what is written, and noise."""
    written = normal(n, width)
    return tokens(written, written @ normal(width, width, seed=1) + noise * normal(n, width, seed=2), n_heldout)


def measured(measurement: Measurement, data: Tokens) -> Measurement:
    """A measurement of a model of two blocks that saw exactly these tokens, through the streaming sums."""
    start = data.beside + data.written
    boundaries = torch.stack([normal(*start.shape, seed=8), start, data.end])
    writers = torch.stack([data.written, normal(*start.shape, seed=7)])
    out = torch.zeros(len(start), dtype=torch.bool)
    out[data.part(heldout=True)] = True
    sums = MomentSums([SPAN], start.shape[1])
    sums.update(boundaries, writers, out)
    samples = [TokenSample(*(dict(enumerate(state[:, rows])) for state in (boundaries, writers))) for rows in (out, ~out)]
    return dataclasses.replace(measurement, moments=sums.result(), sample=samples[0], train_sample=samples[1])


def dense_error(data: Tokens, method: str, matrix: torch.Tensor, heldout: bool) -> float:
    rows = data.part(heldout)
    weight = data.weights(method)[rows]
    residual = (data.written[rows] @ matrix - data.target[rows]).square().sum(-1)
    return float((weight * residual).sum() / (weight * data.target[rows].square().sum(-1)).sum())


def augmented(data: Tokens, method: str, ridge: float) -> torch.Tensor:
    """The ridge solution by QR of [sqrt(w) M; sqrt(a) I], a relative to the mean eigenvalue of M'wM."""
    rows = data.part(heldout=False)
    root = data.weights(method)[rows].sqrt().unsqueeze(1)
    written, target = data.written[rows] * root, data.target[rows] * root
    width = written.shape[1]
    shift = math.sqrt(ridge * float(written.square().sum()) / width)
    return torch.linalg.lstsq(
        torch.cat([written, shift * torch.eye(width).double()]), torch.cat([target, torch.zeros(width, width).double()])
    ).solution


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 1e-3, 0.1, 10.0])
def test_each_ridge_equals_a_direct_solve_of_the_augmented_system(measurement, method, ridge):
    data = noisy()
    found = fit(measured(measurement, data), SPAN, method, ridge).matrix
    torch.testing.assert_close(found, augmented(data, method, ridge), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", FITS)
def test_the_whole_ridge_path_equals_direct_solves_and_their_dense_errors(measurement, method):
    data = noisy()
    points = ridge_path(measured(measurement, data), SPAN, method)
    assert [point.ridge for point in points] == sorted(point.ridge for point in points)
    assert len(points) >= 8
    for point in points:
        matrix = augmented(data, method, point.ridge)
        assert point.train_error == pytest.approx(dense_error(data, method, matrix, heldout=False), rel=1e-7)
        assert point.heldout_error == pytest.approx(dense_error(data, method, matrix, heldout=True), rel=1e-7)


@pytest.mark.parametrize("method", FITS)
def test_without_a_ridge_the_one_of_least_heldout_error_is_taken(measurement, method):
    data = noisy(n=40, noise=3.0, n_heldout=20)
    taken = measured(measurement, data)
    points = ridge_path(taken, SPAN, method)
    report = fit(taken, SPAN, method).report
    assert report.heldout_error == pytest.approx(
        min(point.heldout_error for point in points), rel=1e-12
    )  # the path makes no T, the fit does
    assert report.ridge == min(points, key=lambda point: point.heldout_error).ridge
    assert report.ridge > min(point.ridge for point in points), "this noise calls for a ridge; else the test says nothing"


def test_the_token_weights_change_the_fit_where_a_few_tokens_are_huge(measurement):
    data = noisy()
    data.written[:5] *= 100
    data.target[:5] = normal(5, WIDTH, seed=4) * 1000
    taken = measured(measurement, data)
    plain, weighted = (fit(taken, SPAN, method, 0.0).matrix for method in FITS)
    rest = slice(5, 160)
    residual = [float((data.written[rest] @ matrix - data.target[rest]).norm()) for matrix in (plain, weighted)]
    assert residual[1] < 0.5 * residual[0]


@pytest.mark.parametrize("method", FITS)
def test_a_span_whose_blocks_do_nothing_gives_the_identity(measurement, method):
    written = normal(100, WIDTH)
    taken = measured(measurement, tokens(written, written.clone()))
    transform = fit(taken, SPAN, method, 0.0)
    torch.testing.assert_close(transform.matrix, torch.eye(WIDTH).double(), rtol=0, atol=1e-10)
    assert transform.report.heldout_error < 1e-12
    assert transform.report.removal_error < 1e-12


@pytest.mark.parametrize("method", FITS)
def test_a_true_linear_map_is_recovered_from_few_tokens(measurement, method):
    data = noisy(n=30, noise=0.0, n_heldout=5)
    transform = fit(measured(measurement, data), SPAN, method, 0.0)
    torch.testing.assert_close(transform.matrix, normal(WIDTH, WIDTH, seed=1), rtol=1e-8, atol=1e-8)
    assert transform.report.heldout_error < 1e-12


@pytest.mark.parametrize("method", FITS)
def test_a_duplicated_direction_is_solved_by_the_pseudo_inverse_and_said_so(measurement, method):
    data = noisy()
    data.written[:, 1] = data.written[:, 0]
    transform = fit(measured(measurement, data), SPAN, method, 0.0)
    assert transform.report.rank == WIDTH - 1
    assert transform.report.condition == math.inf
    assert any(f"spans {WIDTH - 1} of {WIDTH} directions" in note and "ridge above 0" in note for note in transform.report.notes)
    rows = data.part(heldout=False)
    root = data.weights(method)[rows].sqrt().unsqueeze(1)
    least_norm = torch.linalg.pinv(data.written[rows] * root) @ (data.target[rows] * root)
    torch.testing.assert_close(transform.matrix, least_norm, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, None])
def test_an_ill_conditioned_gram_stays_finite_and_is_reported(measurement, ridge):
    """Directions from 1 down to 3e-8: condition 1e15 in M'M, beyond what normal equations can invert."""
    data = noisy(noise=0.1)
    scales = torch.logspace(0, math.log10(3.2e-8), WIDTH, dtype=torch.float64)
    data = tokens(data.written * scales, data.target, 40)
    transform = fit(measured(measurement, data), SPAN, "least_squares", ridge)
    assert transform.matrix.isfinite().all()
    assert transform.report.train_error <= 1.0 + 1e-9
    assert transform.report.heldout_error == pytest.approx(dense_error(data, "least_squares", transform.matrix, heldout=True), rel=1e-4)
    if ridge == 0.0:
        assert transform.report.condition > 1e12
        assert transform.report.notes, "an ill-conditioned fit must warn"


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("n_train", [1, WIDTH - 1])
def test_fewer_tokens_than_directions_need_a_ridge_and_the_error_says_which_knob(measurement, method, n_train):
    data = noisy(n=n_train + 10, n_heldout=10)
    taken = measured(measurement, data)
    sentence = rf"{n_train} calibration tokens for a width of {WIDTH} .*Use at least {WIDTH} tokens, better {10 * WIDTH}, or a ridge above 0 \(now 0\)"
    with pytest.raises(NumericsError, match=sentence):
        fit(taken, SPAN, method, 0.0)
    transform = fit(taken, SPAN, method)
    assert transform.matrix.isfinite().all()
    assert transform.report.rank <= n_train
    assert any(f"Only {n_train} tokens for a width of {WIDTH}" in note for note in transform.report.notes)


@pytest.mark.parametrize("method", FITS)
def test_a_carrier_that_writes_only_zeros_is_an_error_with_a_way_out(measurement, method):
    data = tokens(torch.zeros(50, WIDTH).double(), normal(50, WIDTH))
    for ridge in (None, 0.0, 1.0):
        with pytest.raises(NumericsError, match=r"writes only zeros .* choose another span start"):
            fit(measured(measurement, data), SPAN, method, ridge)


def test_plain_removal_works_even_where_the_carrier_writes_only_zeros(measurement):
    data = tokens(torch.zeros(50, WIDTH).double(), normal(50, WIDTH))
    report = fit(measured(measurement, data), SPAN, "drop").report
    assert report.heldout_error == pytest.approx(1.0)


def test_a_target_of_zeros_does_not_divide_by_zero(measurement):
    """A dead carrier before a span that does nothing: there is nothing to explain, and nothing to fit."""
    data = tokens(torch.zeros(50, WIDTH).double(), torch.zeros(50, WIDTH).double())
    report = fit(measured(measurement, data), SPAN, "drop").report
    assert report.heldout_error == 0.0
    assert report.heldout_cosine == pytest.approx(1.0)


def test_the_report_of_removal_compares_itself_with_itself(measurement):
    data = noisy()
    transform = fit(measured(measurement, data), SPAN, "drop")
    report = transform.report
    identity = torch.eye(WIDTH).double()
    assert transform.matrix is None
    assert report.unknowns == 0
    assert report.heldout_error == report.removal_error == pytest.approx(dense_error(data, "drop", identity, heldout=True))
    assert report.train_error == pytest.approx(dense_error(data, "drop", identity, heldout=False))
    assert report.heldout_cosine == report.removal_cosine


@pytest.mark.parametrize("method", FITS)
def test_the_report_counts_tokens_unknowns_and_residuals_truthfully(measurement, method):
    data = noisy()
    transform = fit(measured(measurement, data), SPAN, method, 0.01)
    report = transform.report
    assert (report.n_tokens, report.n_heldout_tokens, report.unknowns, report.rank) == (160, 40, WIDTH**2, WIDTH)
    assert report.ridge == 0.01
    assert report.train_error == pytest.approx(dense_error(data, method, transform.matrix, heldout=False), rel=1e-9)
    assert report.heldout_error == pytest.approx(dense_error(data, method, transform.matrix, heldout=True), rel=1e-9)
    assert report.removal_error == pytest.approx(dense_error(data, method, torch.eye(WIDTH).double(), heldout=True), rel=1e-9)
    rows = data.part(heldout=True)
    cosine = torch.nn.functional.cosine_similarity(data.beside[rows] + data.written[rows] @ transform.matrix, data.end[rows], dim=-1)
    assert report.heldout_cosine == pytest.approx(float(cosine.mean()), rel=1e-9)


def test_the_condition_number_is_that_of_the_matrix_that_was_solved(measurement):
    data = noisy()
    rows = data.part(heldout=False)
    gram = data.written[rows].T @ data.written[rows]
    for ridge in (0.0, 0.1):
        solved = gram + ridge * gram.diagonal().mean() * torch.eye(WIDTH).double()
        report = fit(measured(measurement, data), SPAN, "least_squares", ridge).report
        assert report.condition == pytest.approx(float(torch.linalg.cond(solved)), rel=1e-9)


@pytest.mark.parametrize("method", ["drop", *FITS])
def test_the_error_map_holds_the_heldout_error_of_every_span_that_was_kept(measurement, method):
    values = error_map(measurement, method)
    assert values.shape == (7, 7)
    for start in range(7):
        for end in range(7):
            if 1 <= start < end:
                expected = fit(measurement, Span(start, end), method).report.heldout_error
                assert float(values[start, end]) == pytest.approx(expected, rel=1e-12)
            else:
                assert values[start, end].isnan()


def test_an_unknown_method_lists_those_that_exist(measurement):
    with pytest.raises(InputError, match=r"no method 'magic'; choose one of .*weighted_least_squares.*drop"):
        fit(measurement, Span(1, 2), "magic")


def test_a_span_outside_the_model_is_a_span_error(measurement):
    with pytest.raises(SpanError, match="0:2"):
        fit(measurement, Span(0, 2), "drop")


@pytest.mark.parametrize("kept", [[], [Span(1, 3)]], ids=["none", "another"])
def test_a_span_that_the_pass_did_not_keep_is_an_error_that_says_what_to_do(measurement, kept):
    less = dataclasses.replace(measurement, moments={key: m for key, m in measurement.moments.items() if key[0] in kept})
    for method in ("drop", "least_squares"):
        with pytest.raises(InputError, match=r"did not store what a fit of the span 2:4 reads.*Measure again"):
            fit(less, Span(2, 4), method)


def test_a_plan_can_name_exactly_the_methods_that_exist():
    assert set(get_args(MethodSection.model_fields["name"].annotation)) == set(METHODS)


def test_a_fit_changes_nothing_in_the_measurement(measurement):
    before = {key: (m.train.gram.clone(), m.train.cross.clone()) for key, m in measurement.moments.items()}
    for method in (name for name, info in METHODS.items() if info.solver):
        fit(measurement, Span(2, 4), method)
    for key, (gram, cross) in before.items():
        assert torch.equal(measurement.moments[key].train.gram, gram)
        assert torch.equal(measurement.moments[key].train.cross, cross)
