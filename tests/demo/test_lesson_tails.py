"""What the lesson's quick way measures of a place is what the merged model does, measured the usual way."""

import pytest

from demo.lesson_tails import Tails
from replaceme_core import solvers
from replaceme_core.artifacts import Span
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.surgery import surgery


@pytest.mark.parametrize("method", ["drop", "weighted_least_squares"])
@pytest.mark.parametrize("span", [Span(1, 2), Span(2, 5), Span(4, 6)], ids=str)
def test_a_tail_is_the_merged_model(llama, calibration, measurement, span, method):
    text = TextPart.given(calibration.sequences[:14])
    assert len({len(row) for row in text.sequences}) > 2, "sequences of several lengths"
    transform = solvers.fit(measurement, span, method)
    merged = compare.divergence(llama, [surgery.prune(llama, transform, "x").handle], text)[1]
    found = Tails(llama, text).measure(transform)
    assert found.kl > 1e-4
    for name, value in vars(found).items():
        usual = getattr(merged, {"low": "kl_low", "high": "kl_high"}.get(name, name))
        assert value == pytest.approx(usual, rel=1e-3), name
