"""Faults, brought about for real: a process killed in the middle, two writers, a full disk, a folder that may not be written."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from replaceme_core import pipeline
from replaceme_core.cli.main import main
from replaceme_core.errors import ExportError
from replaceme_core.export import runs
from replaceme_core.storage import archive, tensor_files
from replaceme_core.storage.folders import leftovers, staged, writing
from tests.core.cli.test_cli import ENVIRONMENT, inside

KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from replaceme_core import pipeline
from replaceme_core.plans.plan import PruningPlan

class Killed:
    def __init__(self, phase):
        self.phase = phase
    def update(self, done, total, unit, what):
        if self.phase in what and done > 0:
            os.kill(os.getpid(), signal.SIGKILL)

for phase, out in zip(sys.argv[2::2], sys.argv[3::2]):
    child = os.fork()
    if child == 0:
        pipeline.run(PruningPlan.read(sys.argv[1]), out, Killed(phase))
        os._exit(3)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, phase
"""
PHASES = {"pass": "calibration pass", "comparison": "perplexity and KL", "export": "reading them back"}


@pytest.fixture(scope="module")
def plan(llama_folder, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    path = folder / "plan.yaml"
    path.write_text(
        f"model: {{path: {llama_folder}}}\ncalibration: {{source: {folder / 'texts.jsonl'}, max_tokens: 600, max_length: 32}}\nspan: {{start: 2, end: 4}}\n"
    )
    return path


@pytest.fixture(scope="module")
def killed(plan, tmp_path_factory):
    """A folder of runs whose processes got SIGKILL in the middle of a phase each."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [text for name, phase in PHASES.items() for text in (phase, str(folder / name))]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(plan), *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture
def after(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "runs")


def test_a_killed_run_is_no_run_and_its_rest_is_named_and_cleaned(after):
    assert runs.list_runs(after) == []
    assert {path.name for path in leftovers(after)} == {f".{name}.writing" for name in PHASES}
    listed = inside("runs", "clean", "--folder", after, "--dry-run")
    assert listed.stdout.count("left by a process that was killed while it wrote") == len(PHASES)
    assert len(list(after.iterdir())) == len(PHASES)
    done = inside("runs", "clean", "--folder", after, "--yes", "--json")
    assert len(json.loads(done.stdout)["removed"]) == len(PHASES)
    assert list(after.iterdir()) == []


@pytest.mark.parametrize("name", PHASES)
def test_the_next_run_of_the_same_name_starts_clean_and_is_whole(after, plan, name):
    done = inside("run", "--plan", plan, "--out", after / name)
    assert done.exit_code == 0, done.output
    assert not (after / f".{name}.writing").exists()
    assert [run.folder.name for run in runs.list_runs(after)] == [name]
    assert AutoModelForCausalLM.from_pretrained(after / name / "model").config.num_hidden_layers == 4


def test_a_second_process_on_one_run_folder_is_told_at_once_and_the_first_is_not_disturbed(plan, tmp_path):
    out = tmp_path / "runs" / "one"
    code = "import sys, time; from pathlib import Path; from replaceme_core.storage.folders import staged\n"
    code += f"with staged(Path({str(out)!r})) as folder:\n (folder / 'begun').write_text('x'); print('ready', flush=True); time.sleep(100)"
    first = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "ready\n"
        done = inside("run", "--plan", plan, "--out", out)
        assert done.exit_code == 1
        assert "is being written by another process; wait for it, or choose another name" in done.stderr
        assert "calibration pass" not in done.stderr
        assert (out.parent / ".one.writing" / "begun").is_file()
        assert leftovers(out.parent) == []
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    assert [path.name for path in leftovers(out.parent)] == [".one.writing"]
    with staged(out) as folder:
        assert list(folder.iterdir()) == []
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("kib", [64, 180, 210])
def test_a_disk_that_is_full_ends_in_a_sentence_and_leaves_nothing(plan, tmp_path, kib):
    """A real small disk where the system lets us mount one; else a limit on the size of a file, which fails at the same places."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 512, hard))
        done = inside("run", "--plan", plan, "--out", disk / "runs" / "r")
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert done.exit_code == 1, done.output
        assert "full" in done.stderr or "cannot be written" in done.stderr
        assert list((disk / "runs").iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_may_not_be_written_is_told_before_any_work(plan, tmp_path):
    """As somebody who is not root: root may write anywhere."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    code = "import os, sys; from pathlib import Path; from replaceme_core.storage.folders import staged; from replaceme_core.errors import ExportError\n"
    code += "if os.geteuid() == 0: os.setuid(65534)\ntry:\n with staged(Path(sys.argv[1])): pass\nexcept ExportError as error: print(error)"
    for parent in tmp_path.parents:  # the folders of the test itself are root's alone
        if os.geteuid() == 0 and parent.stat().st_uid == 0 and "pytest" in str(parent):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(closed / "run")], env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False
    )
    assert "cannot be written (Permission denied); choose a folder you may write to" in done.stdout, done.stderr
    assert inside("run", "--plan", plan, "--out", "/proc/none/run").exit_code == 1


def damaged(folder: Path, what: str) -> None:
    model = folder / "model"
    if what == "report":
        (folder / "report.json").write_text('{"name": "half')
    elif what == "no report":
        (folder / "report.json").unlink()
    elif what == "plan":
        (folder / "plan.yaml").write_text("model: [")
    elif what == "weights":
        with (model / "model.safetensors").open("r+b") as file:
            file.truncate(1000)
    elif what == "config":
        (model / "config.json").unlink()
    elif what == "comparison":
        (folder / "comparison.json").write_text("[1, 2")
    else:
        shutil.rmtree(model)


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "good"
    assert inside("run", "--plan", plan, "--out", out).exit_code == 0
    return out


@pytest.mark.parametrize("what", ["report", "no report", "plan", "weights", "config", "comparison", "model"])
def test_a_damaged_run_is_named_with_the_reason_and_the_good_one_stays(whole, tmp_path, what):
    shutil.copytree(whole, tmp_path / "good")
    damaged(shutil.copytree(whole, tmp_path / "bad"), what)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("not a run")
    (path, reason), *others = runs.broken(tmp_path)
    assert (path.name, others) == ("bad", [])
    assert reason
    assert inside("runs", "--help").exit_code == 0
    assert {run.folder.name for run in runs.list_runs(tmp_path)} <= {"good", "bad"}
    assert inside("runs", "compare", tmp_path / "good", tmp_path / "bad").exit_code in (0, 1)
    assert inside("runs", "clean", "--folder", tmp_path, "--yes").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "notes"]


def test_cleaning_asks_before_it_removes(whole, tmp_path):
    damaged(shutil.copytree(whole, tmp_path / "bad"), "report")
    done = inside("runs", "clean", "--folder", tmp_path)
    assert done.exit_code == 1
    assert (tmp_path / "bad").is_dir()


def test_a_killed_server_of_a_lock_does_not_stop_the_next_one(tmp_path):
    """The lock ends with its process, so that no stale lock has to be removed by hand."""
    child = os.fork()
    if child == 0:
        with staged(tmp_path / "run"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    began = time.monotonic()
    with staged(tmp_path / "run") as folder:
        (folder / "x").write_text("x")
    assert time.monotonic() - began < 30
    assert (tmp_path / "run" / "x").is_file()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "elsewhere/weights.safetensors"),
        OSError(errno.EIO, "Input/output error"),
        OSError("We could not connect to the hub."),
    ],
    ids=lambda error: type(error).__name__ + str(error.errno),
)
def test_what_happens_beside_the_writing_is_not_called_a_fault_of_the_disk(tmp_path, error):
    with pytest.raises(OSError, match=re.escape(str(error))) as caught, staged(tmp_path / "run"):
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_writing_are_told_with_the_name_that_the_person_gave(tmp_path):
    with pytest.raises(ExportError, match=r"'.*/run' cannot be written \(No such file or directory\)"), staged(tmp_path / "run") as folder:
        (folder / "not there" / "x").write_text("x")
    full = OSError(errno.ENOSPC, "No space left on device")
    told = pytest.raises(ExportError, match=r"disk became full while '.*/run/model' was written")
    with told, staged(tmp_path / "run") as folder, staged(folder / "model") as inner, writing(inner):
        raise full
    for beside in (
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        FileNotFoundError(errno.ENOENT, "gone", "elsewhere"),
    ):
        with pytest.raises(type(beside)), writing(tmp_path):
            raise beside
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_is_lost_during_a_run_is_told_as_such(plan, tmp_path, monkeypatch):
    def lost(*_):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(pipeline, "prepare_for", lost)
    done = CliRunner().invoke(main, ["run", "--plan", str(plan), "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert "The connection was lost (Connection reset by peer). Check the network" in done.stderr
    assert "written" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_cannot_be_read_is_not_blamed_on_the_checkpoint_that_is_written(llama_folder, tmp_path):
    """Reading and writing take turns, tensor by tensor."""
    entries = tensor_files.entries(llama_folder)

    def read(entry):
        if entry.name.endswith("norm.weight"):
            raise OSError(errno.EIO, "Input/output error")
        return entry.read()

    with pytest.raises(OSError, match="Input/output error") as caught:
        tensor_files.write_shards(tmp_path, list(entries.values()), "5GB", read)
    assert not isinstance(caught.value, ExportError)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="cannot be written"):
        tensor_files.write_shards(tmp_path / "file", list(entries.values()), "5GB", lambda entry: entry.read())


def test_a_folder_that_cannot_be_read_is_not_blamed_on_its_zip(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("a")
    (tmp_path / "folder" / "b").write_text("b")

    class Remove:
        def update(self, *_):
            (tmp_path / "folder" / "b").unlink(missing_ok=True)

    with pytest.raises(FileNotFoundError):
        archive.zip_folder(tmp_path / "folder", tmp_path / "folder.zip", Remove())
    assert not (tmp_path / "folder.zip").exists()
