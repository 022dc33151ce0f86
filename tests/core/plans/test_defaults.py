"""What a plan leaves out follows the model, and what it names stays."""

import copy
import dataclasses

import pytest
import yaml

from replaceme_core import pipeline
from replaceme_core.dry_run import dry_run
from replaceme_core.models.loading import as_stored, load
from replaceme_core.plans.defaults import RECOMMENDED, Facts, calibration_for, method_for, sources_for, tokens_for
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection, PruningPlan
from replaceme_core.plans.sweep_section import Sweep

SMALL = Facts("owner/name", 576, 1536, is_chat=True)


@pytest.mark.parametrize(
    ("path", "is_chat", "sources"),
    [
        ("demo", False, ("demo:mixture", None)),
        ("smollm2", True, ("smollm2:chats", "smollm2:prose")),
        ("owner/chat", True, ("self:chats", "self:prose")),
        ("/a/base/model", False, ("self:prose", None)),
    ],
)
def test_the_text_is_never_the_demos_for_a_foreign_model(path, is_chat, sources):
    assert sources_for(path, is_chat) == sources
    filled = calibration_for(CalibrationSection(), Facts(path, 64, 128, is_chat))
    assert (filled.source, filled.second, filled.second_share) == (*sources, 0.5)
    mixed = calibration_for(CalibrationSection.parse({"second": "a.jsonl"}), Facts(path, 64, 128, is_chat))
    assert (mixed.source, mixed.second) == (sources[0], "a.jsonl")


def test_ten_tokens_for_every_unknown_are_left_to_fit():
    for unknowns in (576, 1536, 4096, 14336):
        for holdout in (0.1, 0.3):
            tokens = tokens_for(unknowns, holdout)
            assert 10 * unknowns <= (1 - holdout) * tokens < 10 * unknowns + 512
    assert tokens_for(8, 0.1) == 4096
    assert calibration_for(CalibrationSection(), SMALL).max_tokens == tokens_for(576, 0.1) == 6656
    refit = calibration_for(CalibrationSection(), SMALL, [MethodSection(), MethodSection(name="refit")])
    assert refit.max_tokens == tokens_for(1536, 0.1) == 17408
    assert calibration_for(CalibrationSection(), dataclasses.replace(SMALL, path="demo")).max_tokens == 16384


def test_the_recommended_method_is_a_refit_where_weights_can_be_solved_and_nothing_was_said():
    left_out = MethodSection()
    assert method_for(left_out, True, 1536, "exact").name == RECOMMENDED == "exchange_refit"
    assert method_for(left_out, False, 1536, "exact").name == "weighted_least_squares"
    assert method_for(left_out, True, 14336, "exact").name == "weighted_least_squares"
    for said in ({"name": "weighted_least_squares"}, {"ridge": 0.1}, {"structure": "diagonal"}, {"separate": True}):
        assert method_for(MethodSection.parse(said), True, 1536, "exact") == MethodSection.parse(said)
    assert method_for(MethodSection(attention=True), True, 1536, "exact").name == "exchange_refit"


def test_where_only_a_diagonal_merges_least_squares_have_that_structure_unless_another_was_said():
    for said in ({}, {"name": "least_squares"}, {"ridge": 0.1}):
        assert method_for(MethodSection.parse(said), False, 1536, "diagonal") == MethodSection.parse(said | {"structure": "diagonal"})
        assert method_for(MethodSection.parse(said), False, 1536, "exact") == MethodSection.parse(said)
    for said in ({"structure": "full"}, {"separate": True}, {"name": "cosine"}, {"name": "drop"}):
        assert method_for(MethodSection.parse(said), False, 1536, "diagonal") == MethodSection.parse(said)


def test_what_is_named_stays_though_it_is_what_the_schema_gives():
    named = CalibrationSection.parse({"source": "demo:mixture", "max_tokens": 16384})
    assert calibration_for(named, SMALL) is named
    alone = calibration_for(CalibrationSection.parse({"source": "a.jsonl"}), SMALL)
    assert (alone.source, alone.second) == ("a.jsonl", None)


def test_a_plan_that_names_a_model_a_text_and_a_share_runs_and_says_what_it_took(llama_folder, texts, tmp_path):
    """The recipe names everything, so that it repeats the run whatever the defaults become."""
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    data = {"model": {"path": str(llama_folder)}, "calibration": {"source": str(tmp_path / "texts.txt")}, "span": {"share": 0.267}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data))
    plan = PruningPlan.read(tmp_path / "plan.yaml")
    done = pipeline.run(plan, tmp_path / "out")
    written = PruningPlan.read(tmp_path / "out" / "plan.yaml")
    assert (written.model.dtype, written.calibration.max_tokens) == ("float32", 4096)
    assert written.calibration.source == str(tmp_path / "texts.txt")
    assert len(done.variant.transform.span) == 2
    assert done.variant.recipe["calibration"]["max_tokens"] == 4096
    assert dry_run(plan).calibration_tokens == 4096


def test_a_plan_without_text_lets_a_foreign_model_write_its_own(llama, llama_folder):
    assert pipeline.filled(CalibrationSection(), llama, str(llama_folder)).source == "self:prose"
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.chat_template = "{{ messages }}"
    filled = pipeline.filled(CalibrationSection(), dataclasses.replace(llama, tokenizer=tokenizer), "x")
    assert (filled.source, filled.second) == ("self:chats", "self:prose")


def test_the_dtype_is_that_of_the_checkpoint_unless_it_is_named_and_the_demos_is_float32(wide):
    folder = str(wide("llama", "bfloat16"))
    assert as_stored(ModelSection(path=folder)).dtype == "bfloat16"
    assert as_stored(ModelSection(path=folder, dtype="float32")).dtype == "float32"
    assert as_stored(ModelSection(path="demo")).dtype == "float32"
    plan = PruningPlan.parse({"model": {"path": folder}, "span": {"start": 2, "end": 4}})
    assert dry_run(plan).weights_bytes == 2 * dry_run(plan).n_parameters
    assert load(as_stored(plan.model)).dtype == "bfloat16"


def test_a_sweep_file_keeps_a_default_that_was_named():
    """Written without it, the sweep that goes on would take the dtype of the checkpoint."""
    named = {"model": {"path": "x", "dtype": "float32"}, "calibration": {"max_tokens": 16384}, "cuts": {"spans": [[2, 4]]}}
    again = Sweep.parse(yaml.safe_load(Sweep.parse(named).to_yaml()))
    assert "dtype" in again.model.model_fields_set
    assert "max_tokens" in again.calibration.model_fields_set
    assert "source" not in again.calibration.model_fields_set
