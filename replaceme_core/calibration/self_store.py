"""Text that models wrote themselves, found again: shipped for the model that is shipped, else in the user's cache by weights and settings.

A text of more tokens than are asked for will do: it is what a shorter one would begin with.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from replaceme_core.calibration.sampling import Sampling
from replaceme_core.calibration.text_files import Row, parse
from replaceme_core.handle import ModelHandle
from replaceme_core.storage.cache import cache_folder, write_atomically
from replaceme_core.storage.shipped import SMOLLM2

logger = logging.getLogger(__name__)
KINDS = ("chats", "prose")
_LAYOUT = 1
"""raised when questions, beginnings or the way of drawing change"""


@dataclass(frozen=True)
class Writing:
    """What is written, and how."""

    kind: str
    """'chats' or 'prose'"""
    n_tokens: int = 32_768
    """tokens that are kept, at least"""
    max_length: int = 256
    """tokens of one text, or of one answer in a chat, at most"""
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def settings(self) -> dict[str, Any]:
        """What the texts depend on, but for how many they are."""
        return {"layout": _LAYOUT} | {key: value for key, value in asdict(self).items() if key != "n_tokens"}


@dataclass(frozen=True)
class Written:
    """The texts, and what was left out."""

    rows: list[Row]
    n_tokens: int
    """of the texts as the model reads them, chats with their template"""
    n_dropped: int
    """texts that repeat themselves, are all but empty, or were there already"""

    @property
    def share_dropped(self) -> float:
        return self.n_dropped / max(1, self.n_dropped + len(self.rows))


def find(handle: ModelHandle, writing: Writing) -> Written | None:
    """What this model wrote under these settings, if it is as much as is asked for."""
    found = _shipped(handle, writing) or _kept(handle, writing)
    return found if found is not None and found.n_tokens >= writing.n_tokens else None


def keep(handle: ModelHandle, writing: Writing, written: Written) -> None:
    """For the next time; where the cache cannot be written it is only logged."""
    path = _path(handle, writing)
    try:
        write_atomically(path, json.dumps({"settings": writing.settings, **asdict(written)}, ensure_ascii=False).encode())
    except OSError as error:
        logger.warning("the text that '%s' wrote could not be kept in %s (%s)", handle.name, path, error)


def manifest() -> dict[str, Any]:
    """How the shipped texts were made, by kind; empty in an installation of the library alone."""
    path = SMOLLM2 / "calibration" / "manifest.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _shipped(handle: ModelHandle, writing: Writing) -> Written | None:
    """Of the same file or the same weights, under the same settings."""
    facts = manifest().get(writing.kind)
    if facts is None or facts["settings"] != writing.settings:
        return None
    if handle.fingerprint != facts["fingerprint"] and (handle.file_sha256 is None or handle.file_sha256 != facts["file_sha256"]):
        return None
    path = SMOLLM2 / "calibration" / f"{writing.kind}.jsonl"
    return Written(parse(path.name, path.read_bytes(), "text"), facts["n_tokens"], facts["n_dropped"])


def _kept(handle: ModelHandle, writing: Writing) -> Written | None:
    path = _path(handle, writing)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Written(data["rows"], data["n_tokens"], data["n_dropped"])
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file may raise anything
        logger.warning("the kept text %s is damaged (%s: %s) and is written anew", path, type(error).__name__, error)
        return None


def _path(handle: ModelHandle, writing: Writing) -> Any:
    key = hashlib.sha256(json.dumps([handle.fingerprint, writing.settings], sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "own-text" / f"{writing.kind}-{key}.json"
