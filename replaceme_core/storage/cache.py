"""What can be computed again, in the user's cache folder; the environment variable REPLACEME_CACHE moves it."""

import os
import tempfile
from pathlib import Path

CACHE = "REPLACEME_CACHE"
"""environment variable: folder for what can be computed again"""


def cache_folder() -> Path:
    """Where results and indices are kept."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replaceme"


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or none, whenever the process ends. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
