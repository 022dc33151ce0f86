"""Tasks as plain lm-eval YAML files: the shipped suites, or any folder.

A task file is data: YAML with functions is refused, and so is what lm-eval would take for a program (see `harness.require_data`). File names in
it are relative to the file, wherever it lies.
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from replaceme_core.errors import EvaluationError
from replaceme_core.storage.shipped import SUITES


@cache
def shipped_tasks(suite: str) -> dict[str, dict[str, Any]]:
    """The tasks of a shipped suite by name; each name begins with the suite's: 'plain_capitals'."""
    return {spec["task"]: spec for spec in folder_tasks(SUITES[suite])}


def folder_tasks(folder: Path) -> list[dict[str, Any]]:
    """lm-eval's descriptions of the tasks in a folder. Raises `EvaluationError`."""
    specs = [_read(path) for path in sorted(folder.glob("*.yaml"))]
    if not specs:
        raise EvaluationError(f"The folder {folder} holds no .yaml task.")
    return specs


def _read(path: Path) -> dict[str, Any]:
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationError(f"{path} is not a plain YAML task ({reason}); tasks with functions of their own are not run.") from error
    if not isinstance(spec, dict) or "task" not in spec:
        raise EvaluationError(f"{path} has no entry 'task'; it is not an lm-eval task.")
    if not isinstance(spec["task"], str):
        raise EvaluationError(
            f"{path} describes a group of tasks ('task' is a {type(spec['task']).__name__} and no name); the tasks of a folder are asked one by "
            "one, each counting once in the average. Put the group's file elsewhere."
        )
    options = spec.get("dataset_kwargs")
    if isinstance(options, dict) and "data_files" in options:
        options["data_files"] = _absolute(options["data_files"], path.parent.resolve())
    return spec


def _absolute(files: Any, folder: Path) -> Any:
    """File names made absolute in a name, a list of names, or a mapping of splits to them."""
    if isinstance(files, dict):
        return {split: _absolute(names, folder) for split, names in files.items()}
    if isinstance(files, list):
        return [_absolute(name, folder) for name in files]
    return str(folder / str(files))
