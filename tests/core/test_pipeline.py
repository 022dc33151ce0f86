"""The whole method from a plan, and a run folder that is either whole or absent."""

import json
import os
import tempfile

import pytest
import torch
import yaml
from click.testing import CliRunner

from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.cli.main import main
from replaceme_core.errors import Cancelled, EvaluationError, ExportError, ModelError, NumericsError, OutOfMemoryError, SpanError
from replaceme_core.export import runs
from replaceme_core.measurement import past_passes
from replaceme_core.models.loading import load
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import ModelSection, PruningPlan, SpanSection
from replaceme_core.selection import criteria, spans
from replaceme_core.storage import folders
from tests.core.evaluation.test_evaluate import write_tasks


@pytest.fixture
def plan(llama_folder, texts_file):
    def make(**sections):
        data = {"model": {"path": str(llama_folder)}, "calibration": {"source": str(texts_file), "max_tokens": 600, "max_length": 32}}
        data |= {"span": {"start": 2, "end": 4}, "method": {"name": "weighted_least_squares"}}
        return PruningPlan.parse(data | sections)

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
        next(i for i, what in enumerate(stages) if phrase in what) for phrase in ("weights", "calibration", "exported", "KL", "benchmarks")
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


def test_a_share_is_fitted_after_one_pass_from_which_every_span_could_be(plan, tmp_path):
    done = pipeline.run(plan(span={"share": 0.5}), tmp_path / "run")
    assert done.variant.transform.span == spans.best(done.measurement.distances["all"], 3)
    assert len(done.measurement.spans()) == 15


@pytest.mark.parametrize("room", ["1", "0.000001"])
def test_a_plan_without_a_method_takes_the_recommended_one_which_reads_the_model_again_only_without_a_store(
    plan, tmp_path, monkeypatch, room
):
    read, calls = capture.read_calls, []
    monkeypatch.setattr(capture, "read_calls", lambda *given: (calls.append(given), read(*given))[1])
    monkeypatch.setenv(past_passes.LIMIT, room)
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "cache"))  # where no fit was made before
    done = pipeline.run(plan(method={}, span={"share": 0.5}), tmp_path / "run")
    assert bool(calls) == (room != "1")
    assert done.variant.transform.method == PruningPlan.read(tmp_path / "run" / "plan.yaml").method.name == "exchange_refit"
    assert done.variant.transform.weights


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


@pytest.mark.parametrize(
    "wrong", ["doc_to_text: '{{quest'", "doc_to_choice: nothing", "test_split: nowhere", "fewshot_split: nowhere\nnum_fewshot: 2"]
)
def test_benchmarks_that_cannot_be_asked_are_told_before_the_calibration_pass(plan, tmp_path, wrong):
    tasks, _ = write_tasks(tmp_path / "tasks")
    for path in tasks.glob("*.yaml"):
        keys = [line.partition(":")[0] for line in wrong.splitlines()]
        kept = [line for line in path.read_text().splitlines() if line.partition(":")[0] not in keys]
        path.write_text("\n".join([*kept, wrong, ""]))
    progress = Record()
    with pytest.raises(EvaluationError, match="could not be prepared"):
        pipeline.run(plan(evaluation={"tasks": str(tasks)}), tmp_path / "run", progress)
    assert not any("calibration" in what for *_, what in progress.seen)
    assert [path.name for path in tmp_path.iterdir()] == ["tasks"]


def failing(monkeypatch, error, whose="2:4"):
    """Benchmarks on models with `whose` in their name fail when they are asked."""
    from replaceme_core.evaluation.harness import Harness

    monkeypatch.setenv("REPLACEME_CACHE", tempfile.mkdtemp(prefix="replaceme-tests-"))  # nothing is known from another test
    ask = Harness.ask

    def asked(self, task, entry, number):
        if whose in self._handles[number].name:
            raise error
        return ask(self, task, entry, number)

    monkeypatch.setattr(Harness, "ask", asked)


def test_a_benchmark_that_fails_is_a_note_in_a_run_that_is_whole(plan, tmp_path, monkeypatch):
    tasks, _ = write_tasks(tmp_path / "tasks")
    failing(monkeypatch, EvaluationError("The benchmark 'toy' could not be run (OSError: gone)."))
    done = pipeline.run(plan(evaluation={"tasks": str(tasks), "limit": 3}), tmp_path / "run")
    sentence = f"The benchmarks on '{done.variant.name}' are missing: The benchmark 'toy' could not be run (OSError: gone)."
    assert done.missing == done.variant.missing == (sentence,)
    assert [scores.model for scores in done.scores] == [done.original.name]
    assert load(ModelSection(path=str(tmp_path / "run" / "model"))).fingerprint == done.variant.handle.fingerprint
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        report = json.loads((folder / "report.json").read_text())
        assert report["missing"] == [sentence]
        assert list(report["scores"]) == [done.original.name]
    assert sentence in (tmp_path / "run" / "model" / "README.md").read_text()
    (listed,) = runs.list_runs(tmp_path)
    assert listed.kl == done.comparison[1].kl
    assert listed.average is None, "the original's score is not the pruned model's"


def test_the_command_says_what_is_missing_and_ends_with_a_code_of_its_own(plan, tmp_path, monkeypatch):
    tasks, _ = write_tasks(tmp_path / "tasks")
    failing(monkeypatch, EvaluationError("It could not be run."), whose="")
    plan(evaluation={"tasks": str(tasks), "limit": 3}).write(tmp_path / "plan.yaml")
    done = CliRunner().invoke(main, ["run", "--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 3, done.output
    assert done.stderr.count("are missing: It could not be run.") == 2
    assert "but not all was measured" in done.stdout
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("error", [Cancelled("stopped"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_a_run_that_is_stopped_while_it_is_scored_keeps_its_model_and_says_so(plan, tmp_path, monkeypatch, error):
    tasks, _ = write_tasks(tmp_path / "tasks")
    failing(monkeypatch, error)
    with pytest.raises(type(error)):
        pipeline.run(plan(evaluation={"tasks": str(tasks), "limit": 3}), tmp_path / "run")
    assert os.listdir(tmp_path / "run" / "model")
    (missing,) = json.loads((tmp_path / "run" / "report.json").read_text())["missing"]
    assert "had not ended when this run was stopped" in missing
    assert f"replaceme evaluate --model {tmp_path / 'run' / 'model'} --tasks {tasks} --limit 3 --seed 1234" in missing
    assert missing in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_fault_of_ours_in_a_benchmark_is_a_note_with_its_words_and_the_run_is_whole(plan, tmp_path, monkeypatch):
    tasks, _ = write_tasks(tmp_path / "tasks")
    failing(monkeypatch, ValueError("a fault of ours"))
    done = pipeline.run(plan(evaluation={"tasks": str(tasks), "limit": 3}), tmp_path / "run")
    (missing,) = done.missing
    assert "are missing" in missing
    assert "a fault of ours" in missing
    assert len(done.scores) == 1
    assert os.listdir(tmp_path / "run" / "model")


def test_a_comparison_that_fails_is_a_note_too(plan, tmp_path, monkeypatch):
    def fail(*_):
        raise NumericsError("The logits are not finite.")

    monkeypatch.setattr(pipeline.compare, "divergence", fail)
    done = pipeline.run(plan(), tmp_path / "run")
    assert done.missing == ("The comparison with the original is missing: The logits are not finite.",)
    assert json.loads((tmp_path / "run" / "comparison.json").read_text()) == []
    assert json.loads((tmp_path / "run" / "report.json").read_text())["missing"] == list(done.missing)


def test_scores_that_cannot_be_written_are_told_and_the_run_stays_as_it_was(plan, tmp_path, monkeypatch):
    tasks, _ = write_tasks(tmp_path / "tasks")

    def full(*_):
        raise OSError(28, "No space left on device")

    scored = pipeline._scored
    monkeypatch.setattr(pipeline, "_scored", lambda *given: (scored(*given), monkeypatch.setattr(folders, "put", full))[0])
    done = pipeline.run(plan(evaluation={"tasks": str(tasks), "limit": 3}), tmp_path / "run")
    assert len(done.scores) == 2
    assert "could not be written into" in done.missing[0]
    assert "(No space left on device)" in done.missing[0]
    assert "had not ended" in json.loads((tmp_path / "run" / "report.json").read_text())["missing"][0]


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
    from tests.support.tiny_models import save_tiny

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
