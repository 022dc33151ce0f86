"""What nobody foresaw is a sentence at every entry point, with the words of what failed; and one bar at a time is drawn."""

import re
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from replaceme_core import pipeline
from replaceme_core.cli import reference
from replaceme_core.cli.main import COMMANDS, main
from replaceme_core.errors import ReplaceMeError, UnforeseenError
from replaceme_core.guard import guarded
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models import loading
from replaceme_core.models.architecture import linearity
from replaceme_core.models.checkpoints import stored_shapes
from replaceme_core.models.checkpoints.quiet import one_bar
from replaceme_core.plans.plan import ModelSection, PruningPlan
from tests.core.cli.test_cli import inside
from ui.session.jobs import sentence

WORDS = "index 7 is out of bounds"


def failing(*_args: object, **_options: object) -> None:
    raise IndexError(WORDS)


def test_every_command_turns_an_unforeseen_error_into_a_sentence(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(linearity, "confirm", failing)
    for arguments in (("load", llama_folder), ("distances", "--model", llama_folder), ("fit", "--model", llama_folder, "--span", "2:4", "--out", tmp_path / "o")):  # fmt: skip
        done = inside(*arguments)
        assert done.exit_code == 1
        assert WORDS in done.stderr
        assert "Traceback" not in done.output
    monkeypatch.setenv("REPLACEME_TRACEBACK", "1")
    assert isinstance(inside("load", llama_folder).exception, IndexError)


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_no_command_stands_outside_the_guard(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main.commands[command], "invoke", failing)
    done = CliRunner().invoke(main, [command, *(["x"] if command in ("inspect", "load") else [])])
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "name", ["run_replaceme", "run_uidl", "evaluate_model", "get_distance_analysis", "get_lt_with_lstsq", "get_lt_with_solvers"]
)
def test_nor_do_those_of_the_public_library(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model_path: demo\nlayers_to_skip: 2\ntasks: demo\n")
    monkeypatch.setattr(loading, "load", failing)
    done = CliRunner().invoke(getattr(reference, name), ["--config", str(tmp_path / "c.yaml")])
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (1, True)
    assert "Traceback" not in done.output


def test_entry_points_of_python_raise_errors_of_ours_with_the_cause(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(linearity, "expected", failing)
    monkeypatch.setattr(stored_shapes, "read", lambda _folder: None)  # so that the preflight builds the model
    section = ModelSection(path=str(llama_folder))
    for call in (
        lambda: preflight(section),
        lambda: loading.load(section),
        lambda: pipeline.run(PruningPlan(model=section), tmp_path / "run"),
    ):
        with pytest.raises(ReplaceMeError, match=WORDS) as caught:
            call()
        assert isinstance(caught.value.__cause__, IndexError)
    assert type(caught.value) is UnforeseenError


def test_errors_of_the_system_and_of_ours_pass_the_guard_as_they_are() -> None:
    for error in (FileNotFoundError("gone"), MemoryError(), ReplaceMeError("ours"), RuntimeError("CUDA out of memory")):

        @guarded
        def work(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error), match=re.escape(str(error))) as caught:
            work()
        assert caught.value is error


def test_a_page_says_the_words_of_what_failed() -> None:
    assert WORDS in sentence(IndexError(WORDS))


def test_transformers_draws_no_bar_inside_ours_and_nothing_on_standard_output(llama_folder: Path, tmp_path: Path, texts_file: Path) -> None:
    done = inside(
        "fit",
        "--model",
        llama_folder,
        "--calibration",
        texts_file,
        "--max-tokens",
        400,
        "--span",
        "2:4",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert done.exit_code == 0, done.output
    assert "Loading weights" not in done.output
    assert "Writing model shards" not in done.output
    assert done.stdout.startswith("{")
    assert done.stdout.count("\n") == 1


def test_bars_come_back_after_the_last_of_several_readers() -> None:
    from transformers.utils import logging

    ready, go = threading.Event(), threading.Event()

    def reads() -> None:
        with one_bar():
            ready.set()
            go.wait(5)

    other = threading.Thread(target=reads)
    before = logging._tqdm_hook
    with one_bar():
        other.start()
        ready.wait(5)
    assert logging._tqdm_hook is not before
    go.set()
    other.join()
    assert logging._tqdm_hook is before
