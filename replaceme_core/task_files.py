"""Which benchmarks a plan's `tasks` stands for: the shipped suite, a folder of plain lm-eval YAML files, or names.

A task file is data: YAML with functions is refused. File names in it are relative to the file, wherever it lies.
"""

from pathlib import Path
from typing import Any

import yaml

from replaceme_core.calibration import DEMO
from replaceme_core.errors import EvaluationError


def task_specs(tasks: str) -> list[Any]:
    """Task configurations of a folder, or the names for lm-eval to resolve.

    'demo' is the shipped folder, 'demo:colour,count' some of its tasks.
    """
    if tasks.startswith("demo:"):
        return _some(tasks.removeprefix("demo:"))
    folder = DEMO / "tasks" if tasks == "demo" else Path(tasks)
    if not folder.is_dir():
        return [name.strip() for name in tasks.split(",") if name.strip()]
    specs = [_read(path) for path in sorted(folder.glob("*.yaml"))]
    if not specs:
        raise EvaluationError(f"The folder {folder} holds no .yaml task.")
    return specs


def _some(names: str) -> list[Any]:
    """The shipped tasks that are named, with or without their prefix 'demo_'."""
    known = {spec["task"].removeprefix("demo_"): spec for spec in task_specs("demo")}
    wanted = [name.strip().removeprefix("demo_") for name in names.split(",") if name.strip()]
    missing = [name for name in wanted if name not in known]
    if missing or not wanted:
        raise EvaluationError(f"The demo suite has no task '{', '.join(missing)}'; it has {', '.join(known)}.")
    return [known[name] for name in wanted]


def _read(path: Path) -> dict[str, Any]:
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationError(f"{path} is not a plain YAML task ({reason}); tasks with functions of their own are not run.") from error
    if not isinstance(spec, dict) or "task" not in spec:
        raise EvaluationError(f"{path} has no entry 'task'; it is not an lm-eval task.")
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
