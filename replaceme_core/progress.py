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


class Portion:
    """A stretch of longer work that is counted in units of its own; it hands every call on, so that Cancel is heard inside it.

    Inside, anything may be counted in any unit, also anew: the whole only ever goes forward. With `inner`, what is said inside is
    said after the words of the stretch.
    """

    def __init__(self, whole: Progress, begin: float, width: float, total: float, unit: str, what: str, inner: bool = False) -> None:
        self._whole, self._begin, self._width, self._total, self._said = whole, begin, width, total, (unit, what, inner)
        self._most = 0.0

    def part(self, begin: float, end: float) -> "Portion":
        """From the share `begin` of this stretch to the share `end`."""
        return Portion(self._whole, self._begin + self._width * begin, self._width * (end - begin), self._total, *self._said)

    def update(self, done: float, total: float, _unit: str, what: str) -> None:
        self._most = max(self._most, min(1.0, done / total) if total else 0.0)
        unit, said, inner = self._said
        self._whole.update(round(self._begin + self._width * self._most, 2), self._total, unit, f"{said}: {what}" if inner else said)
