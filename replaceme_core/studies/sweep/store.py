"""The folder of a sweep: every finished point is a file of its own, written at once and whole, so that a crash loses nothing.

SWEEP/sweep.yaml          what was asked
SWEEP/index.json          the queue, and what the points share
SWEEP/points/KEY.json     one finished point each; KEY is the fingerprint of all that determines it
SWEEP/answers-KEY.json    what the original got right in the benchmarks
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from replaceme_core.errors import PlanError
from replaceme_core.plans.sweep_section import Sweep
from replaceme_core.storage.folders import explain
from replaceme_core.studies.sweep.points import Planned, PointResult

_TYPES: dict[Any, TypeAdapter[Any]] = {}


@dataclass(frozen=True)
class Index:
    """The queue of a sweep and what all of its points share."""

    asked: str
    """fingerprint of the sweep and of what it was run on"""
    model: str
    model_fingerprint: str
    calibration: str
    calibration_fingerprint: str
    n_blocks: int
    n_parameters: int
    disk_bytes: int
    points: tuple[Planned, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepFolder:
    """A sweep as its folder holds it."""

    folder: Path
    index: Index
    results: tuple[PointResult, ...]
    """of the finished points, in the order of the queue, those with an `error` too"""

    @cached_property
    def made(self) -> list[PointResult]:
        """Without those that could not be made."""
        return [result for result in self.results if not result.error]

    @property
    def left(self) -> list[Planned]:
        """What a resumed sweep will do: points without a result, and those that failed."""
        done = {result.planned.key for result in self.made}
        return [point for point in self.index.points if point.key not in done]

    @property
    def unfinished(self) -> int:
        """Points without any result."""
        return len(self.index.points) - len(self.results)


class Store:
    """Reads and writes the folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._points = self.folder / "points"

    def prepare(self, sweep: Sweep) -> None:
        """Makes the folder, or an error that says why it cannot be."""
        if self.folder.is_dir() and any(self.folder.iterdir()) and not self._is_sweep():
            raise PlanError(
                f"'{self.folder}' holds other files and no sweep; choose a new folder, or the folder of a sweep to go on with it."
            )
        try:
            self._points.mkdir(parents=True, exist_ok=True)
            self._replace(self.folder / "sweep.yaml", sweep.to_yaml().encode())
        except OSError as error:
            raise explain(error, self.folder) from error

    def _is_sweep(self) -> bool:
        return (self.folder / "sweep.yaml").is_file() or self._points.is_dir()

    def index(self) -> Index | None:
        index: Index | None = self._read(self.folder / "index.json", Index)
        return index

    def write_index(self, index: Index) -> None:
        self._write(self.folder / "index.json", index)

    def result(self, key: str) -> PointResult | None:
        """None for a point that is not there, or whose file is damaged: it is done again."""
        result: PointResult | None = self._read(self._points / f"{key}.json", PointResult)
        return result

    def write_result(self, result: PointResult) -> None:
        self._write(self._points / f"{result.planned.key}.json", result)

    def found(self, points: Sequence[Planned] | None = None) -> SweepFolder | None:
        """The sweep so far; None where the folder holds none."""
        index = self.index()
        if index is None:
            return None
        results = (self.result(point.key) for point in (points or index.points))
        return SweepFolder(self.folder, index, tuple(result for result in results if result is not None))

    def sweep(self) -> Sweep:
        """What was asked last."""
        return Sweep.read(self.folder / "sweep.yaml")

    def _read(self, path: Path, kind: Any) -> Any:
        try:
            return _adapter(kind).validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def _write(self, path: Path, data: Any) -> None:
        try:
            self._replace(path, _adapter(type(data)).dump_json(data, indent=1))
        except OSError as error:
            raise explain(error, path) from error

    def _replace(self, path: Path, data: bytes) -> None:
        """The file whole or not at all, also after a power cut."""
        staging = path.with_name(f".{path.name}.{os.getpid()}")
        with staging.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)


def _adapter(kind: Any) -> TypeAdapter[Any]:
    key = str(kind)
    if key not in _TYPES:
        _TYPES[key] = TypeAdapter(kind)
    return _TYPES[key]


def list_sweeps(folder: str | Path = "sweeps") -> list[SweepFolder]:
    """The sweeps below a folder, the newest first."""
    paths = sorted(Path(folder).glob("[!.]*/index.json"), key=lambda path: -path.stat().st_mtime)
    return [found for path in paths if (found := Store(path.parent).found()) is not None]
