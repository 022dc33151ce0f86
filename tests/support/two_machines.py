"""Two machines on one: network namespaces with a cable between them, which share no loopback. Needs root and iproute2."""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One namespace with its end of the cable."""

    name: str
    interface: str
    address: str

    def inside(self, command: list[str]) -> list[str]:
        """The command, run there."""
        return ["ip", "netns", "exec", self.name, *command]

    def crash(self) -> None:
        """Ends every process there at once, as when the machine is switched off."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout.split()
        for pid in map(int, found):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def possible() -> bool:
    """Whether this machine lets us make a namespace."""
    if shutil.which("ip") is None:
        return False
    name = f"rp-{uuid.uuid4().hex[:6]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made


@contextmanager
def connected() -> Iterator[tuple[Machine, Machine]]:
    """Two machines, 10.77.0.1 and 10.77.0.2, until the block ends."""
    key = uuid.uuid4().hex[:6]
    machines = tuple(Machine(f"rp-{key}-{i}", f"rp{key}{i}", f"10.77.0.{i + 1}") for i in (0, 1))
    try:
        for machine in machines:
            _ip("netns", "add", machine.name)
        _ip("link", "add", machines[0].interface, "type", "veth", "peer", "name", machines[1].interface)
        for machine in machines:
            _ip("link", "set", machine.interface, "netns", machine.name)
            for words in (
                ("addr", "add", f"{machine.address}/24", "dev", machine.interface),
                ("link", "set", machine.interface, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("netns", "exec", machine.name, "ip", *words)
        yield machines[0], machines[1]
    finally:
        for machine in machines:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", machine.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
