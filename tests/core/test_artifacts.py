"""Spans: their bounds, their words, and what a distance matrix says about them."""

import contextlib

import pytest
import torch

from replaceme_core.artifacts import DistanceMatrix, Span, SpanMoments
from replaceme_core.errors import SpanError


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 7])
def test_exactly_the_spans_with_a_carrier_and_an_end_inside_the_model_are_accepted(n_blocks):
    for start in range(-1, n_blocks + 2):
        for end in range(-1, n_blocks + 3):
            span = Span(start, end)
            if 1 <= start < end <= n_blocks:
                assert span.check(n_blocks) is span
            else:
                with pytest.raises(SpanError, match=rf"needs 1 <= start < end <= {n_blocks}"):
                    span.check(n_blocks)


def test_a_model_of_one_block_has_no_span_and_one_of_two_blocks_has_one():
    fitting = [Span(s, e) for s in range(3) for e in range(4)]

    def accepted(n_blocks):
        found = []
        for span in fitting:
            with contextlib.suppress(SpanError):
                found.append(span.check(n_blocks))
        return found

    assert accepted(1) == []
    assert accepted(2) == [Span(1, 2)]


def test_a_span_says_what_it_removes_and_which_block_carries_the_transform():
    assert Span(21, 29).describe(32) == "removes blocks 21–28 of 0–31; carrier: block 20"
    assert Span(3, 4).describe(6) == "removes block 3 of 0–5; carrier: block 2"
    assert str(Span(6, 9)) == "6:9"


def test_a_span_counts_its_blocks_and_names_them():
    span = Span(2, 5)
    assert (len(span), span.carrier, list(span.blocks)) == (3, 1, [2, 3, 4])


def test_the_error_repeats_the_span_and_the_number_of_blocks():
    with pytest.raises(SpanError, match=r"Span 0:3 .* model of 6 blocks.*Block 0 always stays"):
        Span(0, 3).check(6)


def test_spans_of_equal_bounds_are_one_key_and_sort_by_start_then_end():
    assert len({Span(1, 2), Span(1, 2), Span(1, 3)}) == 2
    assert sorted([Span(2, 3), Span(1, 4), Span(1, 2)]) == [Span(1, 2), Span(1, 4), Span(2, 3)]


def test_the_angular_distance_runs_from_none_over_a_right_angle_to_opposite():
    values = torch.tensor([[0.0, 1.0, 2.0], [torch.nan, 0.0, 1.0], [torch.nan, torch.nan, 0.0]], dtype=torch.float64)
    matrix = DistanceMatrix(values, "all", 10, 2, torch.zeros_like(values))
    assert matrix.angular()[0].tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert matrix.angular()[1, 0].isnan()
    assert matrix.n_blocks == 2
    assert matrix.at(Span(1, 2)) == 1.0


def test_the_error_of_moments_is_the_unexplained_share_of_the_target():
    generator = torch.Generator().manual_seed(1)
    written, target, matrix = (torch.randn(40, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    matrix = matrix[:5]
    moments = SpanMoments(written.T @ written, written.T @ target, float(target.square().sum()), 40)
    dense = (written @ matrix - target).square().sum() / target.square().sum()
    assert moments.error(matrix) == pytest.approx(float(dense), rel=1e-12)
    plain = (written - target).square().sum() / target.square().sum()
    assert moments.error(None) == pytest.approx(float(plain), rel=1e-12)
    assert moments.error(None) == pytest.approx(moments.error(torch.eye(5, dtype=torch.float64)), rel=1e-12)
