"""A folder as one zip file, with progress: weights are stored as they are, since they do not compress, and text is deflated."""

import zipfile
from pathlib import Path

from replaceme_core.errors import ExportError
from replaceme_core.progress import SILENT, Progress
from replaceme_core.storage.folders import explain

_CHUNK = 4 << 20
_STORED = (".safetensors", ".png")


def zip_folder(folder: Path, target: Path, progress: Progress = SILENT) -> int:
    """Writes `target` with the folder's name inside and returns its bytes. Raises `ExportError`; leaves nothing if it fails or is cancelled."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total, done = sum(path.stat().st_size for path in files), 0
    if not files:
        raise ExportError(f"'{folder}' holds no file to put into a zip.")
    try:
        with zipfile.ZipFile(target, "w", allowZip64=True) as archive:
            for path in files:
                entry = zipfile.ZipInfo.from_file(path, Path(folder.name) / path.relative_to(folder))
                entry.compress_type = zipfile.ZIP_STORED if path.suffix in _STORED else zipfile.ZIP_DEFLATED
                with path.open("rb") as source, archive.open(entry, "w") as sink:
                    while chunk := source.read(_CHUNK):
                        progress.update(done / 2**20, total / 2**20, "MiB", "packing the zip")
                        sink.write(chunk)
                        done += len(chunk)
        progress.update(total / 2**20, total / 2**20, "MiB", "packing the zip")
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.filename is not None and Path(error.filename) != target:
            raise  # a file of the folder could not be read
        raise explain(error, target) from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target.stat().st_size
