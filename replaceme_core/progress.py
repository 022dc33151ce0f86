"""How long work reports itself and how it is stopped.

A stage calls `progress.update(done, total, unit, what)` between batches. The library is silent by default
(`SILENT`); the command line passes a tqdm bar, the app a job, the tests a list. An implementation stops the
work by raising `Cancelled` from `update`: stages hold no lock and leave no hook behind when that happens.
"""

from typing import Protocol


class Progress(Protocol):
    """Receiver of progress reports."""

    def update(self, done: float, total: float, unit: str, what: str) -> None:
        """`done` of `total`, counted in `unit`; `what` is a short phrase a person reads."""


class _Silent:
    def update(self, done: float, total: float, unit: str, what: str) -> None:
        pass


SILENT: Progress = _Silent()
