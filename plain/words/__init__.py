"""The word lists of the plain suite, read from the YAML and text files of this folder."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).resolve().parent


@cache
def words(name: str) -> Any:
    """The content of `words/NAME.yaml`. Shared between callers: read it, do not change it."""
    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


@cache
def passages() -> list[str]:
    """The prose passages, shared like `words`: separated by blank lines in `words/prose.txt`."""
    return [" ".join(part.split()) for part in (_FOLDER / "prose.txt").read_text(encoding="utf-8").split("\n\n") if part.strip()]
