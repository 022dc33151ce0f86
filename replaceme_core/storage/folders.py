"""Folders that appear whole or not at all, one writer at a time; and JSON that every reader accepts.

A folder is written as `.NAME.writing` beside its target, under a lock that ends with its process, and takes its name at the
end. What a killed process left is removed by the next one that writes the same target.
"""

import errno
import json
import math
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: writers are not kept apart there
    fcntl = None  # type: ignore[assignment]

from replaceme_core.errors import ExportError, quoted

_ENDING = ".writing"


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
    """A hidden folder beside `target` that takes its name when the block ends well, and vanishes otherwise.

    Raises `ExportError` at once if `target` exists, cannot be written, or is being written by another process; and for what the system
    says of a file in the folder. Every other error of the block passes as it is: a lost connection is no fault of the disk (see `writing`).
    """
    require_new(target)
    staging = target.parent / f".{target.name}{_ENDING}"
    try:
        lock = _taken(staging)
    except OSError as error:
        raise explain(error, target) from error
    named = False
    try:
        if lock is None:
            raise ExportError(f"'{target}' is being written by another process; wait for it, or choose another name.")
        require_new(target)  # another process may have ended in between
        with writing(staging):
            _empty(staging)
        yield staging
        with writing(staging):
            staging.rename(target)
        named = True
    except OSError as error:
        if not _names(error, staging):
            raise
        raise explain(error, target) from error
    finally:
        if lock is not None:
            if not named:
                shutil.rmtree(staging, ignore_errors=True)
            os.close(lock)


@contextmanager
def unnamed(folder: Path) -> Iterator[Path]:
    """A hidden folder in `folder` for what gets its name later, by `rename`; one that has none when the block ends vanishes. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f".{uuid.uuid4().hex}{_ENDING}"
    lock = _taken(staging, wait=True)  # nobody else writes it; who looks for leftovers may hold it for a moment
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within this block files of `folder` are written and nothing else is done: what the system refuses becomes an `ExportError`.

    The system does not always name the file (a full disk is told of a descriptor), so that only the place in the program can.
    An error that names a file elsewhere, or a connection, passes as it is.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ConnectionError) or not (_names(error, folder) or error.filename is None):
            raise
        raise explain(error, folder) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # what a full disk looks like through safetensors
            raise
        raise explain(error, folder) from error


def _names(error: OSError, folder: Path) -> bool:
    """Whether the system names the folder, or a file in it."""
    named = (Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike))
    return any(path.absolute().is_relative_to(folder.absolute()) for path in named)


def leftovers(folder: Path) -> list[Path]:
    """What killed processes left of folders that they were writing below `folder`; none that is still being written."""
    return list(_left(folder))


def remove_leftovers(folder: Path) -> None:
    """Each while its lock is held: whoever begins to write in that moment waits, or makes the folder anew."""
    for path in _left(folder):
        shutil.rmtree(path, ignore_errors=True)


def remove(folder: Path) -> bool:
    """Whether a folder is gone now; one that another process is writing stays."""
    with _held(folder) as held:
        if held:
            shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _left(folder: Path) -> Iterator[Path]:
    """The leftovers, each locked as long as it is looked at."""
    for path in sorted(folder.glob(f".*{_ENDING}")):
        with _held(path) as held:
            if held:
                yield path


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether the folder is locked by us within this block: it is there, nobody writes it, and it still has this name."""
    try:
        lock = _locked(folder) if folder.is_dir() else None
    except OSError:  # it has its name by now, or is gone
        lock = None
    try:
        yield lock is not None and _holds(lock, folder)
    finally:
        if lock is not None:
            os.close(lock)


def _taken(staging: Path, wait: bool = False) -> int | None:
    """The lock of a staging folder, which is made; None: another process has it, unless it is waited for."""
    while True:
        staging.mkdir(exist_ok=True)
        try:
            lock = _locked(staging, wait)
        except FileNotFoundError:  # its owner ended in between
            continue
        if lock is None or _holds(lock, staging):
            return lock
        os.close(lock)


def _holds(lock: int, folder: Path) -> bool:
    """Whether a lock is that of the folder which has this name now: another process may have moved or removed the one that was locked."""
    try:
        return fcntl is None or os.path.samestat(os.stat(folder), os.fstat(lock))
    except FileNotFoundError:
        return False


def _locked(folder: Path, wait: bool = False) -> int | None:
    """An open descriptor that holds the folder's lock, until it is closed or the process ends; None: somebody else has it."""
    if fcntl is None:
        return os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            return None  # any other error: this file system knows no locks on folders
    return descriptor


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def explain(error: Exception, target: Path) -> ExportError:
    """One sentence for what the system said while `target`, or a file of it, was written; a hidden folder is called by its later name."""
    text, target = str(error), Path(*(part.removeprefix(".").removesuffix(_ENDING) if _hidden(part) else part for part in target.parts))
    if getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in text or "No space left" in text:
        return ExportError(
            f"The disk became full while '{target}' was written; nothing was left behind. Free space or choose another folder."
        )
    reason = getattr(error, "strerror", None) or text
    return ExportError(f"'{target}' cannot be written ({reason}); choose a folder you may write to.")


def _hidden(part: str) -> bool:
    return part.startswith(".") and part.endswith(_ENDING)


def said_by_system(error: OSError) -> str:
    """One sentence for what the system said elsewhere: of a connection, or of a file that is not being written by us."""
    reason, place = error.strerror or quoted(error) or type(error).__name__, f" '{error.filename}'" if error.filename else ""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return f"The connection was lost ({reason}). Check the network, then start again; what was fetched before lies in its cache."
    if error.errno is None:  # a library's own
        return f"A file or the network could not be read ({reason}). Check path and network, then start again."
    if error.errno == errno.ENOSPC:
        return f"The disk is full, so that{place or ' a file'} could not be written. Free space, then start again."
    if isinstance(error, FileNotFoundError):
        return f"The file{place} is not there. Check the path, then start again."
    return f"The system refused a file{place} ({reason}). Check that it is there and may be read, then start again."


def put(path: Path, data: bytes | str) -> None:
    """The whole file, or what was there before, whenever the process ends. Raises `OSError`."""
    partly = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partly.write_bytes(data.encode() if isinstance(data, str) else data)
        partly.replace(path)
    except BaseException:
        partly.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """As `put`, with null for what JSON does not have."""
    put(path, json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False))


def plain(data: Any) -> Any:
    """The same data with null for infinity and NaN, which JSON does not have."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
