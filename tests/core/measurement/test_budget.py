"""What a memory budget lets the calibration pass keep, and what a plan asks it for."""

import dataclasses
import re
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from replaceme_core.measurement.budget import GIB, asked_by, choices, plan_keep, weightings_of

from replaceme_core.artifacts import Span
from replaceme_core.errors import InputError, PlanError
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.moments import bytes_of
from replaceme_core.plans.plan import GRADIENT, REWEIGHTED, Loss, MethodSection, PruningPlan
from replaceme_core.solvers import METHODS, fit

SPAN = Span(2, 5)


MEASURED = [name for name, info in METHODS.items() if info.solver]


def sizes(item):
    """Shapes of every tensor below an artifact."""
    if isinstance(item, torch.Tensor):
        return [tuple(item.shape)]
    if dataclasses.is_dataclass(item):
        return [s for f in dataclasses.fields(item) for s in sizes(getattr(item, f.name))]
    if isinstance(item, dict):
        return [s for value in item.values() for s in sizes(value)]
    if isinstance(item, list | tuple):
        return [s for value in item for s in sizes(value)]
    return []


def test_the_size_of_a_measurement_does_not_depend_on_the_number_of_tokens(llama, calibration):
    def repeated(times):
        return dataclasses.replace(calibration, sequences=calibration.sequences * times, heldout=calibration.heldout * times)

    small, large = (measure(llama, repeated(times), budget_bytes=2**19, spans=[SPAN]) for times in (1, 3))
    assert large.n_tokens == 3 * small.n_tokens
    assert sizes(small) == sizes(large)
    assert sum(1 for _ in sizes(small)) > 20


def test_a_budget_keeps_all_spans_then_one_length_then_one_span():
    one = bytes_of([Span(1, 2)], 32)
    assert one == 4 * 2 * 8 * 32 * 32, "a Gram under each weighting and two crosses, on two parts, in fp64"
    assert len(plan_keep(6, 32, 2 * GIB).spans) == 15
    one_length = plan_keep(8, 32, 12 * one)
    assert {len(span) for span in one_length.spans} == {2}
    assert len(one_length.spans) == 6
    single = plan_keep(8, 32, 12 * one - 1)
    assert len(single.spans) == 1
    assert "raise the budget" in single.words
    assert plan_keep(6, 32, 0, [Span(1, 3)]).spans == [Span(1, 3)]


def test_a_span_that_is_named_leaves_room_for_the_tokens_that_a_cosine_needs():
    """At the shape of an 8B model, 32 blocks of width 4,096: tokens that keep all 65 points would need a budget of 44 GiB."""
    kept = plan_keep(32, 4096, 2 * GIB, [Span(20, 28)], weightings=["end_norm"])
    assert (kept.boundaries, kept.carriers) == ([20, 28], [19])
    assert kept.train_tokens >= 4096, "as many as T has rows"
    assert 4 * 4096 * 3 * (kept.train_tokens + kept.sample_tokens) <= 2 * GIB / 8
    assert kept.n_bytes <= 2 * GIB
    assert plan_keep(32, 4096, 2 * GIB, []).train_tokens == 0, "nothing is stored where nothing can be fitted"


def test_stored_tokens_keep_the_points_of_the_kept_spans_and_name_the_way_to_others(llama64, calibration, measurement64):
    found = measure(llama64, calibration, spans=[SPAN, Span(3, 5)])
    for few, all_of_it in ((found.sample, measurement64.sample), (found.train_sample, measurement64.train_sample)):
        assert (list(few.boundaries), list(few.writers)) == ([2, 3, 5], [1, 2])
        assert torch.equal(few.origin, all_of_it.origin)
        assert all(torch.equal(states, all_of_it.boundaries[at]) for at, states in few.boundaries.items())
        assert all(torch.equal(states, all_of_it.writers[at]) for at, states in few.writers.items())
    assert found.n_blocks == 6
    with pytest.raises(InputError, match=r"stored its tokens at 2, 3, 5 only, and not at 4\. Measure again with the span"):
        found.sample.boundaries[4]


def stored_bytes(measurement):
    """Bytes of the distinct storages that hold the moments."""
    parts = [part for both in measurement.moments.values() for part in (both.train, both.heldout)]
    storages = [matrix.untyped_storage() for part in parts for matrix in (part.gram, part.cross)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_the_choices_name_every_length_with_the_bytes_that_the_pass_then_takes(llama, calibration):
    found = choices(6, 32)
    assert [(c.keep, c.n_spans) for c in found] == [("all", 15), (1, 5), (2, 4), (3, 3), (4, 2), (5, 1)]
    assert choices(1, 32) == []
    for choice in found[:3]:
        measured = measure(llama, calibration, keep=choice.keep)
        assert len(measured.spans()) == choice.n_spans
        assert {len(span) for span in measured.spans()} == (set(range(1, 6)) if choice.keep == "all" else {choice.keep})
        assert stored_bytes(measured) == choice.n_bytes


def test_a_choice_is_kept_at_exactly_the_budget_it_names_and_refused_one_byte_below():
    for choice in choices(30, 576):
        kept = plan_keep(30, 576, choice.budget_bytes, keep=choice.keep)
        assert len(kept.spans) == choice.n_spans
        with pytest.raises(PlanError, match=rf"takes {choice.n_bytes:,} bytes .*budget of {choice.budget_bytes - 1:,} bytes"):
            plan_keep(30, 576, choice.budget_bytes - 1, keep=choice.keep)


@pytest.mark.parametrize("weighting", ["uniform", "end_norm"])
def test_a_pass_for_one_weighting_keeps_the_same_sums_in_less_memory_and_says_what_it_lacks(llama64, calibration, measurement64, weighting):
    found = measure(llama64, calibration, weightings=[weighting])
    assert found.spans() == measurement64.spans()
    assert set(found.moments) == {(span, weighting) for span in found.spans()}
    assert stored_bytes(found) == bytes_of(found.spans(), 32, [weighting]) < 0.7 * stored_bytes(measurement64)
    for key, moments in found.moments.items():
        for part in ("train", "heldout"):
            mine, both = getattr(moments, part), getattr(measurement64.moments[key], part)
            assert (mine.energy, mine.n_tokens) == (both.energy, both.n_tokens)
            assert torch.equal(mine.gram, both.gram)
            assert torch.equal(mine.cross, both.cross)
    other, method = ("end_norm", "weighted_least_squares") if weighting == "uniform" else ("uniform", "drop")
    with pytest.raises(InputError, match=rf"no moments of the span 2:5 under the token weights '{other}'. Measure again with this span"):
        fit(found, SPAN, method)


def settings():
    """Every method, with every loss that it takes."""
    for name in MEASURED:
        for loss in get_args(Loss) if name in GRADIENT else (None,):
            try:
                yield MethodSection(name=name, loss=loss, max_iterations=2 if name in (*GRADIENT, *REWEIGHTED) else None)
            except ValidationError:  # a method that does not take this loss
                continue


@pytest.mark.parametrize("section", settings(), ids=lambda section: f"{section.name}-{section.loss}")
def test_a_pass_for_one_method_keeps_all_that_this_method_reads(llama64, calibration, measurement64, section):
    found = measure(llama64, calibration, spans=[SPAN], weightings=weightings_of(section))
    few, all_of_it = (fit(measured, SPAN, section) for measured in (found, measurement64))
    assert dataclasses.replace(few.report, seconds=0) == dataclasses.replace(all_of_it.report, seconds=0)
    assert few.matrix is all_of_it.matrix is None or torch.equal(few.matrix, all_of_it.matrix)
    assert len(list(settings())) > len(MEASURED)


def test_a_choice_that_breaks_the_budget_names_a_budget_that_is_enough():
    with pytest.raises(PlanError, match=r"calibration\.budget_gib\) to ([0-9.]+) or more, or keep \(calibration\.keep\)") as caught:
        plan_keep(32, 4096, keep=8)
    named = float(re.search(r"to ([0-9.]+) or more", str(caught.value))[1])
    assert len(plan_keep(32, 4096, int(named * GIB), keep=8).spans) == 24


@pytest.mark.parametrize(("n_blocks", "keep", "way_out"), [(6, 6, "1 to 5"), (1, 1, "to 'auto'")])
def test_a_length_that_does_not_fit_the_model_is_an_error_with_the_way_out(n_blocks, keep, way_out):
    with pytest.raises(PlanError, match=f"{n_blocks} block.*no span of {keep} to keep.*{way_out}"):
        plan_keep(n_blocks, 32, keep=keep)


def asked(share=None, span=None, **calibration):
    section = {"share": share} if share else {"start": span.start, "end": span.end}
    return PruningPlan.parse({"model": {"path": "x"}, "calibration": calibration, "span": section})


def test_the_length_of_a_plans_share_wins_over_the_quarter_that_auto_would_keep():
    """32 blocks of width 1024: all 496 spans take more than half of 4 GiB, 16 of one length exactly 1 GiB."""
    assert {len(span) for span in plan_keep(32, 1024, 4 * GIB).spans} == {8}
    spans, keep = asked_by(asked(0.5, budget_gib=4), 32, 1024)
    assert (spans, keep) == (None, 16)
    assert {len(span) for span in plan_keep(32, 1024, 4 * GIB, spans, keep).spans} == {16}


def test_a_plan_asks_for_its_own_span_for_all_or_for_nothing_before_a_second_pass():
    assert asked_by(asked(0.5), 12, 128) == (None, 6), "a run fits one span: the others are not worth their products"
    assert asked_by(asked(0.5, keep="all"), 12, 128) == (None, "all")
    assert asked_by(asked(span=Span(2, 5), keep=7), 12, 128) == ([Span(2, 5)], "auto")
    assert asked_by(asked(0.5), 32, 4096) == ([], "auto")
    assert asked_by(asked(0.5, keep=16), 32, 4096) == (None, 16), "an explicit choice is not given up in silence"


def test_a_keep_of_another_length_than_the_share_is_an_error_with_both_figures():
    with pytest.raises(PlanError, match=r"keep is 3, but span\.share 0\.5 of 12 blocks asks for a span of 6; set keep to 6"):
        asked_by(asked(0.5, keep=3), 12, 128)
