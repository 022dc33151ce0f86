"""The places of one length side by side: the first of them, whether the text can tell it from the others, and a run that chooses so."""

import pytest
import torch

from replaceme_core import pipeline, solvers
from replaceme_core.artifacts import LinearTransform, Span
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare, places
from replaceme_core.comparison.tails import Tail, Tails
from replaceme_core.errors import NumericsError
from replaceme_core.plans.plan import PruningPlan
from replaceme_core.selection import criteria, spans
from replaceme_core.surgery import surgery

TEXT = TextPart.given([torch.zeros(11, dtype=torch.long)] * 10)


def made(start: int, kls: list[float]) -> Tail:
    """A place whose sequences of ten predicted tokens have these KLs per token."""
    counts = torch.full((10,), 10.0, dtype=torch.float64)
    sums = torch.tensor(kls, dtype=torch.float64) * counts
    rows = torch.stack([counts, counts, sums, counts], 1)
    return Tail(Span(start, start + 2), "drop", compare.summary("x", rows, rows, TEXT), sums, counts, TEXT)


def test_the_first_place_is_told_from_the_next_by_their_difference_on_the_same_text():
    """Sequences differ much more than places do, so that intervals of the two alone overlap; the third is worse on the mean only."""
    level = [0.1 * number for number in range(1, 11)]
    first, second = made(3, level), made(1, [kl + 0.01 + 0.001 * (number % 3) for number, kl in enumerate(level)])
    unsure = made(2, [kl + (0.3 if number % 2 else -0.25) for number, kl in enumerate(level)])
    found = places.choice([second, first])
    assert (found.best, found.second) == (first, second)
    assert found.is_clear
    assert found.low < second.quality.kl - first.quality.kl < found.high, "what the second costs more, a token"
    assert first.quality.kl_high > second.quality.kl_low, "the two intervals overlap"
    assert "blocks 3–4: KL 0.550" in found.sentence
    assert "on 100 tokens of the text given (10 sequences), the least of 2 places. Next: blocks 1–2, 0.011 [" in found.sentence
    assert places.undecided([second, first, unsure]) == {Span(2, 4)}
    assert "cannot tell apart" in places.choice([first, unsure]).sentence
    assert "no other place" in places.choice([first]).sentence


def test_the_first_place_by_distance_is_left_only_for_one_that_clearly_costs_less():
    level = [0.1 * number for number in range(1, 11)]
    standing = made(5, level)
    little = made(2, [kl - (0.25 if number % 2 else -0.2) for number, kl in enumerate(level)])
    found = places.choice([little, standing], Span(5, 7))
    assert little.quality.kl < standing.quality.kl
    assert (found.best, found.second, found.stands) == (standing, little, True)
    assert "the first of 2 places by distance. Blocks 2\u20133 measured 0.025 [" in found.sentence
    assert "may be chance" in found.sentence
    much = made(3, [kl - 0.05 + 0.001 * (number % 3) for number, kl in enumerate(level)])
    found = places.choice([little, much, standing], Span(5, 7))
    assert (found.best, found.stands) == (much, False)
    assert places.choice([standing, made(1, [kl + 1 for kl in level])], Span(5, 7)).stands is False, "it is the least by both"


def test_many_comparisons_ask_for_more_than_one_does():
    level = [0.1 * number for number in range(1, 11)]
    standing, other = made(5, level), made(2, [kl - 0.028 - 0.03 * (-1) ** number for number, kl in enumerate(level)])
    assert places._more(other, standing)[0] > 0, "clear if it were the only one"
    worse = [made(start, [kl + 1 for kl in level]) for start in range(6, 40)]
    assert places.choice([other, standing], Span(5, 7)).best is other
    assert places.choice([other, standing, *worse], Span(5, 7)).best is standing


def test_values_and_spread_stand_at_their_span_and_what_failed_has_none():
    tail = made(3, [0.1 * number for number in range(1, 11)])
    matrix = places.matrix([tail], 6)
    assert matrix.at(Span(3, 5)) == pytest.approx(0.55)
    assert float(matrix.spread[3, 5]) == pytest.approx(float((tail.sums / 10).std()))
    assert int(matrix.values.isfinite().sum()) == 1
    assert spans.best(matrix, 2) == Span(3, 5), "a place without a value is not the least"


def test_the_error_of_one_place_stands_in_its_place(llama, calibration, measurement):
    def fit(span: Span) -> LinearTransform:
        if span == Span(2, 4):
            raise NumericsError("no such fit")
        return solvers.fit(measurement, span, "weighted_least_squares")

    tails = Tails(llama, calibration.heldout_text(200, 16))
    wanted = [Span(1, 3), Span(2, 4), Span(3, 5)]
    one, failed, other = places.measured(tails, wanted, fit)
    assert (one.span, str(failed), other.span) == (Span(1, 3), "no such fit", Span(3, 5))
    merged = surgery.prune(llama, fit(Span(3, 5)), "x").handle
    assert other.quality.kl == pytest.approx(compare.divergence(llama, [merged], tails.text)[1].kl, rel=1e-3)


@pytest.mark.parametrize("method", ["drop", "weighted_least_squares"])
def test_a_run_takes_the_place_that_it_measured_to_cost_least_and_says_so(llama_folder, texts, tmp_path, method):
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    section = {"source": str(tmp_path / "texts.txt"), "max_tokens": 600, "max_length": 32}
    data = {"model": {"path": str(llama_folder)}, "calibration": section, "method": {"name": method}}
    plan = PruningPlan.parse(data | {"span": {"share": 0.34, "criterion": "measured_kl"}})
    done = pipeline.run(plan, tmp_path / "run")
    calibration = pipeline.prepare_for(done.original, plan.calibration)
    text = calibration.heldout_text(places.TOKENS, places.LENGTH)
    every = [Span(start, start + 2) for start in range(1, 5)]
    pruned = [
        surgery.prune(done.original, solvers.fit(done.measurement, span, "weighted_least_squares"), str(span)).handle for span in every
    ]
    kls = [row.kl for row in compare.divergence(done.original, pruned, text)[1:]]
    assert done.variant.transform.span == every[kls.index(min(kls))]
    notes = " ".join(done.variant.transform.report.notes)
    assert "The place was measured: blocks " in notes
    assert "of 4 places" in notes


def test_a_ranking_that_was_not_measured_falls_back_on_the_distance_and_says_so(measurement):
    matrix, note = criteria.rank(measurement, 2, "measured_kl")
    assert matrix.metric == "sinks_kept"
    assert note == criteria.NOT_MEASURED
