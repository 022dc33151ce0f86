"""What a pass leaves on the disk: every token at every point, found again, bounded, and whole or not there at all."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
import torch

from replaceme_core import solvers
from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError
from replaceme_core.measurement import needs, past_passes
from replaceme_core.measurement.activation_store import Layout
from replaceme_core.measurement.measure import measure
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import MethodSection, PruningPlan
from replaceme_core.refit import requirements
from replaceme_core.refit.walk import NEAR
from replaceme_core.storage.folders import unnamed
from tests.support.dense import together

SPAN = Span(2, 5)


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "cache"))
    return past_passes.folder()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(left, right) -> None:
    """All that two measurements hold, to the last bit."""
    for name in ("n_tokens", "n_heldout_tokens", "padding_share", "calibration_name", "calibration_fingerprint", "model_fingerprint"):
        assert getattr(left, name) == getattr(right, name), name
    assert torch.equal(left.norms, right.norms)
    assert all(torch.equal(each, other) for each, other in zip(vars(left.lengths).values(), vars(right.lengths).values(), strict=True))
    for name, matrix in left.distances.items():
        assert torch.equal(matrix.values.nan_to_num(-1), right.distances[name].values.nan_to_num(-1))
        assert torch.equal(matrix.spread.nan_to_num(-1), right.distances[name].spread.nan_to_num(-1))
        assert (matrix.n_tokens, matrix.n_sequences) == (right.distances[name].n_tokens, right.distances[name].n_sequences)
    for weighting in ("uniform", "end_norm"):
        one, other = left.moments[SPAN, weighting], right.moments[SPAN, weighting]
        assert torch.equal(one.train.gram, other.train.gram)
        assert torch.equal(one.heldout.cross, other.heldout.cross)
    assert torch.equal(left.sample.origin, right.sample.origin)
    assert torch.equal(left.train_sample.writers[1], right.train_sample.writers[1])


def test_every_stored_token_is_that_of_a_forward_pass_of_its_sequence_alone(llama64: ModelHandle, calibration: CalibrationSet) -> None:
    sample = measure(llama64, calibration).train_sample
    assert sample.origin is not None
    assert list(sample.boundaries) == [0, 1, 2, 3, 4, 5, 6]
    assert list(sample.writers) == [0, 1, 2, 3, 4]
    for sequence in sample.origin[:, 0].unique()[::7].tolist():
        rows, alone = sample.origin[:, 0] == sequence, together(llama64, [calibration.sequences[sequence]])
        places = sample.origin[rows, 1]
        for at in (0, 3, 6):
            torch.testing.assert_close(sample.boundaries[at][rows], alone.boundaries[at][places].float(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(sample.writers[4][rows], alone.writers[4][places].float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weighting", ["uniform", "end_norm"])
def test_moments_of_all_spans_at_once_are_those_of_one_at_a_time_and_of_all_states_in_memory(llama64, calibration, weighting) -> None:
    moments = measure(llama64, calibration).moments
    rows = together(llama64, [s for s, out in zip(calibration.sequences, calibration.heldout, strict=True) if not out])
    spans = [Span(start, end) for start in range(1, 6) for end in range(start + 1, 7)]
    found = dict(moments.of_many(spans, weighting))
    assert list(found) == spans
    for span in spans:
        written, target = rows.writers[span.carrier], rows.target(span.start, span.end)
        weight = (
            1 / rows.boundaries[span.end].norm(dim=-1, keepdim=True) if weighting == "end_norm" else torch.ones(len(target), 1).double()
        )
        train = found[span].train
        assert train.n_tokens == len(target)
        torch.testing.assert_close(train.gram, (weight * written).T @ written, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(train.cross, (weight * written).T @ target, rtol=1e-12, atol=1e-12)
        assert train.energy == pytest.approx(float((weight * target.square()).sum()), rel=1e-12)
        assert torch.equal(moments[span, weighting].train.gram, train.gram)


def test_a_pass_is_found_again_with_all_that_it_measured(llama64, calibration, empty, monkeypatch) -> None:
    made = measure(llama64, calibration)
    assert len(kept(empty)) == 1
    monkeypatch.setattr(capture, "read_states", lambda *_args, **_options: pytest.fail("the model was run"))
    again = measure(llama64, calibration)
    same(again, made)
    assert again.seconds == made.seconds, "those of the pass itself"
    few = measure(llama64, calibration, spans=[SPAN])
    assert few.spans() == made.spans(), "a pass that stored more serves what asks for less"
    assert solvers.fit(few, SPAN, "least_squares").report.heldout_error == solvers.fit(made, SPAN, "least_squares").report.heldout_error


def test_a_pass_that_stored_one_span_does_not_serve_another(llama64, calibration, empty) -> None:
    few = measure(llama64, calibration, spans=[SPAN])
    assert few.spans() == [SPAN]
    assert (list(few.sample.boundaries), list(few.sample.writers)) == ([2, 5], [1])
    with pytest.raises(InputError, match=r"did not store what a fit of the span 2:4 reads"):
        solvers.fit(few, Span(2, 4), "least_squares")
    with pytest.raises(InputError, match=r"stored its tokens at 2, 5 only, and not at boundary 4\. Measure again with the span"):
        few.sample.boundaries[4]
    other = measure(llama64, calibration, spans=[Span(2, 4)])
    assert other.spans() == [Span(2, 4)]
    assert measure(llama64, calibration, spans=[]).n_tokens == few.n_tokens
    assert len(kept(empty)) == 2, "a pass for distances alone is found in any"


def test_another_model_other_text_and_another_split_are_other_passes(llama, llama64, calibration, empty) -> None:
    measure(llama64, calibration, spans=[])
    for handle, tokens in (
        (llama, calibration),
        (llama64, dataclasses.replace(calibration, fingerprint="of other tokens")),
        (llama64, calibration.beginning(20)),
    ):
        before = len(kept(empty))
        measure(handle, tokens, spans=[])
        assert len(kept(empty)) == before + 1


def test_another_split_other_first_tokens_and_another_cut_of_the_same_text_are_other_passes_by_themselves(calibration) -> None:
    """A set of one's own may have any fingerprint; what a pass was made of is told apart without it."""
    row, *rest = calibration.sequences[1:]
    moved = [torch.cat([calibration.sequences[0], row[:3]]), row[3:], *rest]
    assert torch.equal(torch.cat(moved), torch.cat(calibration.sequences))
    changes = ({}, {"heldout": [not out for out in calibration.heldout]}, {"skip_first": True}, {"sequences": moved})
    assert len({past_passes.key_of("a model", dataclasses.replace(calibration, **change)) for change in changes}) == len(changes)


def test_a_store_holds_a_span_only_with_its_carrier() -> None:
    """Both ends of 4:5 are ends of 2:4 and 3:5."""
    both = Layout.of(6, 32, "float32", 10, [Span(2, 4), Span(3, 5)])
    assert both.holds(Layout.of(6, 32, "float32", 10, [Span(3, 4)]))
    assert not both.holds(Layout.of(6, 32, "float32", 10, [Span(4, 5)]))


@pytest.mark.parametrize("damage", ["short", "header", "distances"])
def test_a_pass_that_was_damaged_on_the_disk_is_made_again(llama64, calibration, empty, damage) -> None:
    made = measure(llama64, calibration)
    same(made, made)  # what is compared below is read before the damage
    path = next(empty.iterdir())
    if damage == "short":
        os.truncate(path / "rows.bin", 1000)
    else:
        (path / ("pass.json" if damage == "header" else "distances.safetensors")).write_bytes(b"{]")
    same(measure(llama64, calibration), made)
    assert len(kept(empty)) == 1
    assert (next(empty.iterdir()) / "rows.bin").stat().st_size > 1000


def test_a_full_disk_costs_the_fits_and_not_the_distances(llama64, calibration, empty, monkeypatch) -> None:
    whole, written = measure(llama64, calibration, again=True), count()
    real = os.pwrite

    def full(*arguments):
        if next(written) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    before = kept(empty)
    monkeypatch.setattr(os, "pwrite", full)
    poor = measure(llama64, calibration, again=True)
    assert torch.equal(poor.distances["all"].values.nan_to_num(-1), whole.distances["all"].values.nan_to_num(-1))
    assert poor.spans() == []
    with pytest.raises(InputError, match=r"could not be stored \(the disk became full.*Free space, or use fewer tokens"):
        solvers.fit(poor, SPAN, "least_squares")
    assert kept(empty) == before


def test_a_pass_without_room_says_so_before_it_and_writes_nothing(llama64, calibration, empty, monkeypatch) -> None:
    monkeypatch.setenv(past_passes.LIMIT, "0.0001")
    poor = measure(llama64, calibration)
    assert poor.distances["all"].n_tokens == calibration.n_tokens
    assert "there is room for 0 MiB" in poor.lacking
    assert "REPLACEME_STORE_GIB" in poor.lacking
    assert kept(empty) == []


def test_passes_that_were_not_used_for_longest_go_first_and_stay_readable_where_they_are_open(
    llama64, calibration, empty, monkeypatch
) -> None:
    sets = [dataclasses.replace(calibration, fingerprint=name) for name in ("first", "second", "third", "fourth")]
    first = measure(llama64, sets[0])
    size = sum(path.stat().st_blocks * 512 for path in next(empty.iterdir()).iterdir())
    measure(llama64, sets[1])
    for age, path in enumerate(sorted(empty.iterdir(), key=lambda path: path.stat().st_mtime)):
        os.utime(path, (1000 + age, 1000 + age))
    measure(llama64, sets[0])  # used again: now the second one is the older
    monkeypatch.setenv(past_passes.LIMIT, str(3.5 * size / 2**30))
    measure(llama64, sets[2])
    monkeypatch.setenv(past_passes.LIMIT, str(2.5 * size / 2**30))
    measure(llama64, sets[3])
    keys = {name: past_passes.key_of(llama64.fingerprint, each) for name, each in zip("abcd", sets, strict=True)}
    assert {name for name, key in keys.items() if list(empty.glob(f"{key}-*"))} in ({"a", "d"}, {"c", "d"})
    monkeypatch.setenv(past_passes.LIMIT, str(1.5 * size / 2**30))
    measure(llama64, dataclasses.replace(calibration, fingerprint="fifth"))
    assert not list(empty.glob(f"{keys['a']}-*"))
    assert first.moments[Span(3, 5), "uniform"].train.n_tokens > 0, "its file is open"


_KILLED = """
import os, signal, sys
from replaceme_core import pipeline
from replaceme_core.measurement.measure import measure
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection

handle = load(ModelSection(path=sys.argv[1]))
tokens = pipeline.prepare_for(handle, CalibrationSection(source="demo:mixture", max_tokens=4000, max_length=64))
measure(handle, tokens, watch=lambda so_far: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_pass_leaves_no_half_and_its_rest_is_removed_by_the_next(llama_folder, llama64, calibration, empty) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(llama_folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = kept(empty)
    assert len(left) == 1
    assert left[0].startswith(".")
    measure(llama64, calibration, spans=[])
    assert len(kept(empty)) == 1
    assert not kept(empty)[0].startswith(".")


def test_two_that_make_one_pass_at_the_same_time_both_have_it(llama64, calibration, empty) -> None:
    first = measure(llama64, calibration, again=True)
    second = measure(llama64, calibration, again=True)  # its name is taken when it ends
    assert len(kept(empty)) == 1
    same(first, second)


def test_a_pass_that_another_process_is_writing_is_never_removed_for_room(llama64, calibration, empty, monkeypatch) -> None:
    """It is hidden and locked; a third process that needs room leaves it alone, also where it is the oldest."""
    measure(llama64, calibration)
    with unnamed(empty) as writing:
        (writing / "rows.bin").write_bytes(bytes(2**20))
        os.utime(writing, (1000, 1000))
        size = past_passes.held()[1]
        monkeypatch.setenv(past_passes.LIMIT, str(1.5 * size / 2**30))
        measure(llama64, dataclasses.replace(calibration, fingerprint="of another set"))
        assert (writing / "rows.bin").stat().st_size == 2**20
        past_passes.clear()
        assert writing.is_dir()


def test_passes_that_begin_while_others_make_room_are_not_taken_for_leftovers(empty) -> None:
    """Two that write pass after pass, named or given up, beside two that look for leftovers all the time."""
    n_rounds = 400

    def write(number: int) -> None:
        for at in range(n_rounds):
            pass_ = empty / f"{number}-{at}"
            with unnamed(empty) as writing:
                (writing / "rows.bin").write_bytes(bytes(100))
                if at % 2:
                    writing.rename(pass_)
            assert (pass_ / "rows.bin").is_file() == bool(at % 2)
            if at % 4 == 1:
                past_passes._remove(pass_)

    def make_room() -> None:
        while not all(each.done() for each in writers):
            past_passes.make_room(0)
            past_passes.held()

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        for each in [*writers, *(pool.submit(make_room) for _ in range(2))]:
            each.result()
    assert len(kept(empty)) == 2 * n_rounds // 4


@pytest.mark.parametrize("given", ["much", "nan", "inf"])
def test_a_limit_that_is_no_number_is_a_sentence(llama64, calibration, monkeypatch, given) -> None:
    monkeypatch.setenv(past_passes.LIMIT, given)
    with pytest.raises(InputError, match=f"REPLACEME_STORE_GIB is '{given}', which is no number of GiB"):
        measure(llama64, calibration)


def test_a_cache_that_cannot_be_written_is_done_without(llama64, calibration, tmp_path, monkeypatch) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "a file"))
    found = measure(llama64, calibration)
    assert found.lacking == ""
    assert found.moments[SPAN, "uniform"].train.n_tokens > 0


def asked(span: dict[str, object], **method: object) -> PruningPlan:
    return PruningPlan.parse({"model": {"path": "x"}, "span": span, "method": method})


def test_a_plan_stores_what_it_reads_its_span_all_of_them_or_nothing() -> None:
    named, share = {"start": 2, "end": 5}, {"share": 0.25}
    assert needs.spans_of(asked(named, name="least_squares"), 12) == [SPAN]
    assert needs.spans_of(asked({"start": 4, "end": 5, "more": [[2, 4]]}, name="least_squares"), 12) == [SPAN], "they touch"
    assert needs.spans_of(asked(share, name="cosine"), 12) is None
    assert needs.spans_of(asked(share, name="refit"), 12) == []
    assert needs.spans_of(asked(share | {"criterion": "missed"}, name="refit"), 12) is None
    assert needs.reads_moments(MethodSection(name="drop"))


def test_a_plan_that_runs_the_model_stores_the_stream_that_it_will_read() -> None:
    named, share = {"start": 4, "end": 7}, {"share": 0.25}
    assert max(*requirements._LOOKAHEADS, *NEAR.values()) <= needs._AHEAD, "a refit begins no earlier"
    assert list(needs.boundaries_of(asked(named, name="least_squares"), 12)) == []
    assert list(needs.boundaries_of(asked(named, name="local_refit"), 12)) == list(range(1, 13))
    assert list(needs.boundaries_of(asked(named, name="sequential_refit", lookahead=3), 12)) == list(range(13))
    assert list(needs.boundaries_of(asked(named | {"more": [[9, 10]]}, name="least_squares"), 12)) == list(range(1, 13))
    assert list(needs.boundaries_of(asked(named | {"more": [[7, 8]]}, name="least_squares"), 12)) == [], "they touch: one span"
    assert list(needs.boundaries_of(asked({"start": 9, "end": 10, "more": [[4, 7]]}, name="refit"), 12)) == list(range(1, 13))
    assert list(needs.boundaries_of(asked(share, name="refit"), 12)) == list(range(13))
    assert list(needs.boundaries_of(asked(share, name="least_squares"), 12)) == []


def test_the_bytes_of_a_store_are_those_of_its_points() -> None:
    """At the shape of an 8B model, 32 blocks of width 4,096 in bfloat16."""
    assert Layout.of(32, 4096, "bfloat16", 16384).n_bytes == 64 * 4096 * 2 * 16384
    assert Layout.of(32, 4096, "bfloat16", 16384, [Span(20, 28)]).n_bytes == 3 * 4096 * 2 * 16384
    assert Layout.of(32, 4096, "bfloat16", 16384, []).n_bytes == 0
    assert needs.positions(32, 4096) == 504
    assert needs.positions(12, 128) == needs.MOST_POSITIONS
