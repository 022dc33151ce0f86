"""The baselines' common interface, and the methods that only choose blocks, each against a second route."""

import pytest
import torch

from replaceme_core import baselines
from replaceme_core.artifacts import Measurement
from replaceme_core.baselines import BASELINES, Request, uidl
from replaceme_core.errors import InputError
from replaceme_core.export import export
from replaceme_core.models import fingerprints
from replaceme_core.models.running import capture
from tests.core.models.test_families import handle_of


@pytest.fixture(scope="module")
def three(llama, calibration) -> Request:
    return Request(llama, calibration, 3)


def states(request: Request) -> list[tuple[torch.Tensor, ...]]:
    """The stream at every boundary, one sequence after the other, so that nothing is padded."""
    found = []
    for sequence in request.calibration.sequences:
        with request.handle.borrow() as model:
            read = capture.read_states(model, request.handle.family, sequence.unsqueeze(0), None)
        found.append(tuple(state[0].double() for state in read.boundaries))
    return found


def test_uidl_is_an_exhaustive_search_over_the_angles_of_the_last_tokens(three):
    every = states(three)
    angles = []
    for start in range(4):
        total = 0.0
        for boundaries in every:
            a, b = boundaries[start][-1], boundaries[start + 3][-1]
            total += float(torch.arccos(a @ b / (a.norm() * b.norm()))) / torch.pi
        angles.append(total / len(every))
    assert uidl.angles(three).tolist() == pytest.approx(angles, abs=1e-6)
    best = min(range(1, 4), key=angles.__getitem__)
    made = baselines.prune("uidl", three)
    assert made.removed == tuple(range(best, best + 3))
    assert bool(made.notes) == (angles[0] < angles[best])


def test_the_simple_variant_takes_the_deepest_blocks_but_the_last(three):
    assert baselines.prune("uidl_simple", three).removed == (2, 3, 4)


def test_shortgpt_removes_the_blocks_that_turn_single_tokens_least(three):
    cosine, count = torch.zeros(6, dtype=torch.float64), 0
    for boundaries in states(three):
        for token in range(len(boundaries[0])):
            count += 1
            for block in range(6):
                a, b = boundaries[block][token], boundaries[block + 1][token]
                cosine[block] += a @ b / (a.norm() * b.norm())
    influence = (1 - cosine / count).tolist()
    made = baselines.prune("shortgpt", three)
    assert made.figures["influence"] == pytest.approx(influence, abs=1e-6)
    assert made.removed == tuple(sorted(sorted(range(1, 6), key=influence.__getitem__)[:3]))


def test_shortgpt_reads_the_pass_that_was_made(three, measurement):
    given = Request(three.handle, three.calibration, 3, measurement)
    assert baselines.prune("shortgpt", given).removed == baselines.prune("shortgpt", three).removed


def test_a_measurement_of_another_model_is_refused(three, measurement):
    import dataclasses

    foreign: Measurement = dataclasses.replace(measurement, model_fingerprint="another")
    with pytest.raises(InputError, match="another model"):
        baselines.prune("shortgpt", Request(three.handle, three.calibration, 3, foreign))


@pytest.mark.parametrize("name", [row.name for row in BASELINES.values() if row.kind == "depth"])
def test_a_baseline_gives_a_proved_model_and_leaves_the_original_as_it_was(name, three):
    before = three.handle.fingerprint
    made = baselines.prune(name, three)
    with three.handle.borrow() as model:
        assert fingerprints.of(model)[0] == before
    assert len(made.removed) == 3
    assert 0 not in made.removed
    assert made.handle.n_blocks == 3
    assert made.n_parameters_removed == three.handle.n_parameters - made.handle.n_parameters > 0
    assert {proof.name for proof in made.proofs} == {"merged = hooked", "cached = uncached", "shapes as in the original"}
    assert all(proof.passed for proof in made.proofs)
    assert made.training == BASELINES[name].training
    assert made.seconds > 0
    report = made.variant.transform.report
    assert 0 < report.heldout_error < 10
    assert report.n_tokens > report.n_heldout_tokens > 0
    if name.startswith(("uidl", "shortgpt", "sleb")):
        assert report.heldout_error == report.removal_error
        assert made.n_parameters_removed == three.n_parameters


@pytest.mark.parametrize("name", [row.name for row in BASELINES.values() if row.kind == "depth" and row.plain])
def test_a_plain_result_is_written_and_read_back(name, three, tmp_path):
    made = baselines.prune(name, three)
    proofs = export.export(made.variant, tmp_path / "out").proofs
    assert [proof.passed for proof in proofs if proof.name == "reload = memory"] == [True]


@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "gemma2", "mixtral", "bloom"])
@pytest.mark.parametrize("name", ["uidl", "shortgpt"])
def test_other_families_are_cut_and_proved_too(name, kind, calibration):
    handle = handle_of(kind)
    made = baselines.prune(name, Request(handle, calibration, 2))
    assert made.handle.n_blocks == handle.n_blocks - 2


def test_too_many_blocks_and_an_unknown_name_are_sentences(three):
    with pytest.raises(InputError, match="between 1 and 5 can"):
        baselines.prune("uidl", Request(three.handle, three.calibration, 6))
    with pytest.raises(InputError, match="between 1 and 4 can"):
        baselines.prune("uidl_simple", Request(three.handle, three.calibration, 5))
    with pytest.raises(InputError, match="choose one of uidl"):
        baselines.prune("nothing", three)


def test_a_shortened_set_keeps_sequences_of_both_parts(calibration):
    short = calibration.first(200)
    assert set(short.heldout) == {True, False}
    assert short.n_tokens <= 200
    assert set(calibration.first(2).heldout) == {True, False}


def test_the_table_names_a_paper_for_every_row():
    for row in BASELINES.values():
        data = row.to_data()
        assert data["method"] == row.name
        assert data["arxiv"].count(".") == 1
        assert data["reference"]
        assert len(data["description"]) < 120
