"""Errors of single tokens: their mean is the figure of the report, and stored and measured ones agree."""

from dataclasses import replace

import pytest
import torch

from replaceme_core import refit, solvers
from replaceme_core.artifacts import Measurement, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError
from replaceme_core.measurement import token_errors
from replaceme_core.measurement.measure import measure
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import MethodSection

SPAN = Span(2, 4)


@pytest.mark.parametrize("name", ["weighted_least_squares", "least_squares", "drop"])
def test_their_mean_by_length_is_what_the_moments_say_of_all_heldout_tokens(name: str, measurement64: Measurement) -> None:
    """Two routes: token by token on the sample, which holds every held-out token here; and the streamed sums, of weights 1/length."""
    fitted = solvers.fit(measurement64, SPAN, name)
    errors = token_errors.stored(measurement64, fitted)
    assert errors.n_tokens == measurement64.n_heldout_tokens
    moments = measurement64.moments[SPAN, "end_norm"].heldout
    length = measurement64.sample.boundaries[SPAN.end].double().norm(dim=-1)
    for own, matrix in ((errors.fitted, fitted.matrix), (errors.removed, None)):
        assert float((own * length).mean()) == pytest.approx(moments.error(matrix) * moments.energy / moments.n_tokens, rel=1e-5)


def test_the_origin_of_a_stored_token_is_the_token_itself(
    llama64: ModelHandle, calibration: CalibrationSet, measurement64: Measurement
) -> None:
    """Boundary 1 of every token is looked up by the sequence and the place that its origin names."""
    with llama64.borrow() as model:
        states = [capture.read_states(model, llama64.family, s[None], None).boundaries[1][0] for s in calibration.sequences]
    for sample, part in ((measurement64.sample, True), (measurement64.train_sample, False)):
        assert sample.origin is not None
        assert len(sample.origin) == sample.n_tokens
        assert {calibration.heldout[sequence] for sequence in sample.origin[:, 0].tolist()} == {part}
        found = torch.stack([states[sequence][place] for sequence, place in sample.origin.tolist()])
        torch.testing.assert_close(sample.boundaries[1], found.float(), rtol=1e-5, atol=1e-6)


def test_stored_and_measured_errors_are_the_same(llama64: ModelHandle, calibration: CalibrationSet, measurement64: Measurement) -> None:
    fitted = solvers.fit(measurement64, SPAN, "weighted_least_squares")
    stored, run = token_errors.stored(measurement64, fitted), token_errors.measured(llama64, calibration, fitted)
    assert run.boundary == stored.boundary == SPAN.end
    places = {(int(s), int(p)): i for i, (s, p) in enumerate(zip(run.sequence, run.position, strict=True))}
    order = [places[int(s), int(p)] for s, p in zip(stored.sequence, stored.position, strict=True)]
    assert len(order) == run.n_tokens
    for name in ("fitted", "removed"):
        torch.testing.assert_close(getattr(run, name)[order], getattr(stored, name), rtol=1e-4, atol=1e-9)


def test_a_refit_is_measured_with_its_own_weights_and_where_it_ends(
    llama64: ModelHandle, calibration: CalibrationSet, measurement64: Measurement
) -> None:
    from replaceme_core import pipeline

    for name, boundary in (("refit", SPAN.end), ("sequential_refit", llama64.n_blocks)):
        fitted = pipeline.fit(llama64, calibration, measurement64, SPAN, MethodSection(name=name))
        assert token_errors.needs_the_model(fitted)
        with pytest.raises(InputError, match="run the model"):
            token_errors.stored(measurement64, fitted)
        errors = token_errors.measured(llama64, calibration, fitted)
        assert errors.boundary == boundary
        assert float(errors.fitted.mean()) < float(errors.removed.mean())


def test_first_tokens_that_stay_out_of_the_fit_have_no_error(llama64: ModelHandle, calibration: CalibrationSet) -> None:
    skipping = replace(calibration, skip_first=True, fingerprint="without first tokens")
    measurement = measure(llama64, skipping, spans=[SPAN])
    fitted = solvers.fit(measurement, SPAN, "weighted_least_squares")
    stored, run = token_errors.stored(measurement, fitted), token_errors.measured(llama64, skipping, fitted)
    assert int(stored.position.min()) == int(run.position.min()) == 1
    errors = {(int(s), int(p)): float(e) for s, p, e in zip(run.sequence, run.position, run.fitted, strict=True)}
    assert len(errors) == stored.n_tokens == fitted.report.n_heldout_tokens
    assert [errors[int(s), int(p)] for s, p in zip(stored.sequence, stored.position, strict=True)] == pytest.approx(
        stored.fitted.tolist(), rel=1e-3
    )


def test_a_refit_that_solves_the_block_behind_the_cut_is_compared_at_the_end_of_the_model(
    llama64: ModelHandle, calibration: CalibrationSet
) -> None:
    around = refit.fit(llama64, calibration, SPAN, "local_refit")
    assert max(around.solved) == SPAN.end
    assert token_errors.measured(llama64, calibration, around, n_sequences=1).boundary == llama64.n_blocks
