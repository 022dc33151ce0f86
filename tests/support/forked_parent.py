"""The parent of the processes of forked.py, and how a copy of it becomes a process that runs one command."""

import ctypes
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

_HEAVY = (
    "lm_eval.evaluator", "lm_eval.tasks", "lm_eval.api.model", "datasets", "scipy.optimize", "matplotlib.figure", "pyarrow.dataset", "altair",
    "transformers.models.llama.modeling_llama", "transformers.models.auto.tokenization_auto", "transformers.generation.utils",
    "torch.distributed.run", "streamlit.web.cli", "replaceme_core.cli.main", "replaceme_core.pipeline", "replaceme_core.evaluation.lm_eval_model",
)  # fmt: skip
"""imported by the parent when it is first asked for a process, beside what the tests imported"""
_NEW_NETWORK = 0x40000000
"""Linux's CLONE_NEWNET"""
_LONGEST = 1 << 20
"""bytes of a command with its environment"""


def serve(descriptor: int) -> NoReturn:
    """Starts a process for every message on a socket, until its other end closes. Each is waited for by a copy of its own."""
    os.dup2(descriptor, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    with open(os.devnull, "r+b") as nothing:
        for stream in range(3):
            os.dup2(nothing.fileno(), stream)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asks, ready = socket.socket(fileno=3), False
    while True:
        message, files, _, _ = socket.recv_fds(asks, _LONGEST, 4)
        if not message:
            os._exit(0)
        if not ready:
            ready = True
            for name in _HEAVY:
                with suppress(ImportError):
                    import_module(name)
        if os.fork() == 0:
            asks.close()
            _watch(json.loads(message), files[:3], socket.socket(fileno=files[3]))
        for file in files:
            os.close(file)


def _watch(asked: dict[str, Any], files: list[int], tell: socket.socket) -> NoReturn:
    """Tells the process id of the command and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = Child(asked, files)
    for file in files:
        os.close(file)
    with suppress(OSError):
        tell.send(str(child.pid).encode())
        tell.send(str(child.wait()).encode())
    os._exit(0)


class Child:
    """A copy of this process that runs a command; what torchrun asks of a `subprocess.Popen`."""

    def __init__(self, asked: dict[str, Any], files: list[int], own_session: bool = False) -> None:
        self.returncode: int | None = None
        self.args = asked["words"]
        self.pid = os.fork()
        if self.pid == 0:
            if own_session:
                os.setsid()
            _become(asked, files)

    def poll(self) -> int | None:
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        late = None if timeout is None else time.monotonic() + timeout
        while self._look(0 if late is None else os.WNOHANG) is None:
            if late is not None and time.monotonic() > late:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.02)
        return self.returncode

    def _look(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _become(asked: dict[str, Any], files: list[int]) -> NoReturn:
    code = 1
    try:
        for stream, file in enumerate(files):
            os.dup2(file, stream)
        os.closerange(3, 64)
        _settle(asked)
        code = _run([word for word in asked["words"] if word != "-u"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _settle(asked: dict[str, Any]) -> None:
    """Streams, environment, folder, network and signals as a new process has them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    for logger in (logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stderr)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    if asked.get("network"):
        with open(f"/run/netns/{asked['network']}", "rb") as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")


def _run(words: list[str]) -> int:
    """`-c CODE ...`, `-m MODULE ...` or `FILE ...`, as Python itself takes them."""
    how, *rest = words
    if how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif how == "-m" and rest[0] == "torch.distributed.run":
        from torch.distributed import run

        _torchrun_forks()
        run.main(rest[1:])
    elif how == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(how, run_name="__main__")
    return 0


def _torchrun_forks() -> None:
    """Its workers are copies as well."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    def start(_self: object, args: tuple[str, ...], env: dict[str, str]) -> Child:
        return Child({"words": list(args[1:]), "env": env, "cwd": os.getcwd()}, [0, 1, 2], own_session=True)

    subprocess_handler.SubprocessHandler._popen = start  # type: ignore[method-assign, assignment]
