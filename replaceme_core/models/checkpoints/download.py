"""Fetches a checkpoint of the hub into the cache of the hub's own client: what is read and no more, in bytes, with Cancel, and checked.

The client keeps whole files, so that a fetch that was stopped goes on with the file it was at; within a file it goes on by itself
when a connection breaks. What came in is compared with the sum that the hub names, which the client leaves undone.
"""

import errno
import fnmatch
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from replaceme_core import memory
from replaceme_core.errors import ModelError, ReplaceMeError, quoted
from replaceme_core.models.checkpoints.checkpoint_files import ADAPTER
from replaceme_core.progress import Progress
from replaceme_core.storage.tensor_files import INDEX, SINGLE

_BESIDE = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "additional_chat_templates/*.jinja")
"""what a configuration and a tokenizer are made of"""
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PIECE = 1 << 22
"""bytes that are read at once to be checked"""
_BROKEN = ("ConnectError", "ReadError", "RemoteProtocolError", "ReadTimeout", "ConnectTimeout", "TimeoutException", "ConnectionError")
"""what a network that fails looks like in the client"""


def fetched(path: str, options: dict[str, Any], progress: Progress) -> Path:
    """The folder of the snapshot with everything that is read of it. Raises `ModelError`; what the client says of a repository passes as it is."""
    from huggingface_hub import HfApi, hf_hub_download

    asked: dict[str, Any] = {"revision": options.get("revision"), "token": options.get("token")}
    found = {
        each.rfilename: each
        for each in HfApi(token=asked["token"]).model_info(path, revision=asked["revision"], files_metadata=True).siblings or []
    }
    index = Path(hf_hub_download(path, INDEX, **asked)) if INDEX in found and SINGLE not in found else None
    names = chosen(path, list(found), index)
    missing = [name for name in names if not _is_whole(path, name, asked["revision"], found[name].size)]
    total = sum(found[name].size or 0 for name in missing)
    _require_space(path, total)
    done = 0
    folder = None
    for name in names:
        report = _bar(progress, done, total, f"downloading {name}")
        report.heard(f"downloading {name}")
        with _explained(path, name):
            file = Path(hf_hub_download(path, name, **asked, tqdm_class=report))  # type: ignore[arg-type]
        if name in missing:
            _require_intact(path, name, file, found[name], report)
            done += found[name].size or 0
        folder = file.parent if name == "config.json" else folder
    if folder is None:
        raise ModelError(f"'{path}' has no config.json on the hub; choose a repository that transformers can read.")
    return folder


def is_away(error: BaseException) -> bool:
    """Whether the hub could not be asked, rather than that it refused: a broken connection, or an error of its own."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return bool({kind.__name__ for kind in type(error).__mro__} & set(_BROKEN)) or status == 429 or status >= 500


def chosen(path: str, names: list[str], index: Path | None = None) -> list[str]:
    """The files of a repository that are read: configuration, tokenizer, and one set of safetensors. Raises `ModelError` if there is none."""
    beside = [name for name in names if any(fnmatch.fnmatch(name, each) and name.count("/") == each.count("/") for each in _BESIDE)]
    weights = [name for name in names if name.endswith(".safetensors") and "/" not in name and not name.startswith("adapter")]
    if index is not None:
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"The index of the weights of '{path}' is damaged on the hub ({INDEX}); choose another revision.") from error
        lacking = sorted(named - set(names))
        if lacking:
            raise ModelError(
                f"'{path}' lacks {len(lacking)} of {len(named)} files of weights on the hub ({lacking[0]}); choose another revision."
            )
        weights = sorted(named)
    elif SINGLE in weights:
        weights = [SINGLE]
        beside = [name for name in beside if name != INDEX]
    if not weights:
        pickled = any(fnmatch.fnmatch(name, each) for name in names for each in _PICKLED)
        raise ModelError(
            f"'{path}' has no safetensors weights; pickled weights can run code and are not read. Choose a converted checkpoint."
            if pickled
            else f"'{path}' has no weights that can be read (safetensors) on the hub; a GGUF file is downloaded first (hf download OWNER/NAME FILE)."
        )
    if ADAPTER in names:
        weights += [name for name in names if name.startswith("adapter") and name.endswith(".safetensors")]
    return [*sorted(beside), *weights]


def _is_whole(path: str, name: str, revision: str | None, size: int | None) -> bool:
    """Whether the cache holds this file in its full length."""
    from huggingface_hub import try_to_load_from_cache

    held = try_to_load_from_cache(path, name, revision=revision)
    return isinstance(held, str) and Path(held).stat().st_size == (size or 0)


def _require_space(path: str, needed: int) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())).free
    if needed > free:
        raise ModelError(
            f"'{path}' needs {memory.size(needed)} more on the disk, and {memory.size(free)} are free at '{cache}'. Free space, or put the cache on a "
            "larger disk (environment variable HF_HOME)."
        )


@contextmanager
def _explained(path: str, name: str) -> Iterator[None]:
    """What the network and the disk do to one file, in a sentence."""
    try:
        yield
    except ReplaceMeError:
        raise
    except Exception as error:  # the client raises errors of three libraries and of the system
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(
                f"The disk became full while '{path}' was fetched ({name}). Free space, or put the cache on a larger disk (environment variable HF_HOME), and "
                "start again: whole files are kept."
            ) from error
        if "Consistency check" in str(error) or is_away(error):
            raise ModelError(
                f"The connection to the hub broke while '{path}' was fetched ({name}: {quoted(error, 120)}). Check the network and start again: whole files "
                "are kept, and it goes on from there."
            ) from error
        raise


def _require_intact(path: str, name: str, file: Path, told: Any, report: "type[_Bytes]") -> None:
    """A `ModelError`, and the file is gone, if it is not what the hub says it is: SHA-256 of large files, git's hash of small ones."""
    size = file.stat().st_size
    digest, right = (hashlib.sha256(), told.lfs.sha256) if told.lfs else (hashlib.sha1(b"blob %d\0" % size), told.blob_id)
    if right is None:
        return
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            report.heard(f"checking {name}")
    if digest.hexdigest() != right:
        blob = file.resolve()
        file.unlink()
        blob.unlink(missing_ok=True)
        raise ModelError(
            f"'{name}' of '{path}' was damaged on its way: its checksum is not the one that the hub names. It has been removed; start again, and try another "
            "network if it happens twice."
        )


class _Bytes:
    """What the hub's client takes for a bar: it counts the bytes of one file into a whole, and hears Cancel."""

    progress: ClassVar[Progress]
    begin: ClassVar[float]
    whole: ClassVar[float]
    what: ClassVar[str]
    counted: ClassVar[float]
    format_dict: ClassVar[dict[str, Any]] = {}

    def __init__(self, *_args: Any, total: float | None = None, initial: float = 0, **_options: Any) -> None:
        self.n, self.total = initial, total

    def update(self, n: float = 1) -> None:
        self.n += n
        type(self).counted = self.begin + self.n
        self.heard(self.what)

    @classmethod
    def heard(cls, what: str) -> None:
        """Report where the whole is, so that Cancel is heard."""
        if cls.whole:
            unit, size = ("MB", 1e6) if cls.whole >= 1e7 else ("kB", 1e3)
            cls.progress.update(round(min(cls.counted, cls.whole) / size, 2), round(cls.whole / size, 2), unit, what)

    def update_transfer(self, _n: float = 1) -> None:
        """Of the client's second way of downloading, which counts what is on the wire apart from what is written."""

    def set_postfix_str(self, *_args: Any, **_options: Any) -> None:
        pass

    set_transfer_postfix_str = set_description = refresh = close = set_postfix_str

    def __enter__(self) -> "_Bytes":
        return self

    def __exit__(self, *_error: object) -> None:
        pass


def _bar(progress: Progress, begin: float, whole: float, what: str) -> type[_Bytes]:
    """The class that the client makes its bar of, for the file that begins at `begin` of `whole` bytes."""
    return type("Bytes", (_Bytes,), {"progress": progress, "begin": begin, "whole": whole, "what": what, "counted": begin})
