"""What a task from a file asks, by its contents: results are kept under it, wherever the files lie and whatever they are called.

The data of a task may be files, patterns of files, or a folder: every one of them is read, so that changed questions are asked anew.
"""

import glob
import hashlib
import json
from pathlib import Path
from typing import Any

_READERS = {"json", "csv", "parquet", "arrow", "text", "pandas", "xml", "webdataset", "imagefolder", "audiofolder"}
"""values of dataset_path that name a kind of file and no place"""


def contents(task: dict[str, Any]) -> str:
    """A hash of lm-eval's description of a task with its data in the place of their names."""
    options = dict(task.get("dataset_kwargs") or {})
    for key, read in (("data_files", _files), ("data_dir", _place)):
        if options.get(key):
            options[key] = read(options[key])
    place = task.get("dataset_path")
    described = task | {"dataset_kwargs": options} | ({"dataset_path": _place(place)} if place and place not in _READERS else {})
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _files(named: Any) -> Any:
    """Names, lists of names and mappings of splits to them; a pattern stands for the files that it matches now."""
    if isinstance(named, dict):
        return {split: _files(each) for split, each in named.items()}
    if isinstance(named, list):
        return [_files(each) for each in named]
    if Path(str(named)).exists():
        return _place(named)
    found = sorted(Path(path) for path in glob.glob(str(named), recursive=True) if Path(path).is_file())
    return [[path.name, _of_file(path)] for path in found] or str(named)


def _place(named: Any) -> Any:
    """A file, or all files of a folder by their names in it; what is not on this machine is its name."""
    path = Path(str(named))
    if path.is_dir():
        return [[str(each.relative_to(path)), _of_file(each)] for each in sorted(path.rglob("*")) if each.is_file()]
    return _of_file(path) if path.is_file() else str(named)


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
