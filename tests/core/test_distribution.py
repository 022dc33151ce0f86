"""Two processes give the run of one; a process that dies or never comes ends all with one message and no folder."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import torch
import yaml
from safetensors.torch import load_file

from replaceme_core.distribution import ALONE, Group, joined
from tests.support import two_machines
from tests.support.tiny_models import WORDS

_TASK = """task: toy
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def plan(llama_folder: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    items = [{"question": texts[i], "choices": WORDS[:3], "answer": i % 3} for i in range(11)]
    (folder / "tasks").mkdir()
    (folder / "tasks" / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (folder / "tasks" / "toy.yaml").write_text(_TASK)
    data = {
        "model": {"path": str(llama_folder)},
        "calibration": {"source": str(folder / "texts.jsonl"), "max_length": 32},
        "span": {"start": 2, "end": 4},
        "method": {"name": "weighted_least_squares"},
        "evaluation": {"tasks": str(folder / "tasks")},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(data))
    return folder / "plan.yaml"


def start(command: list[str], stderr: IO[str] | int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent.parent)} | environment
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)


def torchrun(plan: Path, out: Path, stderr: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    run = ["-m", "replaceme_core", "run", "--plan", str(plan), "--out", str(out), "--json"]
    return start([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *run], stderr)


def test_two_processes_give_the_transform_and_the_scores_of_one(plan: Path, tmp_path: Path) -> None:
    both = torchrun(plan, tmp_path / "two")
    one = start([sys.executable, "-m", "replaceme_core", "run", "--plan", str(plan), "--out", str(tmp_path / "one"), "--json"])
    printed = [process.communicate(timeout=240) for process in (both, one)]
    assert (both.returncode, one.returncode) == (0, 0), printed[0][1][-2000:]
    left, right = (load_file(tmp_path / name / "model" / "transform.safetensors")["transform"] for name in ("two", "one"))
    assert float((left - right).norm() / right.norm()) < 1e-10
    scores = [json.loads((tmp_path / name / "scores.json").read_text()) for name in ("two", "one")]
    assert [score["results"] for score in scores[0]] == [score["results"] for score in scores[1]]
    assert len(printed[0][0].strip().splitlines()) == 1, "only the leading process prints"


_MEASURED = """
import json, sys
from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.distribution import joined
from replaceme_core.measurement.measure import measure
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import PruningPlan

plan = PruningPlan.read(sys.argv[1])
with joined() as group:
    handle = load(plan.model)
    found = measure(handle, pipeline.prepare_for(handle, plan.calibration), [Span(2, 4)], group=group)
    moments = found.moments[Span(2, 4), "uniform"]
    if group.leads:
        print(json.dumps([moments.train.n_tokens, moments.heldout.n_tokens, found.lengths.largest.tolist(), found.norms.tolist()]))
"""


def test_two_processes_count_both_parts_and_find_the_longest_token_as_one_does(plan: Path, tmp_path: Path) -> None:
    """The longest token at a boundary may be one that the other process read."""
    (tmp_path / "job.py").write_text(_MEASURED)
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    both, one = (start([sys.executable, *more, str(tmp_path / "job.py"), str(plan)]) for more in (launched, []))
    (printed, errors), (alone, _) = (process.communicate(timeout=240) for process in (both, one))
    assert both.returncode == 0, errors[-2000:]
    (train, heldout, *lengths), (own_train, own_heldout, *own_lengths) = json.loads(printed), json.loads(alone)
    assert (train, heldout) == (own_train, own_heldout)
    assert train > 2 * heldout > 0
    for found, expected in zip(lengths, own_lengths, strict=True):
        assert found == pytest.approx(expected, rel=1e-12)


def test_processes_with_different_texts_are_refused_and_leave_no_folder(plan: Path, tmp_path: Path) -> None:
    """The file is another one for the second process: RANK chooses it through the environment of a relative path."""
    data = yaml.safe_load(plan.read_text())
    data["calibration"]["source"] = "texts.jsonl"
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data))
    lines = Path(plan.parent / "texts.jsonl").read_text().splitlines()
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / "texts.jsonl").write_text("\n".join(lines[rank:]))
    code = (
        f"import os; os.chdir({str(tmp_path)!r} + '/' + os.environ['RANK'])\n"
        f"from replaceme_core.cli.main import main; main(['run', '--plan', {str(tmp_path / 'plan.yaml')!r}, '--out', {str(tmp_path / 'out')!r}])"
    )
    (tmp_path / "job.py").write_text(code)
    process = start([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "job.py")])
    _out, errors = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "do not have the same calibration tokens and model" in errors
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_processes_that_never_come_are_one_message_with_the_way_out(plan: Path, tmp_path: Path) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "REPLACEME_JOIN_SECONDS": "2"}
    process = start([sys.executable, "-m", "replaceme_core", "run", "--plan", str(plan), "--out", str(tmp_path / "out")], **environment)
    _out, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "2 processes were announced" in errors
    assert "torchrun" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.fixture
def long_plan(plan: Path, tmp_path: Path) -> Path:
    """A pass of some seconds: many small batches."""
    rows = [" ".join(WORDS[(i * 7 + j * (1 + i % 5)) % 150] for j in range(40)) for i in range(2400)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows))
    data = yaml.safe_load(plan.read_text()) | {"evaluation": None}
    data["calibration"] = {"source": str(tmp_path / "texts.jsonl"), "max_length": 32, "max_tokens": 60_000}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data))
    return tmp_path / "plan.yaml"


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited too long"
        time.sleep(0.05)


def in_the_pass(errors: Path) -> Callable[[], bool]:
    """Whether the leading process's bar shows tokens of the pass that are done, but not all."""
    return lambda: re.search(r"calibration pass: +[1-9]\d?%", errors.read_text()) is not None


def test_a_worker_killed_in_the_middle_of_a_pass_ends_all_within_seconds(long_plan: Path, tmp_path: Path) -> None:
    with (tmp_path / "errors.txt").open("w") as errors:
        process = torchrun(long_plan, tmp_path / "out", stderr=errors)
    wait_for(in_the_pass(tmp_path / "errors.txt"), 60)
    assert list(tmp_path.glob(".out*")), "the leading process has begun a folder"
    children = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    (worker,) = [child for child in children if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")]
    os.kill(worker, signal.SIGKILL)
    printed, _ = process.communicate(timeout=45)
    assert (process.returncode, printed) == (1, "")
    assert "(SIGKILL)" in (tmp_path / "errors.txt").read_text()
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_waits_for_a_dead_one_says_so_and_ends(long_plan: Path, tmp_path: Path, victim: int) -> None:
    """Nobody watches over them, and the survivor has done its share: it waits for the sums of the one that is stopped, then killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-m", "replaceme_core", "run", "--plan", str(long_plan), "--out", str(tmp_path / "out")]
    both = []
    for rank in (0, 1):
        with (tmp_path / f"errors{rank}.txt").open("w") as errors:
            both.append(start(command, stderr=errors, RANK=str(rank), **shared))
    wait_for(in_the_pass(tmp_path / "errors0.txt"), 60)
    os.kill(both[victim].pid, signal.SIGSTOP)
    survivor = both[1 - victim]
    wait_for(lambda: idle(survivor.pid), 60)
    os.kill(both[victim].pid, signal.SIGKILL)
    assert survivor.wait(timeout=30) == 1
    both[victim].wait(timeout=30)
    said = (tmp_path / f"errors{1 - victim}.txt").read_text()
    assert re.search(r"(?m)^Error: Another process of this run ended early \(.*Connection \w+ by peer.*\); its own message says why", said)
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert bool(list(tmp_path.glob(".out*"))) is (victim == 0), (
        "a killed leader cannot clear its hidden folder away; nobody else leaves one"
    )


needs_namespaces = pytest.mark.skipif(not two_machines.possible(), reason="no network namespaces on this machine (root and iproute2)")


def on_both(
    machines: tuple[two_machines.Machine, two_machines.Machine], plan: Path, tmp_path: Path, **environment: str
) -> list[subprocess.Popen[str]]:
    """torchrun on two machines, as a Slurm script starts it on two nodes; what each says goes to errors0.txt and errors1.txt."""
    started = []
    for rank, machine in enumerate(machines):
        run = ["-m", "replaceme_core", "run", "--plan", str(plan), "--out", str(tmp_path / "out")]
        nodes = [
            "--nnodes",
            "2",
            "--node_rank",
            str(rank),
            "--nproc_per_node",
            "1",
            "--master_addr",
            machines[0].address,
            "--master_port",
            "29577",
        ]
        command = machine.inside([sys.executable, "-m", "torch.distributed.run", *nodes, *run])
        with (tmp_path / f"errors{rank}.txt").open("w") as errors:
            started.append(start(command, stderr=errors, GLOO_SOCKET_IFNAME=machine.interface, **environment))
    return started


@needs_namespaces
def test_two_machines_give_the_transform_of_one(plan: Path, tmp_path: Path) -> None:
    from replaceme_core import pipeline
    from replaceme_core.plans.plan import PruningPlan

    with two_machines.connected() as machines:
        both = on_both(machines, plan, tmp_path)
        assert [process.wait(timeout=240) for process in both] == [0, 0], (tmp_path / "errors0.txt").read_text()[-2000:]
    alone = pipeline.run(PruningPlan.read(plan).model_copy(update={"evaluation": None}), tmp_path / "one")
    left, right = load_file(tmp_path / "out" / "model" / "transform.safetensors")["transform"], alone.variant.transform.matrix
    assert float((left - right).norm() / right.norm()) < 1e-10


@needs_namespaces
def test_a_machine_that_is_lost_in_the_middle_of_a_pass_ends_the_other_one_with_one_message(long_plan: Path, tmp_path: Path) -> None:
    with two_machines.connected() as machines:
        first, second = on_both(machines, long_plan, tmp_path, REPLACEME_JOIN_SECONDS="60")
        wait_for(in_the_pass(tmp_path / "errors0.txt"), 90)
        machines[1].crash()
        assert first.wait(timeout=45) == 1, "well before the time to wait for others is over"
        second.wait(timeout=30)
    said = (tmp_path / "errors0.txt").read_text()
    assert len(re.findall(r"(?m)^Error: ", said)) == 1
    assert "Another process of this run ended early" in said
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


_WORKER = """
import threading
from replaceme_core import distribution
start = threading.Thread.start
def told(thread):
    start(thread)
    print(thread.name, flush=True)
threading.Thread.start = told
with distribution.joined():
    pass
"""
_AGENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True); time.sleep(600)"


def test_a_process_ends_with_the_torchrun_that_started_it() -> None:
    """Killed alone it left an orphan with a session of its own, for which the other nodes waited (benchmarks/LOG.md)."""
    waits = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "TORCHELASTIC_RUN_ID": "none"}
    agent = start([sys.executable, "-c", _AGENT, _WORKER], **waits)
    assert agent.stdout is not None
    assert agent.stdout.readline() == "torchrun\n"
    agent.kill()
    _out, errors = agent.communicate(timeout=60)  # ends when the last process that could write has ended
    assert "torchrun, which started this process, has ended, so that it ends, too." in errors


def idle(pid: int) -> bool:
    """Whether a process has used no processor time for half a second."""

    def used() -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    before = used()
    time.sleep(0.5)
    return used() == before


def test_outside_of_torchrun_there_is_one_process_that_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as group:
        assert group == ALONE
        assert group.leads
    tensor = torch.ones(2)
    ALONE.add(tensor)
    assert tensor.tolist() == [1, 1]


def test_shares_are_disjoint_and_complete() -> None:
    items = list(range(7))
    shares = [Group(rank, 3).mine(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
