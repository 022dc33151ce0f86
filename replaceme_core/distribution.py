"""Several processes, one run: each takes its share of the batches, sums are added once, everyone ends with the same moments.

    torchrun --standalone --nproc_per_node 2 -m replaceme_core run --plan plan.yaml --out runs/first

Moments are sums, so that the split changes nothing but the order of additions. A process that dies, or that never comes,
ends all others with one message. So does torchrun itself, of which each node has one: its processes end with it.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from torch import Tensor
from torch import distributed as dist

from replaceme_core.errors import DistributionError

Item = TypeVar("Item")
_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""environment variable that torchrun sets for the processes that it starts"""
_LOOKS = 1.0
"""seconds between two looks at whether it is still there"""
_JOIN_SECONDS = "REPLACEME_JOIN_SECONDS"
"""environment variable: seconds that processes wait for one another, 600 if unset"""


@dataclass(frozen=True)
class Group:
    """This process among the others."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def mine(self, items: list[Item]) -> list[Item]:
        """This process's share."""
        return items[self.rank :: self.size]

    def add(self, tensor: Tensor) -> None:
        """In place: the sum of all processes' tensors."""
        if self.size > 1:
            with _one_message():
                dist.all_reduce(tensor)

    def gather(self, item: Item) -> list[Item]:
        """Every process's item, by rank."""
        if self.size == 1:
            return [item]
        items: list[Item | None] = [None] * self.size
        with _one_message():
            dist.all_gather_object(items, item)
        return items  # type: ignore[return-value]

    def require_same(self, value: str, what: str) -> None:
        """A `DistributionError` if the processes do not agree."""
        values = self.gather(value)
        if len(set(values)) > 1:
            raise DistributionError(
                f"The {self.size} processes do not have the same {what} ({', '.join(values)}); give all of them the same files."
            )


ALONE = Group(0, 1)


@contextmanager
def joined() -> Iterator[Group]:
    """The group that torchrun's environment describes; `ALONE` outside of it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if _BY_TORCHRUN in os.environ and hasattr(os, "getppid"):
        threading.Thread(target=_end_with, args=(os.getppid(),), name="torchrun", daemon=True).start()
    wait = timedelta(seconds=float(os.environ.get(_JOIN_SECONDS, "600")))
    try:
        dist.init_process_group("gloo", timeout=wait)
    except (ValueError, RuntimeError) as error:
        raise DistributionError(
            f"{size} processes were announced (WORLD_SIZE), but they did not meet within {wait.total_seconds():.0f} s "
            f"({_first_line(error)}). Start them with torchrun --nproc_per_node {size}."
        ) from error
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _end_with(parent: int) -> None:
    """Ends this process once torchrun, which started it, is gone: killed alone, it leaves orphans, for which other nodes would wait."""
    while os.getppid() == parent:
        time.sleep(_LOOKS)
    said = b"torchrun, which started this process, has ended, so that it ends, too. Start the run again; see there why.\n"
    with suppress(OSError):
        os.write(2, said)
    os._exit(1)


@contextmanager
def _one_message() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DistributionError(
            f"Another process of this run ended early ({_first_line(error)}); its own message says why. Nothing was written."
        ) from error


def _first_line(error: Exception) -> str:
    """The first sentence, without the source file that gloo names before it and its guess after it."""
    line = re.sub(r"^\[\S+\.(cc|cpp|h):\d+\]\s*", "", str(error).strip().splitlines()[0])
    return line.partition(". ")[0].rstrip(".")[:200]
