"""What one pass leaves behind equals what all states, held in memory at once, would give."""

import dataclasses

import numpy as np
import pytest
import torch

from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.moments import MomentSums
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from replaceme_core.solvers import fit
from tests.support.dense import together
from tests.support.tiny_models import save_tiny

SPAN = Span(2, 5)


def cosine_distances(states):
    """1 - cos of every pair of boundaries and every token: [boundaries, boundaries, tokens]."""
    unit = states / states.norm(dim=-1, keepdim=True)
    return 1 - torch.einsum("snd,end->sen", unit, unit)


def rows_of(calibration: CalibrationSet, heldout: bool) -> list[torch.Tensor]:
    return [s for s, out in zip(calibration.sequences, calibration.heldout, strict=True) if out is heldout]


@pytest.fixture(scope="module")
def states(llama64: ModelHandle, calibration: CalibrationSet):
    """Dense states of every sequence, one sequence at a time."""
    return [together(llama64, [sequence]) for sequence in calibration.sequences]


@pytest.fixture(scope="module")
def train(llama64: ModelHandle, calibration: CalibrationSet):
    return together(llama64, rows_of(calibration, heldout=False))


@pytest.fixture(scope="module")
def heldout(llama64: ModelHandle, calibration: CalibrationSet):
    return together(llama64, rows_of(calibration, heldout=True))


@pytest.mark.parametrize("positions", ["all", "last"])
def test_streamed_distances_equal_the_dense_mean_over_positions(measurement64, states, positions):
    taken = slice(None) if positions == "all" else slice(-1, None)
    dense = torch.cat([cosine_distances(s.boundaries[:, taken]) for s in states], -1).mean(-1)
    found = measurement64.distances[positions]
    above = torch.ones_like(dense).triu(1).bool()
    torch.testing.assert_close(found.values[above], dense[above], rtol=1e-9, atol=1e-12)
    assert found.values.diagonal().tolist() == [0.0] * 7
    assert found.values[torch.ones_like(dense).tril(-1).bool()].isnan().all()
    assert found.n_tokens == sum(s.boundaries[:, taken].shape[1] for s in states)
    assert found.n_sequences == len(states)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_the_spread_is_the_standard_deviation_of_the_sequence_means(measurement64, states, positions):
    taken = slice(None) if positions == "all" else slice(-1, None)
    means = np.stack([cosine_distances(s.boundaries[:, taken]).mean(-1).numpy() for s in states])
    above = np.triu(np.ones((7, 7), dtype=bool), 1)
    np.testing.assert_allclose(measurement64.distances[positions].spread.numpy()[above], means.std(0, ddof=1)[above], rtol=1e-6)


def test_norms_are_means_over_all_tokens(measurement64, states):
    dense = torch.cat([s.boundaries for s in states], 1).norm(dim=-1).mean(1)
    torch.testing.assert_close(measurement64.norms, dense, rtol=1e-10, atol=0)


@pytest.mark.parametrize("span", [Span(1, 2), SPAN, Span(4, 6), Span(1, 6)], ids=str)
@pytest.mark.parametrize("method", ["least_squares", "weighted_least_squares"])
def test_streamed_moments_solve_to_the_dense_least_squares_solution(measurement64, train, span, method):
    written, target = train.writers[span.carrier], train.target(span.start, span.end)
    root = torch.ones(len(written), 1, dtype=torch.float64)
    if method == "weighted_least_squares":
        root = train.boundaries[span.end].norm(dim=-1, keepdim=True) ** -0.5
    dense = torch.linalg.lstsq(written * root, target * root).solution
    transform = fit(measurement64, span, method, ridge=0.0)
    assert (transform.matrix - dense).norm() < 1e-8 * dense.norm()


@pytest.mark.parametrize("method", ["least_squares", "weighted_least_squares", "drop"])
def test_reported_errors_are_the_dense_residuals_on_each_part(measurement64, train, heldout, method):
    transform = fit(measurement64, SPAN, method, None if method == "drop" else 1e-3)
    matrix = torch.eye(32, dtype=torch.float64) if transform.matrix is None else transform.matrix
    for part, found in ((train, transform.report.train_error), (heldout, transform.report.heldout_error)):
        target = part.target(SPAN.start, SPAN.end)
        weight = 1 / part.boundaries[SPAN.end].norm(dim=-1) if method == "weighted_least_squares" else torch.ones(target.shape[0])
        square = (part.writers[SPAN.carrier] @ matrix - target).square().sum(-1)
        assert found == pytest.approx(float((weight * square).sum() / (weight * target.square().sum(-1)).sum()), rel=1e-8)


def test_reported_cosines_are_those_of_the_patched_stream_on_the_sampled_heldout_tokens(measurement64, heldout):
    transform = fit(measurement64, SPAN, "least_squares", 1e-3)
    assert measurement64.sample.n_tokens == measurement64.n_heldout_tokens, "the sample must hold every held-out token here"
    end, beside = heldout.boundaries[SPAN.end], heldout.boundaries[SPAN.start] - heldout.writers[SPAN.carrier]
    cosine = torch.nn.functional.cosine_similarity
    patched = cosine(heldout.writers[SPAN.carrier] @ transform.matrix + beside, end, dim=-1).mean()
    assert transform.report.heldout_cosine == pytest.approx(float(patched), abs=1e-6)
    removed = cosine(heldout.boundaries[SPAN.start], end, dim=-1).mean()
    assert transform.report.removal_cosine == pytest.approx(float(removed), abs=1e-6)


def test_a_span_end_shifted_by_one_is_told_from_the_true_end(measurement64, train):
    """The dense comparison above would catch an off-by-one: the neighbouring ends give clearly different transforms."""
    transform = fit(measurement64, SPAN, "least_squares", ridge=0.0)
    for end in (SPAN.end - 1, SPAN.end + 1):
        shifted = torch.linalg.lstsq(train.writers[SPAN.carrier], train.target(SPAN.start, end)).solution
        assert (transform.matrix - shifted).norm() > 0.05 * shifted.norm()
    other_carrier = torch.linalg.lstsq(train.writers[SPAN.start], train.target(SPAN.start, SPAN.end)).solution
    assert (transform.matrix - other_carrier).norm() > 0.05 * other_carrier.norm()


def test_the_moments_of_two_halves_add_up_to_those_of_the_whole(llama64, calibration, measurement64):
    half = len(calibration.sequences) // 2

    def part(rows):
        return dataclasses.replace(calibration, sequences=calibration.sequences[rows], heldout=calibration.heldout[rows])

    parts = [measure(llama64, part(rows)) for rows in (slice(None, half), slice(half, None))]
    for key, whole in measurement64.moments.items():
        for side in ("train", "heldout"):
            total = getattr(parts[0].moments[key], side) + getattr(parts[1].moments[key], side)
            expected = getattr(whole, side)
            assert total.n_tokens == expected.n_tokens
            assert total.energy == pytest.approx(expected.energy, rel=1e-12)
            torch.testing.assert_close(total.gram, expected.gram, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(total.cross, expected.cross, rtol=1e-9, atol=1e-9)


def test_padded_batches_give_what_one_sequence_at_a_time_gives(llama64, calibration, measurement64, monkeypatch):
    monkeypatch.setattr("replaceme_core.calibration.batches._PADDING", 0.9)
    mixed = measure(llama64, calibration, again=True)
    assert mixed.padding_share > 0.2, "the batches must hold much padding for this test to say anything"
    monkeypatch.setattr("replaceme_core.measurement.needs.MOST_POSITIONS", 1)
    single = measure(llama64, calibration, again=True)
    assert single.padding_share == 0
    for other in (mixed, measurement64):
        for positions in ("all", "last"):
            torch.testing.assert_close(
                other.distances[positions].values, single.distances[positions].values, equal_nan=True, rtol=1e-9, atol=1e-12
            )
        for key, moments in single.moments.items():
            torch.testing.assert_close(other.moments[key].train.cross, moments.train.cross, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(other.moments[key].heldout.gram, moments.heldout.gram, rtol=1e-8, atol=1e-8)


def test_heldout_sequences_never_touch_the_train_moments(llama64, calibration):
    sequences = [s.flip(0) if out else s for s, out in zip(calibration.sequences, calibration.heldout, strict=True)]
    before = measure(llama64, calibration, spans=[SPAN]).moments[SPAN, "uniform"]
    after = measure(llama64, dataclasses.replace(calibration, sequences=sequences), spans=[SPAN]).moments[SPAN, "uniform"]
    torch.testing.assert_close(after.train.gram, before.train.gram, rtol=1e-12, atol=1e-12)
    assert after.train.energy == pytest.approx(before.train.energy, rel=1e-12)
    assert not torch.allclose(after.heldout.gram, before.heldout.gram, rtol=1e-3)
    assert before.train.n_tokens == calibration.n_tokens - calibration.n_heldout_tokens
    assert before.heldout.n_tokens == calibration.n_heldout_tokens


def test_the_token_sample_holds_heldout_tokens_only(measurement64, heldout, train):
    sampled = measurement64.sample.boundaries[3].double()
    nearest = torch.cdist(sampled, heldout.boundaries[3]).min(1).values
    assert float(nearest.max()) < 1e-4
    assert float(torch.cdist(sampled, train.boundaries[3]).min(1).values.median()) > 1e-2


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_a_model_of_one_or_two_blocks_is_measured(tmp_path, texts, n_blocks):
    handle = load(ModelSection(path=str(save_tiny(tmp_path, "llama", num_hidden_layers=n_blocks))))
    calibration = prepare(CalibrationSection(max_tokens=200), handle.tokenizer, texts, name="few")
    found = measure(handle, calibration)
    assert found.n_blocks == n_blocks
    assert found.distances["all"].values.shape == (n_blocks + 1, n_blocks + 1)
    assert found.spans() == ([] if n_blocks == 1 else [Span(1, 2)])


def test_moments_do_not_depend_on_how_the_tokens_are_cut_into_batches():
    generator = torch.Generator().manual_seed(2)
    boundaries, writers = (torch.randn(n, 50, 4, generator=generator, dtype=torch.float64) for n in (4, 3))
    out = torch.rand(50, generator=generator) < 0.3
    results = []
    for cuts in ([50], [1, 49], [20, 17, 13]):
        sums = MomentSums([Span(1, 3), Span(2, 3)], 4)
        for b, w, o in zip(boundaries.split(cuts, 1), writers.split(cuts, 1), out.split(cuts), strict=True):
            sums.update(b, w, o)
        results.append(sums.result())
    for other in results[1:]:
        for key, moments in results[0].items():
            torch.testing.assert_close(other[key].train.cross, moments.train.cross)
            assert other[key].heldout.energy == pytest.approx(moments.heldout.energy)


def test_sequences_and_batches_longer_than_one_chunk_give_the_same_sums(llama64, calibration, measurement64, monkeypatch):
    """Chunks of 3 tokens cut every sequence; products of 5 tokens cut every batch."""
    monkeypatch.setattr("replaceme_core.measurement.distances._CHUNK", 3 * 7 * 32)
    monkeypatch.setattr("replaceme_core.measurement.moments._ROWS", 5)
    cut = measure(llama64, calibration, again=True)
    assert max(calibration.lengths) > 9
    for positions in ("all", "last"):
        for field in ("values", "spread"):
            whole, pieces = (getattr(m.distances[positions], field) for m in (measurement64, cut))
            torch.testing.assert_close(pieces, whole, equal_nan=True, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(cut.norms, measurement64.norms, rtol=1e-12, atol=0)
    for key, moments in measurement64.moments.items():
        for part in ("train", "heldout"):
            torch.testing.assert_close(getattr(cut.moments[key], part).gram, getattr(moments, part).gram, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(getattr(cut.moments[key], part).cross, getattr(moments, part).cross, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("width", [1, 3, 4, 7, 33])
def test_a_gram_of_any_width_is_the_dense_one_and_exactly_symmetric(width):
    """Only its upper column blocks are summed; widths below and beside a multiple of their number."""
    generator = torch.Generator().manual_seed(width)
    boundaries, writers = (torch.randn(n, 50, width, generator=generator, dtype=torch.float64) for n in (3, 2))
    sums = MomentSums([Span(1, 2)], width)
    sums.update(boundaries, writers, torch.zeros(50, dtype=torch.bool))
    for weighting in ("uniform", "end_norm"):
        gram = sums.result()[Span(1, 2), weighting].train.gram
        weight = torch.ones(50, 1).double() if weighting == "uniform" else 1 / boundaries[2].norm(dim=-1, keepdim=True)
        torch.testing.assert_close(gram, (writers[0] * weight).T @ writers[0], rtol=1e-12, atol=1e-12)
        assert torch.equal(gram, gram.T)


def test_activations_that_are_not_finite_are_an_error_with_the_boundary_and_the_way_out(tmp_path, texts):
    from replaceme_core.errors import NumericsError

    handle = load(ModelSection(path=str(save_tiny(tmp_path, "llama"))))
    with handle.borrow() as model:
        model.model.layers[2].mlp.down_proj.weight[0, 0] = torch.inf
    calibration = prepare(CalibrationSection(max_tokens=200), handle.tokenizer, texts, name="few")
    with pytest.raises(NumericsError, match=r"boundary 3 are not finite .*Load the model in float32 or bfloat16"):
        measure(handle, calibration)
