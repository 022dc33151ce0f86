"""By what a span is chosen: the path against a loop over blocks, what a fit misses against single tokens, and where it falls back."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.selection import correlations, regrets
from replaceme_core import pipeline, solvers
from replaceme_core.artifacts import Measurement, Span
from replaceme_core.errors import NumericsError
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import MethodSection, PruningPlan, SpanSection
from replaceme_core.selection import criteria, spans
from tests.core.models.test_families import handle_of
from tests.support.family_configs import random_tokens


def every(n_blocks, length):
    return [Span(start, start + length) for start in range(1, n_blocks - length + 1)]


@pytest.mark.parametrize("positions", ["all", "last"])
def test_the_path_is_the_sum_of_the_angles_of_single_blocks(measurement, positions):
    distances = measurement.distances[positions]
    matrix, note = criteria.rank(measurement, 2, "path", positions)
    assert note == ""
    for length in range(1, 6):
        for span in every(6, length):
            cosines = [1 - float(distances.values[block, block + 1]) for block in span.blocks]
            assert matrix.at(span) == pytest.approx(math.fsum(math.acos(c) / math.pi for c in cosines), rel=1e-12)
            spreads = [
                float(distances.spread[b, b + 1]) / math.pi / math.sqrt(1 - c * c) for b, c in zip(span.blocks, cosines, strict=True)
            ]
            assert float(matrix.spread[span.start, span.end]) == pytest.approx(math.fsum(spreads), rel=1e-9)
    assert matrix.values.tril(-1)[1, 0].isnan()


def test_the_path_counts_a_detour_that_leads_back(measurement):
    """Turned by 90 degrees and back: the distance is 0, the path is two quarter turns, that is half a turn each over pi."""
    values = torch.tensor(
        [[0, 0.3, 1, 1], [torch.nan, 0, 1.0, 0], [torch.nan, torch.nan, 0, 1.0], [torch.nan] * 3 + [0]], dtype=torch.float64
    )
    square = replace(measurement.distances["all"], values=values, spread=torch.zeros_like(values))
    assert square.at(Span(1, 3)) == 0
    assert spans.path(square).at(Span(1, 3)) == pytest.approx(1.0)


def test_a_block_that_changes_nothing_has_a_path_of_0_and_no_spread(measurement):
    still = torch.zeros(3, 3, dtype=torch.float64)
    found = spans.path(replace(measurement.distances["all"], values=still, spread=still))
    assert found.at(Span(1, 2)) == 0
    assert float(found.spread[1, 2]) == 0


def test_what_the_fit_misses_is_the_mean_square_by_length_over_the_held_out_tokens(measurement64):
    """Against the stored held-out tokens, which on this small set are all of them."""
    assert measurement64.sample.n_tokens == measurement64.n_heldout_tokens
    matrix, note = criteria.rank(measurement64, 2, "missed")
    assert note == ""
    for span in every(6, 2):
        transform = solvers.fit(measurement64, span, MethodSection())
        states, written = measurement64.sample.boundaries, measurement64.sample.writers[span.carrier].double()
        start, end = states[span.start].double(), states[span.end].double()
        patched = start - written + written @ transform.matrix
        share = ((patched - end).square().sum(-1) / end.norm(dim=-1)).mean() / measurement64.norms[span.end]
        assert matrix.at(span) == pytest.approx(float(share), rel=1e-4)  # the sample is float32
    assert matrix.values[1, 2].isnan(), "of another length"


def test_a_diagonal_transform_misses_more_than_a_full_one(measurement):
    full, diagonal = (criteria.rank(measurement, 3, "missed", structure=s)[0] for s in ("full", "diagonal"))
    assert all(full.at(span) < diagonal.at(span) for span in every(6, 3))


def test_missed_falls_back_on_the_distance_and_says_so_where_the_pass_stored_too_little(llama, calibration, measurement):
    kept = measure(llama, calibration, spans=[Span(1, 3), Span(2, 4)], again=True)
    section = SpanSection(share=0.34, criterion="missed")
    span, note = criteria.of_share(kept, section)
    assert span == spans.best(kept.distances["all"], 2)
    assert "2 of the 4 spans of 2 block(s) are not stored: the distance chose instead." in note
    assert criteria.of_share(measurement, section)[1] == ""


@pytest.mark.parametrize("criterion", ["distance", "path", "missed"])
@pytest.mark.parametrize("method", ["drop", "weighted_least_squares"])
def test_a_run_chooses_by_the_criterion_of_its_plan(llama_folder, texts, tmp_path, criterion, method):
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    data = {
        "model": {"path": str(llama_folder)},
        "calibration": {"source": str(tmp_path / "texts.txt"), "max_tokens": 600, "max_length": 32},
    }
    plan = PruningPlan.parse(data | {"span": {"share": 0.34, "criterion": criterion}, "method": {"name": method}})
    done = pipeline.run(plan, tmp_path / "run")
    matrix, _ = criteria.rank(done.measurement, 2, criterion)
    assert done.variant.transform.span == min(every(6, 2), key=matrix.at)
    assert not [note for note in done.variant.transform.report.notes if "distance chose" in note]


def test_a_run_whose_disk_has_no_room_notes_that_the_distance_chose_and_a_refit_is_made(llama_folder, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("REPLACEME_STORE_GIB", "0.0001")
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    section = {"source": str(tmp_path / "texts.txt"), "max_tokens": 601, "max_length": 32}
    data = {"model": {"path": str(llama_folder)}, "calibration": section, "span": {"share": 0.34, "criterion": "missed"}}
    done = pipeline.run(PruningPlan.parse(data | {"method": {"name": "refit"}}), tmp_path / "run")
    assert any("the distance chose instead" in note for note in done.variant.transform.report.notes)


def silenced(blocks: list[int]) -> Measurement:
    """Of a model in which the MLPs of these blocks write zeros, as in the copied blocks of LLaMA Pro."""
    handle = replace(handle_of("llama"), fingerprint=f"silenced {blocks}")
    with handle.borrow() as model, torch.no_grad():
        for block in blocks:
            for parameter in model.model.layers[block].mlp.down_proj.parameters():
                parameter.zero_()
    return measure(handle, random_tokens(3))


def test_a_block_whose_mlp_writes_zeros_takes_the_value_from_its_own_spans_alone():
    found = silenced([2])
    errors, (missed, note) = solvers.error_map(found, "weighted_least_squares"), criteria.rank(found, 2, "missed")
    assert note == ""
    for span in found.spans():
        assert bool(errors[span.start, span.end].isnan()) == (span.carrier == 2)
    for span in every(6, 2):
        assert math.isnan(missed.at(span)) == (span.carrier == 2)
        if span.carrier != 2:
            own = solvers.fit(found, span, MethodSection()).report.heldout_error
            assert float(errors[span.start, span.end]) == pytest.approx(own, rel=1e-9)
    assert spans.best(missed, 2).carrier != 2
    assert spans.top(missed, 2, 5)[-1][0].carrier == 2
    assert solvers.error_map(found, "drop")[3, 5] > 0


def test_where_nothing_can_be_fitted_anywhere_the_reason_is_said():
    found = silenced(list(range(6)))
    with pytest.raises(NumericsError, match="writes only zeros"):
        solvers.error_map(found, "least_squares")
    with pytest.raises(NumericsError, match="writes only zeros"):
        criteria.rank(found, 2, "missed")


def test_regret_and_correlation_of_a_case_worked_by_hand():
    """Four spans of one block with KL 1, 2, 3, 4 and two of two blocks with 6, 9; the criterion picks the second and the first."""
    import pandas as pd

    rows = pd.DataFrame({"length": [1, 1, 1, 1, 2, 2], "kl": [1.0, 2.0, 3.0, 4.0, 6.0, 9.0], "c": [2.0, 1.0, 3.0, 4.0, 5.0, 6.0]})
    assert regrets(rows, "c", "kl").to_dict() == {1: 2.0, 2: 1.0}
    assert regrets(rows, "c", "kl", k=2).to_dict() == {1: 1.0, 2: 1.0}
    found = correlations(rows, "c", "kl")
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (6 * 35))
    assert found["kendall"] == pytest.approx(13 / 15)
    assert found["spearman within"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found["kendall within"] == pytest.approx(4 / 6)
