"""A model whose scores are NaN has no figure, in no place where figures are made; before, its KL was 0.000, the best there is."""

import dataclasses
from math import isnan

import pytest
import torch

from replaceme_core.artifacts import ModelHandle, Span, Variant
from replaceme_core.comparison import compare, logit_lens
from replaceme_core.comparison.generation import Writer
from replaceme_core.errors import NumericsError
from replaceme_core.evaluation import evaluate
from replaceme_core.plans.plan import EvaluationSection, MethodSection
from replaceme_core.refit.refit import _better, _finite
from replaceme_core.refit.sums import UpdateSums
from replaceme_core.refit.walk import Result
from replaceme_core.solvers.evidence import report
from replaceme_core.solvers.least_squares import ridge_path
from replaceme_core.studies.pareto import on_front
from tests.support.broken import broken

SAID = r"of 'broken .*' are not finite \(NaN or infinity\) at [\d,]+ of [\d,]+ positions.*float32 or bfloat16 instead of float16"


@pytest.fixture(scope="module")
def nan(variant: Variant) -> ModelHandle:
    return broken(variant.handle)


def test_a_comparison_names_the_model_and_the_way_out(llama, nan, calibration):
    text = calibration.test_text(100)
    with pytest.raises(NumericsError, match=SAID):
        compare.divergence(llama, [nan], text)
    with pytest.raises(NumericsError, match=SAID):
        compare.divergence(nan, [llama], text)


def test_one_position_is_enough(llama, calibration):
    """A word that comes once: the proofs, which read 24 to 48 random tokens, need not meet it."""
    text = calibration.test_text(200)
    values, counts = torch.cat([sequence[1:-1] for sequence in text.sequences]).unique(return_counts=True)
    rare = int(values[counts.argmin()])
    assert counts.min() < 0.05 * text.n_tokens
    with pytest.raises(NumericsError, match=SAID):
        compare.divergence(llama, [broken(llama, rare)], text)


def test_the_other_models_of_a_comparison_keep_their_figures(llama, nan, variant, calibration):
    text = calibration.test_text(100)
    original, failed, good = compare.attempts(llama, [nan, variant.handle], text)
    assert isinstance(failed, NumericsError)
    assert [original, good] == compare.divergence(llama, [variant.handle], text)


def test_reading_lens_and_writing_refuse_it_too(llama, nan):
    ids = compare.encode(llama, "w1 w2 w3")
    with pytest.raises(NumericsError, match=SAID):
        compare.read(llama, [nan], ids)
    with pytest.raises(NumericsError, match=SAID):
        logit_lens.look(nan, "w1 w2 w3")
    for temperature in (0.0, 1.0):
        with pytest.raises(NumericsError, match=SAID):
            Writer(nan, "w1 w2", 3, temperature).step()


@pytest.mark.parametrize("tasks", ["demo:where", "probe"])
def test_benchmarks_do_not_grade_it(nan, tasks):
    """Of NaN scores the first answer is the greatest, and a broken model was right where that happened to be the answer."""
    with pytest.raises(NumericsError, match=SAID):
        evaluate.evaluate(nan, EvaluationSection(tasks=tasks, limit=2))


def test_a_point_without_a_figure_is_on_no_front():
    nan = float("nan")
    assert on_front([(-3.0, nan), (-3.0, 0.4), (-2.0, 0.5), (nan, 0.1)]) == [False, True, False, False]


def test_a_fit_that_is_not_finite_is_no_fit(measurement):
    span = Span(2, 4)
    moments = measurement.moments[span, "end_norm"]
    spoilt = torch.full((32, 32), torch.nan, dtype=torch.float64)
    assert isnan(moments.heldout.error(spoilt)), "max(0, NaN) is 0, the best error there is"
    sums = UpdateSums(spoilt, spoilt, 1.0, 5)
    assert sums.error(torch.eye(32, dtype=torch.float64)) == float("inf")
    with pytest.raises(NumericsError, match=r"held-out error of the fit at 2:4 is not a number \(NaN\)"):
        report(measurement, span, moments, spoilt, condition=1.0, rank=1, ridge=0.0, seconds=0.0)
    spoilt = dataclasses.replace(moments, heldout=dataclasses.replace(moments.heldout, energy=torch.nan))
    with pytest.raises(NumericsError, match="No ridge gives a fit whose error is a number"):
        ridge_path(spoilt, MethodSection())


def test_a_refit_takes_the_least_finite_result():
    def result(error: float) -> Result:
        return Result(0, error, None, {}, ())

    nan = float("nan")

    def least(*errors: float) -> Result:
        best = None
        for error in errors:
            best = _better(best, result(error))
        return _finite(best)

    assert least(nan, 0.5, 0.2).error == 0.2
    assert least(0.2, nan, 0.5).error == 0.2
    with pytest.raises(NumericsError, match="stream of the refitted model is not finite"):
        least(nan, float("inf"))
