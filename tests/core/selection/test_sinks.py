"""Attention sinks: lengths of single tokens by a second route, spans that make or end a sink, and the suggestion that leaves them."""

from dataclasses import replace

import pytest
import torch

from replaceme_core import pipeline
from replaceme_core.artifacts import ModelHandle, Span, StreamLengths
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import MethodSection, SpanSection
from replaceme_core.selection import criteria, sinks, spans


def lengths(largest: list[float], typical: float = 10.0) -> StreamLengths:
    found = torch.tensor(largest, dtype=torch.float64)
    return StreamLengths(torch.full_like(found, typical), found, found)


def test_lengths_are_those_of_the_single_tokens(llama64: ModelHandle, calibration: CalibrationSet) -> None:
    found = measure(llama64, calibration, spans=[]).lengths
    with llama64.borrow() as model:
        states = [capture.read_states(model, llama64.family, s[None], None).boundaries for s in calibration.sequences]
    for boundary in range(llama64.n_blocks + 1):
        norms = [each[boundary][0].norm(dim=-1) for each in states]
        every = torch.cat(norms)
        assert float(found.largest[boundary]) == pytest.approx(float(every.max()), rel=1e-9)
        assert float(found.typical[boundary]) == pytest.approx(float(every.log().mean().exp()), rel=1e-9)
        assert float(found.first[boundary]) == pytest.approx(float(torch.stack([n[0] for n in norms]).mean()), rel=1e-9)


def test_a_span_that_makes_or_ends_a_sink_names_the_block_and_others_are_left_alone() -> None:
    found = lengths([12, 15, 20, 2000, 2000, 1900, 40])
    made = sinks.change(found, Span(1, 4))
    assert made is not None
    assert (made.block, made.makes, made.before, made.after) == (2, True, 15, 2000)
    assert "Block 2, which is to go, makes an attention sink: the longest token grows from 15 to 2,000" in made.sentence
    ended = sinks.change(found, Span(4, 6))
    assert ended is not None
    assert (ended.block, ended.makes) == (5, False)
    assert "ends an attention sink" in ended.sentence
    assert sinks.change(found, Span(3, 5)) is None
    assert sinks.change(found, Span(1, 2)) is None
    assert sinks.changes(found, [Span(1, 2), Span(2, 3)]) == (sinks.change(found, Span(2, 3)),)


def test_a_stream_that_grows_as_a_whole_has_no_sink_and_a_little_jump_is_none() -> None:
    grows = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    assert sinks.change(StreamLengths(grows, 2 * grows, 2 * grows), Span(1, 2)) is None
    assert sinks.change(lengths([10, 10, 90]), Span(1, 2)) is None, "not ten times as long as the typical token"
    assert sinks.change(lengths([10, 30, 110]), Span(1, 2)) is None, "not four times as long as before"


@pytest.fixture
def with_sink(llama: ModelHandle) -> ModelHandle:
    """The tiny model; what its block 2 writes for the first token of every sequence is made 300 times as long."""

    def longer(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, 0] *= 300 * 12
        return output

    with llama.borrow() as model:
        hook = blocks_of(model, llama.family)[2].mlp.register_forward_hook(longer)
    yield llama
    hook.remove()


def test_the_suggestion_leaves_the_block_that_makes_the_sink_where_the_distance_takes_it(
    with_sink: ModelHandle, calibration: CalibrationSet
) -> None:
    found = measure(with_sink, calibration)
    assert float(found.lengths.largest[3]) > 10 * float(found.lengths.typical[3])
    tempting = found.distances["all"].values.clone()
    tempting[2, 4] = 0.0
    found = replace(found, distances=found.distances | {"all": replace(found.distances["all"], values=tempting)})
    by_distance, _ = criteria.of_share(found, SpanSection(share=0.34, criterion="distance"))
    suggested, note = criteria.of_share(found, SpanSection(share=0.34))
    assert (by_distance, note) == (Span(2, 4), "")
    assert 2 not in suggested.blocks
    kept = sinks.kept(found)
    assert kept.at(Span(2, 4)) == pytest.approx(sinks.PENALTY)
    assert kept.at(suggested) == found.distances["all"].at(suggested)
    assert all(2 not in span.blocks for span in criteria.several(found, SpanSection(share=0.34, count=2)).spans)
    assert spans.best(kept, 2) == suggested


def test_a_fit_says_what_its_span_does_to_a_sink(with_sink: ModelHandle, calibration: CalibrationSet) -> None:
    found = measure(with_sink, calibration)
    for method in ("drop", "weighted_least_squares"):
        section = MethodSection(name=method)
        taken, left = (pipeline.fit(with_sink, calibration, found, span, section).report.notes for span in (Span(2, 4), Span(4, 6)))
        assert any("Block 2, which is to go, makes an attention sink" in note for note in taken)
        assert not any("attention sink" in note for note in left)
