"""From distances to spans, against brute force over all pairs of boundaries."""

import pytest
import torch

from replaceme_core.artifacts import DistanceMatrix, Span
from replaceme_core.errors import SpanError
from replaceme_core.selection.spans import best, length_of_share, profile, top


def matrix(n_blocks: int, seed: int = 0) -> DistanceMatrix:
    """Random distances and spreads above the diagonal."""
    generator = torch.Generator().manual_seed(seed)
    values, spread = (torch.rand(n_blocks + 1, n_blocks + 1, generator=generator, dtype=torch.float64) for _ in range(2))
    below = torch.ones_like(values).tril(-1).bool()
    return DistanceMatrix(*(values.masked_fill(below, torch.nan),), "all", 100, 25, spread.masked_fill(below, torch.nan))


def brute_force(distances: DistanceMatrix, length: int) -> list[tuple[float, Span]]:
    """Every admissible span of a length with its distance, the least first."""
    found = []
    for start in range(distances.n_blocks + 1):
        for end in range(distances.n_blocks + 1):
            if start >= 1 and end - start == length:
                found.append((float(distances.values[start, end]), Span(start, end)))
    return sorted(found, key=lambda pair: pair[0])


@pytest.mark.parametrize("n_blocks", [2, 3, 8])
def test_best_and_top_agree_with_brute_force_at_every_length(n_blocks):
    for seed in range(5):
        distances = matrix(n_blocks, seed)
        for length in range(1, n_blocks):
            expected = brute_force(distances, length)
            assert best(distances, length) == expected[0][1]
            for k in (1, 2, len(expected), len(expected) + 5):
                assert top(distances, length, k) == [(span, value) for value, span in expected[:k]]


def test_block_0_is_never_removed_even_where_its_distance_is_the_least():
    distances = matrix(5)
    distances.values[0, 2] = -1.0
    assert best(distances, 2).start >= 1


def test_the_profile_lists_every_start_once_with_its_distance_and_standard_error():
    distances = matrix(7)
    points = profile(distances, 3)
    assert [point.span for point in points] == [Span(1, 4), Span(2, 5), Span(3, 6), Span(4, 7)]
    for point in points:
        assert point.distance == float(distances.values[point.span.start, point.span.end])
        assert point.standard_error == pytest.approx(float(distances.spread[point.span.start, point.span.end]) / 5)


def test_two_blocks_leave_one_span_and_one_block_leaves_none():
    assert [point.span for point in profile(matrix(2), 1)] == [Span(1, 2)]
    with pytest.raises(SpanError):
        profile(matrix(1), 1)


@pytest.mark.parametrize("length", [-1, 0, 6, 7])
def test_a_length_that_leaves_no_carrier_is_an_error_that_names_the_limits(length):
    with pytest.raises(SpanError, match=f"A span of {length} blocks does not fit a model of 6: choose between 1 and 5"):
        best(matrix(6), length)


def test_a_share_of_depth_becomes_at_least_one_block_and_leaves_the_first():
    assert [length_of_share(12, share) for share in (0.01, 0.25, 0.5, 0.99)] == [1, 3, 6, 11]
    assert length_of_share(2, 0.9) == 1
