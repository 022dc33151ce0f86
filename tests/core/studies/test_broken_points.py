"""A point whose logits are not finite is reported as failed, and never ranked first, in the search, the sweep and the leaderboard."""

import dataclasses
import json

import pytest

from replaceme_core import pipeline
from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.plans.sweep_section import Sweep
from replaceme_core.studies import planner
from replaceme_core.studies.leaderboard import contestants, standing
from replaceme_core.studies.leaderboard import run as leaderboard
from replaceme_core.studies.planner import Aim
from replaceme_core.studies.sweep import run as sweep
from replaceme_core.studies.sweep.points import front
from replaceme_core.surgery import surgery
from tests.support.broken import broken

SAID = "are not finite (NaN or infinity)"


@pytest.fixture
def overflowing(monkeypatch):
    """Every cut of three blocks is made as it should be, and then overflows on text, as in float16; the proofs passed."""
    prune = surgery.prune

    def made(original: ModelHandle, transform, *rest):
        variant = prune(original, transform, *rest)
        return dataclasses.replace(variant, handle=broken(variant.handle)) if len(transform.cut) == 3 else variant

    monkeypatch.setattr(surgery, "prune", made)


@pytest.mark.usefixtures("overflowing")
def test_the_search_notes_it_and_ranks_the_others(llama, calibration, measurement):
    found = planner.search(llama, calibration, measurement, Aim((0.2, 0.5), 2, criteria=("distance",)))
    assert [point.candidate.n_removed for point in found.points] == [1, 1]
    assert len(found.front) == 1
    assert len(found.notes) == 2
    assert all(SAID in note and " failed: " in note for note in found.notes)


@pytest.mark.usefixtures("overflowing")
def test_a_sweep_keeps_its_sentence_and_the_front_goes_without_it(llama, llama_folder, texts, tmp_path):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    asked = Sweep.parse(
        {
            "model": {"path": str(llama_folder)},
            "calibration": {"source": str(tmp_path / "texts.jsonl"), "max_tokens": 600, "max_length": 32},
            "methods": ["drop"],
            "cuts": {"spans": [[2, 4], [2, 5]]},
            "measure": {"test_tokens": 100, "speed": False},
        },
        "sweep",
    )
    found = sweep.run_on(llama, pipeline.prepare_for(llama, asked.calibration), asked, tmp_path / "sweep")
    good, bad = sorted(found.results, key=lambda result: len(result.planned.cut))
    assert bad.planned.cut == Cut((Span(2, 5),))
    assert SAID in bad.error
    assert bad.quality is None
    assert good.quality.part == "test"
    assert front(found.made) == {good.planned.key}
    assert [point.cut for point in found.left] == [bad.planned.cut]


@pytest.mark.usefixtures("overflowing")
def test_a_row_of_the_leaderboard_says_why_it_has_no_figure(llama, calibration, monkeypatch):
    monkeypatch.setattr(standing, "TIMING", standing.Timing(8, 2, 1))
    aim = leaderboard.Aim(tuple(contestants.find(["drop"])), (0.5,), None)
    original, row = leaderboard.run(llama, calibration, calibration.test_text(100), aim)
    assert original["kl"] == 0
    assert SAID in row["error"]
    assert "kl" not in row
