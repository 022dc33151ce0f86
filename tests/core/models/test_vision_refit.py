"""Encoders of images: refits and several spans, and what is for text only."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from replaceme_core import refit
from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.cli.main import main
from replaceme_core.errors import ModelError, PlanError
from replaceme_core.surgery import surgery
from replaceme_core.surgery.checkpoint import require_rewritable
from tests.support.image_models import prepared


@pytest.mark.parametrize("method", ["refit", "sequential_refit", "weighted_least_squares"])
@pytest.mark.parametrize("cut", [Cut((Span(2, 4),)), Cut((Span(1, 2), Span(3, 4)))], ids=str)
def test_an_encoder_of_images_is_refitted_and_proved(clip: ModelHandle, images: Path, method: str, cut: Cut) -> None:
    fitted = refit.fit(clip, prepared(clip, images), cut, method)
    assert fitted.report.heldout_error < fitted.report.removal_error
    assert all(proof.passed for proof in surgery.prune(clip, fitted, "pruned").proofs)


def test_first_tokens_are_for_text(clip: ModelHandle, images: Path) -> None:
    with pytest.raises(PlanError, match="skip_first is for text"):
        prepared(clip, images, skip_first=True)


def test_a_spread_encoder_is_refused_in_a_sentence(clip: ModelHandle, clip_folder: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="reads images; such a model is not pruned quantised or spread"):
        require_rewritable(replace(clip, checkpoint=clip_folder))
    options = ["fit", "--model", str(clip_folder), "--calibration", str(images), "--span", "2:4", "--device", "spread"]
    done = CliRunner().invoke(main, [*options, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "Load it as it is, on one device" in done.output
