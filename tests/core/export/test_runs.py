"""The history: what a folder says of its run, healed ones and several spans too, and two runs side by side."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from replaceme_core.errors import InputError
from replaceme_core.export import runs
from replaceme_core.span import Cut, Span
from replaceme_core.storage import folders
from tests.core.cli.test_cli import inside, strict

REPORT = {"name": "tiny, 2:4", "span": [2, 4], "more": [], "method": "least_squares", "report": {"heldout_error": 0.25}}
HEALING = {
    "kind": "lora",
    "best": 20,
    "points": [{"step": 0, "heldout": 0.5}, {"step": 20, "heldout": 0.125}, {"step": 40, "heldout": 0.25}],
}
COMPARISON = [{"kl": 0.0}, {"kl": 0.2, "kl_low": 0.1, "kl_high": 0.3, "perplexity": 7.5, "n_tokens": 500}]


def written(folder, report=None, comparison=None, plan="model: {path: demo}\n"):
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(REPORT | (report or {})))
    (folder / "plan.yaml").write_text(plan)
    if comparison is not None:
        (folder / "comparison.json").write_text(json.dumps(comparison))
    return folder


def test_a_run_shows_its_kl_with_its_interval_and_all_its_spans(tmp_path):
    written(tmp_path / "run", {"more": [[5, 6]]}, COMPARISON)
    (run,) = runs.list_runs(tmp_path)
    assert run.cut == Cut((Span(2, 4), Span(5, 6)))
    assert (run.kl, run.kl_low, run.kl_high, run.perplexity, run.n_tokens, run.healed) == (0.2, 0.1, 0.3, 7.5, 500, None)
    assert (run.quality, run.model) == (0.2, "demo")


def test_a_healed_run_shows_what_the_healing_reached(tmp_path):
    written(tmp_path / "with", {"healing": HEALING}, COMPARISON)
    written(tmp_path / "without", {"healing": HEALING})
    written(tmp_path / "in vain", {"healing": HEALING | {"best": 0}})
    found = {run.folder.name: run for run in runs.list_runs(tmp_path)}
    assert (found["with"].healed, found["with"].quality) == (0.125, 0.2), "what was exported was measured after the training"
    assert (found["without"].healed, found["without"].quality) == (0.125, 0.125)
    assert (found["in vain"].healed, found["in vain"].quality) == (None, None)


def test_the_average_of_a_run_is_the_pruned_models(tmp_path):
    folder = written(tmp_path / "run")
    (folder / "scores.json").write_text(json.dumps([{"model": "original", "average": 0.7}, {"model": REPORT["name"], "average": 0.6}]))
    assert runs.read_run(folder).average == 0.6
    (folder / "scores.json").write_text(json.dumps([{"model": "original", "average": 0.7}]))
    assert runs.read_run(folder).average is None, "it was not asked"


def test_the_list_is_the_same_for_people_and_for_programs(tmp_path):
    for index, name in enumerate(("old", "new")):
        folder = written(tmp_path / name, {"healing": HEALING}, COMPARISON)
        os.utime(folder / "report.json", (1000 + index, 1000 + index))
    assert [run["folder"] for run in strict(inside("runs", "list", "--folder", tmp_path, "--json").stdout)] == [
        str(tmp_path / name) for name in ("new", "old")
    ]
    lines = inside("runs", "list", "--folder", tmp_path).stdout.splitlines()
    assert len(lines) == 2
    assert "2:4" in lines[0]
    assert "least_squares, healed (training)" in lines[0]
    assert "KL 0.2000" in lines[0]
    assert inside("runs", "list", "--folder", tmp_path / "none").stdout == "no runs yet\n"


def test_runs_side_by_side_show_what_their_plans_do_not_share(tmp_path):
    first = written(tmp_path / "a", None, COMPARISON, "model: {path: demo}\nmethod: {name: drop}\n")
    second = written(tmp_path / "b", None, None, "model: {path: demo}\nmethod: {name: refit, attention: true}\n")
    data = strict(inside("runs", "compare", first, second, "--json").stdout)
    assert data["differences"] == {"method.name": ["drop", "refit"], "method.attention": [None, True]}
    lines = inside("runs", "compare", first, second).stdout.splitlines()
    assert any(line.split() == ["plan:", "method.name", "drop", "refit"] for line in lines)
    with pytest.raises(InputError, match="is not a whole run or export"):
        runs.read_run(tmp_path)


def test_the_checkpoint_of_a_stopped_healing_stays_until_it_is_asked_for(tmp_path):
    (tmp_path / ".run.healing").mkdir()
    assert inside("runs", "clean", "--folder", tmp_path, "--yes").stdout == "nothing to clean\n"
    assert runs.checkpoints(tmp_path) == [tmp_path / ".run.healing"]
    assert inside("runs", "clean", "--folder", tmp_path, "--healings", "--yes").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_has_begun_to_write_after_it_was_listed_stays(tmp_path):
    left = tmp_path / ".run.writing"
    left.mkdir()
    listed = [path for path, _ in runs.broken(tmp_path)]
    assert listed == [left]
    with folders.staged(tmp_path / "run") as staging:
        (staging / "report.json").write_text("{}")
        assert runs.clean(listed) == []
        assert (staging / "report.json").is_file()
    left.mkdir()
    assert runs.clean(listed) == [left]
    assert runs.clean(listed) == [left], "it is gone, whoever removed it"


def foreign(folder, what):
    """Folders of other people's, each with a file that is called as one of ours."""
    folder.mkdir()
    if what == "a report of another program":
        (folder / "report.json").write_text('{"tests": 12, "passed": 12}')
    elif what == "a recipe of another program":
        (folder / "recipe.yaml").write_text("ingredients: [flour, water]")
    elif what == "a plan that is no YAML":
        (folder / "plan.yaml").write_text("Monday: [")
    elif what == "a transform of another program":
        (folder / "transform.safetensors").write_bytes(b"numbers")
    elif what == "a project with a plan of ours":
        (folder / "plan.yaml").write_text("model: {path: demo}")
        (folder / "thesis.tex").write_text("years of work")
    else:
        (folder / "report.json").write_text(json.dumps(REPORT))
        (folder / "plan.yaml").write_text("model: [")
        (folder / "model" / "src").mkdir(parents=True)


FOREIGN = [
    "a report of another program", "a recipe of another program", "a plan that is no YAML", "a transform of another program",
    "a project with a plan of ours", "a report of ours with folders of another's",
]  # fmt: skip


@pytest.mark.parametrize("what", FOREIGN)
def test_nothing_is_removed_that_may_be_somebody_elses(tmp_path, what):
    """Only what killed processes left, and folders that are ours beyond doubt."""
    foreign(tmp_path / "work", what)
    (tmp_path / ".run.writing").mkdir()
    done = inside("runs", "clean", "--folder", tmp_path, "--yes", "--json")
    assert [found["folder"] for found in strict(done.stdout)["found"]] == [str(tmp_path / ".run.writing")]
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


@pytest.mark.parametrize("mark", ["report.json", "plan.yaml", "transform.safetensors"])
def test_one_file_that_only_ours_can_be_makes_a_damaged_run_ours(tmp_path, mark):
    run = written(tmp_path / "run")
    (run / "model").mkdir()
    save_file({"transform": torch.eye(2)}, run / "transform.safetensors", metadata={"replaceme": "{}"})
    for name in {"report.json", "plan.yaml", "transform.safetensors"} - {mark}:
        (run / name).write_text("{")
    assert [path for path, _ in runs.broken(tmp_path)] == [run]


def test_a_folder_that_is_called_as_a_healing_and_holds_other_files_stays(tmp_path):
    (tmp_path / ".soul.healing").mkdir()
    (tmp_path / ".soul.healing" / "diary.txt").write_text("dear diary")
    assert runs.checkpoints(tmp_path) == []
    (tmp_path / ".run.healing" / "step-0000020").mkdir(parents=True)
    assert runs.checkpoints(tmp_path) == [tmp_path / ".run.healing"]
