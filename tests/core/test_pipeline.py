"""The whole method from a plan, and a run folder that is either whole or absent."""

import json
import os

import pytest
import torch
import yaml

from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.errors import Cancelled, EvaluationError, ExportError, ModelError, OutOfMemoryError, SpanError
from replaceme_core.export import runs
from replaceme_core.measurement.moments import bytes_of
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection, PruningPlan, SpanSection
from replaceme_core.selection import criteria, spans
from tests.core.evaluation.test_evaluate import write_tasks


@pytest.fixture
def plan(llama_folder, texts_file):
    def make(**sections):
        data = {"model": {"path": str(llama_folder)}, "calibration": {"source": str(texts_file), "max_tokens": 600, "max_length": 32}}
        return PruningPlan.parse(data | {"span": {"start": 2, "end": 4}} | sections)

    return make


class Record:
    """Keeps every report; raises `error` when a phrase comes up."""

    def __init__(self, stop_at=None, error=Cancelled):
        self.seen, self._stop_at, self._error = [], stop_at, error

    def update(self, done, total, unit, what):
        self.seen.append((done, total, unit, what))
        if self._stop_at and self._stop_at in what:
            raise self._error("stopped by the test")


def test_a_run_does_every_stage_and_its_folder_is_whole(plan, tmp_path):
    tasks, _ = write_tasks(tmp_path / "tasks")
    progress = Record()
    done = pipeline.run(plan(evaluation={"tasks": str(tasks), "batch_size": 4}), tmp_path / "runs" / "first", progress)
    assert done.folder == tmp_path / "runs" / "first"
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"plan.yaml", "report.json", "comparison.json", "scores.json", "model"}
    assert os.listdir(tmp_path / "runs") == ["first"], "no temporary folder may stay"
    assert PruningPlan.read(done.folder / "plan.yaml") == plan(evaluation={"tasks": str(tasks), "batch_size": 4})
    assert done.variant.transform.span == Span(2, 4)
    assert next(row.kl for row in done.comparison) == 0.0
    assert done.comparison[1].kl > 0
    assert [scores.model for scores in done.scores] == [done.original.name, done.variant.name]
    report = json.loads((done.folder / "report.json").read_text())
    assert report["scores"][done.variant.name]["results"] == done.scores[1].to_data()["results"]
    reloaded = load(ModelSection(path=str(done.folder / "model")))
    assert reloaded.fingerprint == done.variant.handle.fingerprint
    stages = [what for *_, what in progress.seen]
    order = [
        next(i for i, what in enumerate(stages) if phrase in what) for phrase in ("weights", "calibration", "KL", "benchmarks", "exported")
    ]
    assert order == sorted(order)


def test_the_comparison_uses_only_text_that_neither_fit_nor_choice_has_read(plan, tmp_path, monkeypatch):
    prepared, compared = [], []
    prepare_for, divergence = pipeline.prepare_for, pipeline.compare.divergence
    monkeypatch.setattr(pipeline, "prepare_for", lambda *given: prepared.append(prepare_for(*given)) or prepared[-1])
    monkeypatch.setattr(pipeline.compare, "divergence", lambda *given: compared.append(given) or divergence(*given))
    done = pipeline.run(plan(), tmp_path / "run")
    text = compared[0][2]
    assert text.part == "test"
    assert {(row.part, row.n_sequences, row.n_tokens) for row in done.comparison} == {
        ("test", len(text.sequences), text.n_tokens - len(text.sequences))
    }
    read = "|".join(" ".join(map(str, sequence.tolist())) for sequence in prepared[0].sequences)
    assert not [s for s in text.sequences if " ".join(map(str, s.tolist())) in read]
    said = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert {row["part"] for row in said} == {"test"}


def test_a_run_on_a_text_without_a_test_part_says_that_it_compared_nothing(plan, tmp_path):
    section = plan().calibration.model_dump() | {"test_tokens": 0}
    done = pipeline.run(plan(calibration=section), tmp_path / "run")
    assert done.comparison == []
    assert any(note.startswith("Nothing was compared.") and "raise test_tokens" in note for note in done.variant.transform.report.notes)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_a_share_of_depth_becomes_the_span_of_least_distance(plan, tmp_path, measurement, positions):
    section = SpanSection(share=0.34, positions=positions)
    assert criteria.of_share(measurement, section) == (spans.best(measurement.distances[positions], 2), "")
    done = pipeline.run(plan(span={"share": 0.34, "positions": positions}), tmp_path / "run")
    assert (done.variant.transform.span, "") == criteria.of_share(done.measurement, section)


@pytest.mark.parametrize(
    ("kept", "passes"), [(bytes_of([Span(1, 4), Span(2, 5), Span(3, 6)], 32, ["end_norm"]), 1), (0, 2)], ids=["length", "none"]
)
def test_a_share_is_fitted_also_where_the_budget_does_not_hold_all_spans(plan, tmp_path, kept, passes):
    """Half the depth, where 'auto' alone would keep a quarter; in a second pass where not even one length fits."""
    progress = Record()
    section = plan().calibration.model_dump() | {"budget_gib": (2 * kept + 1) / 2**30}
    done = pipeline.run(plan(span={"share": 0.5}, calibration=section), tmp_path / "run", progress)
    assert done.variant.transform.span == spans.best(done.measurement.distances["all"], 3)
    assert len(done.measurement.spans()) == (3 if passes == 1 else 1)
    n = done.measurement.n_tokens
    assert sum(what == "calibration pass" and seen == n for seen, _, _, what in progress.seen) == passes


def test_two_runs_of_one_plan_give_the_same_transform_and_figures(plan, tmp_path):
    first, again = (pipeline.run(plan(), tmp_path / name) for name in ("first", "again"))
    assert torch.equal(first.variant.transform.matrix, again.variant.transform.matrix)
    assert first.comparison == again.comparison


@pytest.mark.parametrize("method", ["drop", "least_squares", "weighted_least_squares"])
def test_every_basic_method_runs_from_a_plan(plan, tmp_path, method):
    done = pipeline.run(plan(method={"name": method}), tmp_path / "run")
    assert done.variant.transform.method == method
    assert (done.folder / "model" / "config.json").is_file()


@pytest.mark.parametrize("phase", ["tokenizer", "calibration", "KL", "reading them back"])
@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt, MemoryError])
def test_a_run_stopped_in_any_phase_leaves_no_folder(plan, tmp_path, phase, error):
    progress = Record(stop_at=phase, error=error)
    with pytest.raises(OutOfMemoryError if (phase, error) == ("calibration", MemoryError) else error):
        pipeline.run(plan(), tmp_path / "run", progress)
    assert any(phase in what for *_, what in progress.seen)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_late_leaves_no_folder_either(plan, tmp_path):
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    with pytest.raises(EvaluationError):
        pipeline.run(plan(evaluation={"tasks": str(tasks)}), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["tasks"]


def test_an_existing_run_folder_is_refused_before_any_work(plan, tmp_path):
    (tmp_path / "run").mkdir()
    progress = Record()
    with pytest.raises(ExportError, match="exists already; choose another name or remove it first"):
        pipeline.run(plan(), tmp_path / "run", progress)
    assert progress.seen == []


def test_a_run_folder_that_cannot_be_made_is_an_error_before_any_work(plan, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="cannot be written"):
        pipeline.run(plan(), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("sections", "error"), [({"span": {"start": 4, "end": 9}}, SpanError), ({"model": {"path": "/no/such/folder"}}, ModelError)]
)
def test_a_plan_that_does_not_fit_the_model_leaves_no_folder(plan, tmp_path, sections, error):
    with pytest.raises(error):
        pipeline.run(plan(**sections), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_span_that_does_not_fit_is_told_before_the_calibration_pass(plan, tmp_path):
    progress = Record()
    with pytest.raises(SpanError):
        pipeline.run(plan(span={"start": 4, "end": 9}), tmp_path / "run", progress)
    assert not any("calibration" in what for *_, what in progress.seen)


def test_a_model_of_one_block_is_refused_in_words(tmp_path, texts_file):
    from tests.conftest import save_tiny

    folder = save_tiny(tmp_path / "one", "llama", num_hidden_layers=1)
    data = {"model": {"path": str(folder)}, "calibration": {"source": str(texts_file), "max_tokens": 300}, "span": {"share": 0.5}}
    with pytest.raises(SpanError) as caught:
        pipeline.run(PruningPlan.parse(data), tmp_path / "run")
    assert "between 1 and 0" not in str(caught.value)


def test_the_history_lists_whole_runs_newest_first(plan, tmp_path):
    folder = tmp_path / "runs"
    for index, name in enumerate(("older", "newer")):
        pipeline.run(plan(), folder / name)
        os.utime(folder / name / "report.json", (1000 + index, 1000 + index))
    for name, text in (("empty", None), ("broken", "{"), ("foreign", "{}"), ("list", "[]")):
        (folder / name).mkdir()
        if text is not None:
            (folder / name / "report.json").write_text(text)
    found = runs.list_runs(folder)
    assert [summary.folder.name for summary in found] == ["newer", "older"]
    assert (found[0].span, found[0].method, found[0].modified) == (Span(2, 4), "weighted_least_squares", 1001.0)
    assert 0 < found[0].heldout_error < 1.5


def test_the_history_leaves_out_runs_that_are_still_being_written(plan, tmp_path):
    """A killed process leaves its temporary folder behind, report.json and all."""
    pipeline.run(plan(), tmp_path / "whole")
    (tmp_path / "whole").rename(tmp_path / ".first.writing")
    assert runs.list_runs(tmp_path) == []


def test_the_history_of_a_folder_that_is_not_there_is_empty(tmp_path):
    assert runs.list_runs(tmp_path / "none") == []


def test_a_plan_that_is_written_is_plain_yaml_without_python(plan):
    text = plan().to_yaml()
    assert "!!" not in text
    assert yaml.safe_load(text) == plan().to_data()
