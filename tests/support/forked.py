"""Processes that begin with everything imported: forked from one that has imported and done nothing else.

A process of Python that imports torch, transformers and lm_eval takes five seconds of a processor before it begins. Where what a process
does is tested, and not how it starts, it begins as a copy of a parent, which is itself a copy of the test process before its first test.
It is a process like any other, with an environment, a folder, streams, a process id and an end of its own. What a library reads from the
environment while it is imported (HF_ENDPOINT, HF_HOME) it does not see: that needs a process of its own. Used as `subprocess` is.
"""

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.support import forked_parent

_ROOT = Path(__file__).resolve().parents[2]
_parent: list[socket.socket] = []


class Process:
    """What `subprocess.Popen` is of a process that it started, as far as the tests ask."""

    def __init__(self, command: Sequence[object], end: socket.socket, streams: list[IO[str] | None]) -> None:
        self.args = command
        self.returncode: int | None = None
        self._end = end
        self._streams = streams
        self.pid = int(end.recv(32))

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], 0)[0]:
            self.returncode = int(self._end.recv(32))
            self._end.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.poll()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it and its children wrote; read from files, so that nobody waits for a pipe."""
        self.wait(timeout)
        found = []
        for stream in self._streams:
            if stream is not None:
                stream.seek(0)
            found.append("" if stream is None else stream.read())
        return found[0], found[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def begin() -> None:
    """Copies this process, which has collected its tests and run none, as the parent of all that will be forked."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        forked_parent.serve(theirs.detach())
    theirs.close()
    _parent.append(ours)


def popen(
    command: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    stdout: IO[Any] | int | None = None,
    stderr: IO[Any] | int | None = None,
    network: str | None = None,
) -> Process:
    """`command` is [sys.executable, "-m" or "-c", ...]. With `network`, in the network namespace of that name. Linux only; elsewhere as ever."""
    if not _parent:
        found = {**(os.environ if env is None else env), "PYTHONPATH": str(_ROOT)}
        return subprocess.Popen(list(map(str, command)), env=found, cwd=cwd, stdout=stdout, stderr=stderr, text=True)  # type: ignore[return-value]
    streams: list[IO[str] | None] = [tempfile.TemporaryFile("w+") if each == subprocess.PIPE else None for each in (stdout, stderr)]  # noqa: SIM115
    ours, theirs = socket.socketpair()
    with open(os.devnull, "r+b") as nothing:
        files = [nothing.fileno()]
        for wanted, stream in zip((stdout, stderr), streams, strict=True):
            if wanted == subprocess.STDOUT:
                files.append(files[1])
            elif isinstance(wanted, int | None):
                files.append(nothing.fileno() if stream is None else stream.fileno())
            else:
                files.append(wanted.fileno())
        words = [str(word) for word in command[1:]]
        asked = {"words": words, "env": dict(os.environ if env is None else env), "cwd": str(cwd or Path.cwd()), "network": network}
        socket.send_fds(_parent[0], [json.dumps(asked).encode()], [*files, theirs.fileno()])
    theirs.close()
    return Process(command, ours, streams)


def run(command: Sequence[object], timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with both streams captured."""
    process = popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        printed, said = process.communicate(timeout)
    finally:
        process.kill()
    assert process.returncode is not None
    return subprocess.CompletedProcess(list(command), process.returncode, printed, said)
