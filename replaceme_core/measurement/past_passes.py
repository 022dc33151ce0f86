"""Passes that were made before, in the cache folder: found again after a restart, shared by all processes, bounded in size.

A pass is a folder, named by what it was made of: the rows (see activation_store), the distances, and a header that is written last. It is
written under a hidden name and renamed, so that a crash leaves no half pass, and the next writer removes what one left. Those that were not
used for longest go first; a process that reads one of them keeps it open.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from jaxtyping import Float64
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import DistanceMatrix, Positions, StreamLengths
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import quoted
from replaceme_core.measurement.activation_store import ActivationStore, Layout, Rows, Writer
from replaceme_core.storage.cache import CACHE, cache_folder
from replaceme_core.storage.folders import remove_leftovers, unnamed, write_json
from replaceme_core.storage.shelf import LIMIT, limit

_logger = logging.getLogger(__name__)
_FORMAT = 1
"""one more whenever a file changes its meaning, so that older passes are made again"""
_ROWS, _DISTANCES, _HEADER = "rows.bin", "distances.safetensors", "pass.json"


@dataclass(frozen=True, eq=False)
class Found:
    """What a finished pass measured, and its store."""

    distances: dict[Positions, DistanceMatrix]
    norms: Float64[Tensor, " boundaries"]
    lengths: StreamLengths
    padding_share: float
    seconds: float
    store: ActivationStore | None
    """of a pass that was made before"""


def folder() -> Path:
    """Where the passes are."""
    return cache_folder() / "passes"


def key_of(model_fingerprint: str, calibration: CalibrationSet) -> str:
    """Of all that a pass depends on. Token ids count themselves; of images the set's own fingerprint does, so that none is opened for it."""
    made_of = (
        f"{_FORMAT} {model_fingerprint} {calibration.fingerprint} {calibration.heldout} {calibration.lengths} {calibration.skip_first}"
    )
    digest = hashlib.sha256(made_of.encode())
    for sequence in () if calibration.positions else calibration.sequences:
        digest.update(sequence.numpy().tobytes())
    return digest.hexdigest()[:24]


def find(model_fingerprint: str, calibration: CalibrationSet, wanted: Layout) -> Found | None:
    """A pass of this model over this set that holds every point of `wanted`; one that is damaged is removed."""
    for path in sorted(folder().glob(f"{key_of(model_fingerprint, calibration)}-*")):
        try:
            header = json.loads((path / _HEADER).read_text(encoding="utf-8"))
            layout = Layout.parse(header["layout"])
            if (path / _ROWS).stat().st_size < layout.n_bytes:
                raise ValueError("the file of rows is too short")
            if layout.holds(wanted):
                os.utime(path)
                return _opened(path, header, layout, calibration)
        except (OSError, MemoryError) as error:
            if isinstance(error, FileNotFoundError):  # removed by another process in this moment, or half of it is gone
                _remove(path)
        except Exception as error:  # whatever a damaged file raises in the libraries that read it
            _logger.warning("the pass %s is damaged (%s) and is made again", path, quoted(error))
            _remove(path)
    return None


def _opened(path: Path, header: dict[str, Any], layout: Layout, calibration: CalibrationSet) -> Found:
    from safetensors.torch import load_file

    tensors = load_file(path / _DISTANCES)
    distances = {
        cast(Positions, name): DistanceMatrix(tensors[f"{name}.values"], spread=tensors[f"{name}.spread"], **described)
        for name, described in header["distances"].items()
    }
    lengths = StreamLengths(tensors["typical"], tensors["largest"], tensors["first"])
    rows = open(path / _ROWS, "rb")  # noqa: SIM115  open as long as the store is: another process may remove the folder
    store = ActivationStore(rows, layout, Rows.of(calibration, header["order"]), path.name.partition("-")[0])
    return Found(distances, tensors["norms"], lengths, header["padding_share"], header["seconds"], store)


def make_room(n_bytes: int) -> str:
    """Removes passes that were not used for longest until there is room for so many bytes; a sentence, and nothing removed, if there is none."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place)
    sizes = {path: _size(path) for path in _passes()}
    taken, free = sum(sizes.values()), shutil.disk_usage(place).free
    most = limit(free + taken)
    if n_bytes > min(free + taken, most):
        return (
            f"The activations of this pass take {memory.size(n_bytes)}, and there is room for {memory.size(min(free + taken, most))} in '{place}'. "
            f"Use fewer tokens (max_tokens), name the span that is fitted, free space, set {CACHE} to a folder on another disk, or raise {LIMIT}."
        )
    if taken + n_bytes <= most and n_bytes <= free:
        return ""
    for path in sorted(sizes, key=_used):
        if taken + n_bytes <= most and n_bytes <= free:
            break
        _remove(path)
        taken, free = taken - sizes[path], free + sizes[path]
    return ""


def room() -> int:
    """Bytes that a pass may take now, with the older ones gone."""
    place = folder()
    parent = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free + held()[1]
    return min(free, limit(free))


def held() -> tuple[int, int]:
    """How many passes there are, and their bytes on the disk."""
    sizes = [_size(path) for path in _passes()]
    return len(sizes), sum(sizes)


def clear() -> None:
    """Removes all passes; those that somebody reads stay readable there until they are let go."""
    for path in _passes():
        _remove(path)


def _passes() -> list[Path]:
    """Those that are finished; one that a process is writing has a hidden name."""
    return [path for path in folder().iterdir() if path.is_dir() and not path.name.startswith(".")] if folder().is_dir() else []


def _size(path: Path) -> int:
    """What it takes on the disk: a file may have holes; one that another process removes in this moment takes nothing."""
    size = 0
    with suppress(FileNotFoundError):
        for each in path.iterdir():
            size += each.stat().st_blocks * 512 if each.is_file() else 0
    return size


def _used(path: Path) -> float:
    """When it was used last."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _remove(path: Path) -> None:
    """Under a hidden name first, so that nobody finds half of it."""
    with suppress(OSError):
        going = path.with_name(f".{path.name}.writing")
        path.rename(going)
        shutil.rmtree(going, ignore_errors=True)


class Recorder:
    """Writes the store of one pass; where the disk cannot take it the pass goes on without, and `lacking` says so."""

    def __init__(self, layout: Layout, staging: Path | None, lacking: str, shared: bool) -> None:
        self._layout, self._staging, self.lacking, self._shared = layout, staging, lacking, shared
        self.writers = () if lacking else layout.writers
        """blocks whose M is asked for"""
        self._file: BinaryIO | None = None
        self._writer: Writer | None = None

    def add(self, boundaries: Sequence[Tensor], writers: dict[int, Tensor]) -> None:
        """The states of one batch, [tokens, width] each, padding dropped; the first one says in which dtype they are kept."""
        if self.lacking:
            return
        try:
            if self._writer is None:
                self._layout = replace(self._layout, dtype=str(boundaries[0].dtype).removeprefix("torch."))
                self._file = _file(self._staging)
                self._file.truncate(self._layout.n_bytes)  # points that are short of rows, too, can be read
                self._writer = Writer(self._file, self._layout)
            self._writer.add(boundaries, writers)
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        reason = "the disk became full" if error.errno == errno.ENOSPC else f"the disk said: {error.strerror or error}"
        self.lacking = (
            f"The activations of this pass could not be stored ({reason}; '{folder()}', {memory.size(self._layout.n_bytes)} in all), so that "
            "transforms cannot be fitted; the distances are measured. Free space, or use fewer tokens (max_tokens), and measure again."
        )
        self.drop()
        if self._staging is not None:
            (self._staging / _ROWS).unlink(missing_ok=True)

    def drop(self) -> None:
        """Closes the file of a pass that is not finished."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def finish(
        self, model_fingerprint: str, calibration: CalibrationSet, order: list[int], found: dict[str, Any]
    ) -> ActivationStore | None:
        """The store of `order`, the sequences in the order in which they were read. Without one (`lacking`) nothing is kept.

        `found` is what else a `Found` holds.
        """
        from safetensors.torch import save_file

        if self.lacking or self._file is None:
            return None
        self._file.flush()
        if self._staging is not None:
            distances: dict[Positions, DistanceMatrix] = found["distances"]
            tensors = {"norms": found["norms"], **vars(found["lengths"])}
            tensors |= {f"{name}.{part}": getattr(matrix, part) for name, matrix in distances.items() for part in ("values", "spread")}
            described = {
                name: {"positions": m.positions, "n_tokens": m.n_tokens, "n_sequences": m.n_sequences} for name, m in distances.items()
            }
            header = {"layout": asdict(self._layout), "order": order, "distances": described}
            header |= {"padding_share": found["padding_share"], "seconds": found["seconds"]}
            points = hashlib.sha256(repr((self._layout.boundaries, self._layout.writers)).encode()).hexdigest()[:8]
            with suppress(OSError):  # what cannot be named now is read all the same, and measured again another time
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, self._staging / _DISTANCES)
                write_json(self._staging / _HEADER, header)
                self._staging.rename(folder() / f"{key_of(model_fingerprint, calibration)}-{points}")
        file, self._file = self._file, None  # the store's from here on
        key = key_of(model_fingerprint, calibration) if self._shared else ""
        return ActivationStore(file, self._layout, Rows.of(calibration, order), key)


def _file(staging: Path | None) -> BinaryIO:
    """For the rows; without a folder for the pass one that has no name, and vanishes with this process."""
    place = folder() if folder().is_dir() and os.access(folder(), os.W_OK) else None
    return cast(BinaryIO, tempfile.TemporaryFile(dir=place)) if staging is None else open(staging / _ROWS, "w+b")


@contextmanager
def recorder(layout: Layout, shared: bool) -> Iterator[Recorder]:
    """For one pass; `shared` by other processes and later ones, else gone with this process."""
    lacking, staging = "", None
    with ExitStack() as stack:
        with suppress(OSError):  # a cache that cannot be written: the store is this process's own
            lacking = make_room(layout.n_bytes)
            if shared and not lacking:
                staging = stack.enter_context(unnamed(folder()))
        recorder = Recorder(layout, staging, lacking, shared)
        stack.callback(recorder.drop)
        yield recorder
