"""Results of benchmarks on disk, by weights, task and settings, so that nothing is asked twice and a stopped run goes on.

One small file per task and model, written under a temporary name and renamed. The folder is `scores` in the user's cache folder;
the environment variable REPLACEME_CACHE moves it.
"""

import gzip
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from replaceme_core.evaluation.scores import Sample, Score, TaskScores
from replaceme_core.storage.cache import cache_folder, write_atomically

logger = logging.getLogger(__name__)
LAYOUT = 2
"""one more whenever what is kept changes its meaning, so that older results are asked again"""
_kept: dict[str, Any] = {}
"""what could not be written: a run goes on all the same"""
Read = TypeVar("Read")


def key_of(*parts: Any) -> str:
    """A short name for everything that changes a result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def load_task(key: str) -> TaskScores | None:
    """The result kept under this key; None if there is none, or if its file is damaged (which is logged)."""
    return _load(f"task-{key}", _task_of)


def save_task(key: str, scores: TaskScores) -> None:
    _save(f"task-{key}", asdict(scores))


def load_entry(key: str) -> dict[str, Any] | None:
    """What an entry of a suite consists of: the keys of its tasks, and the figures of its groups."""
    return _load(f"entry-{key}", _entry_of)


def save_entry(key: str, entry: dict[str, Any]) -> None:
    _save(f"entry-{key}", entry)


def _path(name: str) -> Path:
    return cache_folder() / "scores" / f"{name}.json.gz"


def _save(name: str, data: dict[str, Any]) -> None:
    data = {"layout": LAYOUT, **data}
    try:
        write_atomically(_path(name), gzip.compress(json.dumps(data, default=str).encode(), 6))
    except OSError as error:
        _kept[name] = data
        logger.warning("a benchmark result could not be kept in %s (%s); it stays in memory", _path(name).parent, error)


def _load(name: str, read: Callable[[dict[str, Any]], Read]) -> Read | None:
    path = _path(name)
    try:
        data = _kept.get(name) or json.loads(gzip.decompress(path.read_bytes()))
        if data.get("layout") != LAYOUT:
            return None
        return read(data)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file may raise anything: zlib, unicode, json, missing keys
        logger.warning("the kept result %s is damaged (%s: %s) and is computed anew", path, type(error).__name__, error)
        return None


def _task_of(data: dict[str, Any]) -> TaskScores:
    rest = {key: value for key, value in data.items() if key not in ("layout", "metrics", "samples")}
    metrics = {name: Score(**score) for name, score in data["metrics"].items()}
    return TaskScores(metrics=metrics, samples=[Sample(**row) for row in data["samples"]], **rest)


def _entry_of(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "tasks": dict(data["tasks"]),
        "groups": {group: {name: Score(**score) for name, score in metrics.items()} for group, metrics in data["groups"].items()},
        "parts": {group: list(tasks) for group, tasks in data["parts"].items()},
    }
