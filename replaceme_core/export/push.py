"""Puts an exported folder on the hub: private unless it is said otherwise, with the head that the hub's card needs, resumable.

The token is the environment's (HF_TOKEN) or that of the client's own login; it is never asked for, shown or kept. Large files go
first, one by one: what came through is not sent again. The last step is one commit, so that nobody sees half a model.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from replaceme_core.errors import ExportError, InputError, ReplaceMeError, quoted
from replaceme_core.export import card_metadata
from replaceme_core.guard import guarded
from replaceme_core.progress import SILENT, Progress

_LARGE = ".safetensors"
_OURS = "report.json"
_BLANK = {".gitattributes", "README.md"}
"""files that the hub itself puts into a new repository"""
LOGIN = "set the environment variable HF_TOKEN to a token that may write, or log in once with `hf auth login`"


@dataclass(frozen=True)
class Parcel:
    """What would go, and what its card says."""

    folder: Path
    name: str
    private: bool
    files: tuple[Path, ...]
    head: dict[str, Any]
    notes: tuple[str, ...]
    """what to know before others can read it"""

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class Pushed:
    """Where it is now."""

    url: str
    commit: str
    n_files: int
    n_bytes: int


def packed(folder: str | Path, name: str, private: bool = True) -> Parcel:
    """What a push of this export or run would send. Asks the hub for the licence of the original, if it answers. Raises `InputError`."""
    from huggingface_hub.utils import validate_repo_id

    base = Path(folder)
    place = base / "model" if (base / "plan.yaml").is_file() else base
    if not (place / "config.json").is_file() or not any(place.glob(f"*{_LARGE}")):
        raise InputError(f"'{folder}' holds no exported model (config.json and safetensors); `replaceme runs` lists those that do.")
    if not (place / _OURS).is_file():
        raise InputError(f"'{folder}' is not an export of this program ({_OURS} is missing); other models go with `hf upload`.")
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise InputError(
            f"'{name}' is no name for the hub: OWNER/NAME, of letters, digits, '-', '_' and '.' ({quoted(error, 120)})."
        ) from error
    if name.count("/") != 1:
        raise InputError(f"'{name}' names no owner; give OWNER/NAME, for example your user name and '{name}'.")
    files = tuple(
        sorted(
            path for path in place.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.relative_to(place).parts)
        )
    )
    recipe = yaml.safe_load((place / "recipe.yaml").read_text(encoding="utf-8")) if (place / "recipe.yaml").is_file() else {}
    licence = _licence(recipe)
    return Parcel(place, name, private, files, card_metadata.metadata(place, name, licence), tuple(_notes(recipe, files, licence)))


@guarded
def push(parcel: Parcel, progress: Progress = SILENT) -> Pushed:
    """Sends it. Raises `ExportError` for what the hub or the network refuses; a second call goes on where the first one stopped."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    token = os.environ.get("HF_TOKEN") or get_token()
    if not token:
        raise ExportError(f"There is no login for the hub: {LOGIN}.")
    api = HfApi(token=token)
    with _explained(parcel, token), _no_bars():
        unit, size = ("MB", 1e6) if parcel.n_bytes >= 1e7 else ("kB", 1e3)
        whole = round(parcel.n_bytes / size, 2)
        progress.update(0, whole, unit, "asking the hub")
        held = _made(api, parcel)
        sent = 0
        operations: list[Any] = []
        for path in sorted(parcel.files, key=lambda path: path.suffix != _LARGE):
            inside = path.relative_to(parcel.folder).as_posix()
            progress.update(round(sent / size, 2), whole, unit, f"uploading {inside}")
            added = CommitOperationAdd(inside, _card(path, parcel) if inside == "README.md" else str(path))
            if path.suffix == _LARGE:
                api.preupload_lfs_files(parcel.name, [added], free_memory=False, num_threads=1)
            operations.append(added)
            sent += path.stat().st_size
        progress.update(whole, whole, unit, "making it one commit")
        named = {operation.path_in_repo for operation in operations}
        operations += [CommitOperationDelete(old) for old in held if old.endswith(_LARGE) and old not in named]
        done = api.create_commit(parcel.name, operations, commit_message="Pruned model, its run config and its checks")
    return Pushed(f"{api.endpoint}/{parcel.name}", done.oid, len(parcel.files), parcel.n_bytes)


def _made(api: Any, parcel: Parcel) -> list[str]:
    """The repository, made if it is not there, and the files that it holds. Refuses one that is open where private was asked, or somebody's other model."""
    api.create_repo(parcel.name, private=parcel.private, exist_ok=True)
    info = api.model_info(parcel.name)
    held = [each.rfilename for each in info.siblings or []]
    if parcel.private and info.private is False:
        raise ExportError(f"'{parcel.name}' exists and is public; say that it may be public (--public), or choose another name.")
    if set(held) - _BLANK and _OURS not in held:
        raise ExportError(f"'{parcel.name}' exists and holds another model ({sorted(set(held) - _BLANK)[0]}); choose another name.")
    return held


def _card(path: Path, parcel: Parcel) -> bytes:
    """The card with its head for the hub; the file beside the weights stays as it is."""
    card = path.read_text(encoding="utf-8").replace("path/to/this/folder", parcel.name)
    return card_metadata.with_head(card, parcel.head).encode()


def _licence(recipe: dict[str, Any]) -> str | None:
    """Of the original: as its card on the hub says, or the card in its folder."""
    from huggingface_hub import HfApi

    base = card_metadata.base_of(recipe)
    if base is None:
        return card_metadata.licence_beside(str(recipe.get("model", {}).get("path", "")))
    try:
        said = HfApi(token=os.environ.get("HF_TOKEN")).model_info(base, timeout=5).card_data
    except Exception:  # no network, or it is not there any more: the note says that it is missing
        return None
    licence = getattr(said, "license", None)
    return str(licence) if licence else None


def _notes(recipe: dict[str, Any], files: tuple[Path, ...], licence: str | None) -> Iterator[str]:
    if licence is None:
        yield "The licence of the original is not known, so the card names none; add it on the hub's page, since it holds for this model too."
    paths = [
        value
        for section in recipe.values()
        if isinstance(section, dict)
        for value in section.values()
        if isinstance(value, str) and value.startswith(("/", "~"))
    ]
    if paths:
        yield f"The run config names paths of this machine ({', '.join(paths)})."
    texts = [
        path.name
        for path in files
        if path.suffix in (".txt", ".jsonl", ".csv", ".parquet") and path.name not in ("merges.txt", "vocab.txt")
    ]
    if texts:
        yield f"The calibration text goes with it ({', '.join(texts)})."


@contextmanager
def _explained(parcel: Parcel, token: str) -> Iterator[None]:
    """What the hub and the network refuse, in a sentence without the token."""
    try:
        yield
    except ReplaceMeError:
        raise
    except Exception as error:  # the client raises its own kinds and those of the libraries below it, some wrapped in RuntimeError
        causes = [each for each in (error, error.__cause__, error.__context__) if each is not None]
        found = next((each for each in causes if getattr(each, "response", None) is not None), error)
        status = getattr(getattr(found, "response", None), "status_code", 0)
        if status == 401:
            raise ExportError(f"The hub does not know this login; {LOGIN}.") from None
        if status == 403:
            raise ExportError(
                f"This login may not write to '{parcel.name}'; choose a name under your own user, and a token that may write."
            ) from None
        said = quoted(found, sys.maxsize).replace(token, "…")[:160]
        raise ExportError(
            f"'{parcel.name}' could not be pushed ({type(found).__name__}: {said}). Check the network and push again: files that came through are not sent "
            "a second time, and nothing is visible before the last step."
        ) from None


@contextmanager
def _no_bars() -> Iterator[None]:
    """The client's own bars would share a line with ours."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def plain(parcel: Parcel) -> dict[str, Any]:
    """The parcel as plain data."""
    files = {path.relative_to(parcel.folder).as_posix(): path.stat().st_size for path in parcel.files}
    return {"name": parcel.name, "private": parcel.private, "files": files, "card": parcel.head, "notes": list(parcel.notes)}
