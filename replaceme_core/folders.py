"""Folders that appear whole or not at all, and JSON that every reader accepts."""

import errno
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replaceme_core.errors import ExportError


def require_new(target: Path) -> None:
    """An `ExportError` if `target` exists or cannot be made, before any work is done."""
    if target.exists():
        raise ExportError(f"'{target}' exists already; choose another name or remove it first.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, target) from error


def require_space(target: Path, needed: int) -> None:
    """An `ExportError` if the disk that will hold `target` has fewer than `needed` bytes free."""
    parent = next(p for p in [target.absolute(), *target.absolute().parents] if p.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ExportError(
            f"The disk is full: the export needs {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free at '{parent}'. "
            "Free space or choose another folder."
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that takes its name when the block ends well, and vanishes otherwise."""
    require_new(target)
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise explain(error, target) from error
    try:
        yield staging
        staging.chmod(0o755)
        staging.rename(target)
    except OSError as error:
        raise explain(error, target) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def explain(error: Exception, target: Path) -> ExportError:
    """One sentence for what the system said."""
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in text or "No space left" in text:
        return ExportError(
            f"The disk became full while '{target}' was written; nothing was left behind. Free space or choose another folder."
        )
    reason = getattr(error, "strerror", None) or text
    return ExportError(f"'{target}' cannot be written ({reason}); choose a folder you may write to.")


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def plain(data: Any) -> Any:
    """The same data with null for infinity and NaN, which JSON does not have."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
