"""The names that lm-eval knows, for search and for loading a few of them fast.

Reading every task file of lm-eval takes about ten seconds; it is done once per version of lm-eval and kept in the cache folder.
"""

import json
import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from replaceme_core.progress import SILENT, Progress
from replaceme_core.storage.cache import cache_folder, write_atomically

logger = logging.getLogger(__name__)
Kind = Literal["task", "group", "tag"]


@dataclass(frozen=True)
class Known:
    """A name, what kind it is, where its file lies (below lm-eval's folder of tasks), and what belongs to it."""

    name: str
    kind: Kind
    folder: str
    children: tuple[str, ...] = ()
    output_type: str = ""


def is_built() -> bool:
    """Whether the index can be had at once."""
    return _file().is_file()


def index(progress: Progress = SILENT) -> dict[str, Known]:
    """All names. The first call for a version of lm-eval takes about ten seconds."""
    path = _file()
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("the task index %s is not readable (%s) and is built anew", path, error)
    progress.update(0, 0, "", "reading the names of all lm-eval tasks (once)")
    rows = _build()
    try:
        write_atomically(path, json.dumps(rows).encode())
    except OSError as error:
        logger.warning("the task index could not be kept in %s (%s)", path, error)
    return _entries(rows)


def search(words: str, known: dict[str, Known], most: int = 50) -> list[Known]:
    """Names that hold every word, those that begin with the first one first, short ones before long ones."""
    wanted = words.lower().split()
    found = [entry for entry in known.values() if all(word in entry.name.lower() for word in wanted)]
    first = wanted[0] if wanted else ""
    found.sort(key=lambda entry: (entry.name.lower() != first, not entry.name.lower().startswith(first), len(entry.name), entry.name))
    return found[:most]


def folders_of(names: list[str], known: dict[str, Known]) -> list[str]:
    """Folders with the files of these names and of all that belongs to them, without those inside another one."""
    seen: set[str] = set()
    open_names = [name for name in names if name in known]
    while open_names:
        name = open_names.pop()
        if name not in seen:
            seen.add(name)
            open_names += [child for child in known[name].children if child in known]
    root = tasks_folder()
    tops = {known[name].folder.split("/")[0] for name in seen if known[name].folder}
    return [str(root / top) for top in sorted(tops)]


def tasks_folder() -> Path:
    """Where lm-eval keeps its task files."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _file() -> Path:
    return cache_folder() / f"tasks-lm-eval-{version('lm-eval')}.json"


@cache
def _read(path: Path, _modified: int) -> dict[str, Known]:
    return _entries(json.loads(path.read_text(encoding="utf-8")))


def _entries(rows: list[dict[str, Any]]) -> dict[str, Known]:
    return {row["name"]: Known(**{**row, "children": tuple(row["children"])}) for row in rows}


def _build() -> list[dict[str, Any]]:
    from lm_eval.tasks import TaskManager

    root, rows = tasks_folder(), []
    for name, entry in TaskManager().task_index.items():
        config = entry.cfg or {}
        kind = {"GROUP": "group", "TAG": "tag"}.get(entry.kind.name, "task")
        children = sorted(entry.tags) if kind == "tag" else _children(config.get("task")) if kind == "group" else []
        folder = str(entry.yaml_path.parent.relative_to(root)) if entry.yaml_path else ""
        rows.append(
            {"name": name, "kind": kind, "folder": folder, "children": children, "output_type": str(config.get("output_type") or "")}
        )
    return rows


def _children(members: Any) -> list[str]:
    """Names in a group's list of tasks, groups written into it included."""
    found: list[str] = []
    for member in members if isinstance(members, list) else [members]:
        if isinstance(member, str):
            found.append(member)
        elif isinstance(member, dict):
            found += _children(member["task"]) if isinstance(member.get("task"), list) else [str(member.get("task") or member.get("group"))]
    return found
