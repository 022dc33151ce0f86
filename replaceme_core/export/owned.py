"""Which folders are runs and exports of ours beyond doubt: no other folder is ever removed.

A name proves nothing, for report.json, plan.yaml and recipe.yaml are common ones: a file must say what only ours say. And a folder that
holds anything which no run and no export writes is somebody's place of work, whatever lies beside it.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from replaceme_core.errors import PlanError
from replaceme_core.export import mergekit
from replaceme_core.plans.plan import PruningPlan
from replaceme_core.plans.section import read_yaml
from replaceme_core.surgery import transform_file

_WRITTEN = (
    *("plan.yaml", "recipe.yaml", "report.json", "comparison.json", "scores.json", transform_file.NAME, mergekit.NAME),
    *("README.md", "errors.png", "distances.png", "scores.png"),
    *("config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *(
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
        "preprocessor_config.json",
    ),
)
"""files of a run, and of the model in it"""
_REPORTED = {"name", "span", "method", "report"}
"""entries of every report.json"""


def is_ours(folder: Path) -> bool:
    """Whether a file of the folder, or of the model in it, can only be ours, and no file can be somebody else's. Raises nothing."""
    try:
        places = [folder, *(model for model in [folder / "model"] if model.is_dir())]
        return any(map(_says_so, places)) and not any(_foreign(folder, _texts(places)))
    except OSError:
        return False


def _says_so(folder: Path) -> bool:
    return _is_report(folder / "report.json") or bool(_plans(folder)) or transform_file.says_ours(folder / transform_file.NAME)


def _is_report(path: Path) -> bool:
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.keys() >= _REPORTED


def _plans(folder: Path) -> list[PruningPlan]:
    """The plan of a run and the run config of an export, where they are there and whole."""
    found = []
    for path in (folder / "plan.yaml", folder / "recipe.yaml"):
        try:
            found.append(PruningPlan.parse(read_yaml(path, "plan")))
        except PlanError:
            continue
    return found


def _texts(places: list[Path]) -> set[str]:
    """Calibration texts that an export holds: those that its run config reads from beside itself."""
    return {Path(name).name for place in places for plan in _plans(place) for name in plan.calibration.files}


def _foreign(folder: Path, texts: set[str]) -> Iterator[Path]:
    """What neither a run nor an export writes."""
    for path in folder.iterdir():
        if path.is_dir() and path.name == "model":
            yield from _foreign(path, texts)
        elif path.is_dir() and path.name == "additional_chat_templates":
            yield from (each for each in path.iterdir() if each.suffix != ".jinja")
        elif path.is_dir() or not (path.name in texts or any(fnmatch(path.name, pattern) for pattern in _WRITTEN)):
            yield path
