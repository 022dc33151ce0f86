"""The verdict on a second text: the better of fit and removal, by KL, in a sentence; and that a run's report holds it."""

import json
from dataclasses import replace

import pytest
import torch

from replaceme_core import pipeline, solvers
from replaceme_core.artifacts import LinearTransform, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet, plain_prose
from replaceme_core.comparison import compare, second_text
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.plans.plan import PruningPlan
from replaceme_core.surgery import surgery

SPAN = Span(2, 4)


@pytest.fixture(scope="module")
def systems(llama: ModelHandle, calibration: CalibrationSet) -> dict[str, ModelHandle]:
    """A fit, plain removal, and a transform that turns what the carrier writes around and makes it thirty times as long."""
    measurement = measure(llama, calibration)
    fit, removal = (solvers.fit(measurement, SPAN, method) for method in ("weighted_least_squares", "drop"))
    bad = replace(fit, matrix=-30 * torch.eye(llama.width, dtype=torch.float64))

    def made(transform: LinearTransform) -> ModelHandle:
        return surgery.prune(llama, transform, "x").handle

    return {"removal": made(removal), "fit": made(fit), "bad": made(bad)}


def test_a_fit_that_is_worse_than_removal_is_called_so_with_what_to_do(llama: ModelHandle, systems: dict[str, ModelHandle]) -> None:
    better, said = second_text.verdict(llama, systems["bad"], systems["removal"])
    assert not better
    assert "is WORSE than plain removal there" in said
    assert "max_tokens" in said
    better, said = second_text.verdict(llama, systems["removal"], systems["bad"])
    assert better
    assert said.endswith("the fit carries over.")


def test_its_figures_are_those_of_the_comparison_on_the_prose(llama: ModelHandle, systems: dict[str, ModelHandle]) -> None:
    text = plain_prose(llama.tokenizer, second_text.TOKENS)
    assert 0 < text.n_counted <= second_text.TOKENS
    _, fit, removal = compare.divergence(llama, [systems["fit"], systems["removal"]], text)
    _, said = second_text.verdict(llama, systems["fit"], systems["removal"])
    assert f"KL {fit.kl:.3f}" in said
    assert f"removed without a transform {removal.kl:.3f}" in said
    assert "plain English prose" in said


def test_a_model_without_finite_logits_is_the_worse_one(
    llama: ModelHandle, systems: dict[str, ModelHandle], calibration: CalibrationSet
) -> None:
    broken = surgery.prune(llama, solvers.fit(measure(llama, calibration), SPAN, "weighted_least_squares"), "broken").handle
    with broken.borrow() as model, torch.no_grad():
        carrier = blocks_of(model, broken.family)[SPAN.carrier].mlp.down_proj
        carrier.weight = torch.nn.Parameter(torch.full_like(carrier.weight, torch.nan), requires_grad=False)
    better, said = second_text.verdict(llama, broken, systems["removal"])
    assert not better
    assert "the fitted model fails" in said
    better, said = second_text.verdict(llama, systems["fit"], broken)
    assert better
    assert "no finite logits" in said


def test_a_runs_report_says_it(llama_folder, texts_file, tmp_path) -> None:
    plan = PruningPlan.parse(
        {
            "model": {"path": str(llama_folder)},
            "calibration": {"source": str(texts_file), "max_tokens": 600, "max_length": 32},
            "span": {"start": 2, "end": 4},
        }
    )
    pipeline.run(plan, tmp_path / "out")
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["report"]["notes"]
    assert [note for note in notes if note.startswith("On a second text, unlike the calibration set (")]
