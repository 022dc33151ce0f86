"""A pass that somebody looks at: what it shows on the way, and what it leaves where it is ended early."""

from dataclasses import replace

import pytest
import torch

from replaceme_core.artifacts import Measurement, ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.errors import InputError
from replaceme_core.measurement.measure import SoFar, measure
from replaceme_core.plans.plan import CalibrationSection


@pytest.fixture(scope="module")
def longer(llama64: ModelHandle, texts: list[str]) -> CalibrationSet:
    """Some 3,000 tokens in several stretches."""
    rows = [" ".join(reversed(f"{text} {number}".split())) for number in range(3) for text in texts]
    return prepare(CalibrationSection(max_tokens=3000, max_length=32), llama64.tokenizer, rows, name="random words")


def ended(handle: ModelHandle, calibration: CalibrationSet, after: int) -> tuple[Measurement, list[SoFar]]:
    """A pass of which somebody has enough after so many stretches, and what was seen of it."""
    seen: list[SoFar] = []

    def watch(so_far: SoFar) -> bool:
        seen.append(so_far)
        return len(seen) >= after

    return measure(handle, calibration, watch=watch, again=True), seen


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12, equal_nan=True)


def same(left: Measurement, right: Measurement) -> None:
    """Distances, norms, sums and stored tokens, to the rounding of another order of adding up."""
    assert (left.n_tokens, left.n_heldout_tokens) == (right.n_tokens, right.n_heldout_tokens)
    assert (left.calibration_name, left.calibration_fingerprint) == (right.calibration_name, right.calibration_fingerprint)
    close(left.norms, right.norms)
    for positions, matrix in left.distances.items():
        other = right.distances[positions]
        assert (matrix.n_tokens, matrix.n_sequences) == (other.n_tokens, other.n_sequences)
        close(matrix.values, other.values)
        close(matrix.spread, other.spread)
    assert left.spans() == right.spans() != []
    for key, found in left.moments.items():
        for part in ("train", "heldout"):
            one, other = getattr(found, part), getattr(right.moments[key], part)
            assert one.n_tokens == other.n_tokens > 0
            close(one.gram, other.gram)
            close(one.cross, other.cross)
            assert one.energy == pytest.approx(other.energy, rel=1e-10)
    for part in ("sample", "train_sample"):
        one, other = ordered(getattr(left, part)), ordered(getattr(right, part))
        assert torch.equal(one[0], other[0])
        torch.testing.assert_close(one[1], other[1], rtol=1e-5, atol=1e-5)  # stored in float32


def ordered(sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the stored tokens stand, in order, and their states at boundary 3."""
    order = sorted(range(sample.n_tokens), key=lambda at: sample.origin[at].tolist())
    return sample.origin[order], sample.boundaries[3][order]


def test_a_pass_that_is_ended_early_is_the_pass_over_the_sequences_it_has_read(llama64: ModelHandle, longer: CalibrationSet) -> None:
    early, seen = ended(llama64, longer, after=2)
    read = early.distances["all"].n_sequences
    assert len(seen) == 2
    assert seen[-1].can_end
    assert 512 <= early.n_tokens == sum(longer.lengths[:read]) < longer.n_tokens
    assert early.calibration_fingerprint != longer.fingerprint
    same(early, measure(llama64, longer.beginning(read), again=True))


def test_a_pass_that_is_only_looked_at_is_the_pass(llama64: ModelHandle, longer: CalibrationSet) -> None:
    watched, seen = ended(llama64, longer, after=99)
    assert len(seen) > 2
    same(watched, measure(llama64, longer, again=True))


def test_what_is_seen_on_the_way_are_the_distances_of_what_was_read_until_then(llama64: ModelHandle, longer: CalibrationSet) -> None:
    _, seen = ended(llama64, longer, after=99)
    counts = [each.measurement.n_tokens for each in seen]
    assert 512 <= counts[0] < 512 + 32, "the first picture after 512 tokens, and one sequence at most"
    assert counts == sorted(set(counts))
    for each in (seen[0], seen[-1]):
        shown = each.measurement
        whole = measure(llama64, longer.beginning(shown.distances["all"].n_sequences), spans=[], again=True)
        assert (each.n_tokens, shown.n_tokens, shown.n_heldout_tokens) == (longer.n_tokens, whole.n_tokens, whole.n_heldout_tokens)
        close(shown.distances["all"].values, whole.distances["all"].values)
        close(shown.distances["last"].spread, whole.distances["last"].spread)
        close(shown.norms, whole.norms)
        assert shown.spans() == []


def test_a_pass_goes_on_until_there_is_something_to_check_a_fit_on(llama64: ModelHandle, longer: CalibrationSet) -> None:
    late = [number > 60 for number in range(len(longer.sequences))]
    early, seen = ended(llama64, replace(longer, heldout=late), after=1)
    assert not seen[0].can_end
    assert len(seen) > 1
    assert seen[-1].can_end
    assert early.n_heldout_tokens > 0
    assert early.n_tokens < longer.n_tokens
    never, _ = ended(llama64, replace(longer, heldout=[*[False] * (len(longer.sequences) - 1), True]), after=1)
    assert never.n_tokens == longer.n_tokens


def test_a_plan_names_what_an_ended_pass_has_read(llama64: ModelHandle, texts: list[str]) -> None:
    section = CalibrationSection(max_tokens=1200, max_length=32)
    whole = prepare(section, llama64.tokenizer, texts, name="words")
    first = prepare(section.model_copy(update={"first_sequences": 30}), llama64.tokenizer, texts, name="words")
    assert [each.tolist() for each in first.sequences] == [each.tolist() for each in whole.sequences[:30]]
    assert first.fingerprint == whole.beginning(30).fingerprint != whole.fingerprint
    assert first.name == "words, first 30 sequences"
    assert [each.tolist() for each in first.test] == [each.tolist() for each in whole.test]
    assert whole.beginning(10_000) is whole
    one_part = next(n for n in range(1, 99) if len(set(whole.heldout[: n + 1])) == 2)
    with pytest.raises(InputError, match=r"all of one part.*first_sequences"):
        whole.beginning(one_part)
