"""The intact stream of a refit read from the activation store is the one that the model computes, and so is what a block makes of it."""

import pytest
import torch

from replaceme_core import refit
from replaceme_core.artifacts import Cut, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.running import capture
from replaceme_core.progress import SILENT
from replaceme_core.refit.streams import Streams
from tests.core.models.test_families import MERGEABLE, handle_of
from tests.support.family_configs import random_tokens

SPAN = Span(2, 4)


@pytest.fixture(scope="module")
def tokens() -> CalibrationSet:
    return random_tokens(3)


@pytest.mark.parametrize("name", MERGEABLE)
def test_stored_streams_and_calls_are_the_models_own(name: str, tokens: CalibrationSet) -> None:
    handle = handle_of(name)
    store = measure(handle, tokens).store
    stored, computed = (Streams(handle, tokens, 1, {SPAN.start, SPAN.end}, 6, SILENT, each) for each in (store, None))
    assert stored._store is not None, "no family calls its blocks with what the blocks before them computed"
    with handle.borrow() as model, torch.no_grad():
        blocks = blocks_of(model, handle.family)
        for one, other in zip(stored.batches, computed.batches, strict=True):
            for at, stream in other.at.items():
                torch.testing.assert_close(one.at[at][one.real], stream[other.real], rtol=1e-4, atol=1e-5)
            for number in range(1, 6):
                mine, own = (each.run(batch, blocks[number], number, other.intact) for each, batch in ((stored, one), (computed, other)))
                assert torch.equal(mine, own), number
    stored.advance_intact(list(blocks), 1, 5)
    computed.advance_intact(list(blocks), 1, 5)
    for one, other in zip(stored.batches, computed.batches, strict=True):
        torch.testing.assert_close(one.intact[one.real], other.intact[other.real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["refit", "sequential_refit"])
def test_a_refit_from_the_store_is_the_refit_and_runs_no_block_for_the_intact_stream(llama64, calibration, method, monkeypatch) -> None:
    store = measure(llama64, calibration).store
    plain = refit.fit(llama64, calibration, SPAN, method)
    computed: list[int] = []
    real = capture.Call.run
    with llama64.borrow() as model:
        intact = [id(block) for block in blocks_of(model, llama64.family)]
    monkeypatch.setattr(capture.Call, "run", lambda call, block, *rest: computed.append(id(block)) or real(call, block, *rest))
    found = refit.fit(llama64, calibration, SPAN, method, store=store)
    runs = [computed.count(block) for block in intact]
    assert all(n <= 2 for at, n in enumerate(runs) if at != SPAN.carrier), "only the few tokens on which both ways are tried"
    assert runs[SPAN.carrier] > 2, "the report of what is cut runs the carrier"
    assert found.weights.keys() == plain.weights.keys()
    for name, weight in plain.weights.items():
        torch.testing.assert_close(found.weights[name], weight, rtol=1e-8, atol=1e-10)
    assert found.report.heldout_error == pytest.approx(plain.report.heldout_error, rel=1e-9)


def test_a_store_of_other_tokens_is_not_read(llama64, calibration) -> None:
    store = measure(llama64, calibration.beginning(20)).store
    assert Streams(llama64, calibration, 1, {2, 4}, 4, SILENT, store)._store is None
    few = measure(llama64, calibration, spans=[Span(3, 5)], again=True).store
    assert Streams(llama64, calibration, 1, {2, 4}, 4, SILENT, few)._store is None, "it holds other boundaries"


def test_a_refit_of_several_spans_reads_the_store_too(llama64, calibration) -> None:
    cut = Cut.of([Span(1, 2), Span(4, 5)])
    store = measure(llama64, calibration).store
    plain, found = (refit.fit(llama64, calibration, cut, "refit", store=each) for each in (None, store))
    for name, weight in plain.weights.items():
        torch.testing.assert_close(found.weights[name], weight, rtol=1e-8, atol=1e-10)
