"""A folder in one zip: the same bytes come out, progress is told, and a failed one leaves nothing."""

import errno
import zipfile

import pytest

from replaceme_core.errors import Cancelled, ExportError
from replaceme_core.storage.archive import zip_folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(range(256)) * 40_000)
    (tmp_path / "model" / "README.md").write_text("# card\n" * 2000, encoding="utf-8")
    return tmp_path / "model"


def test_what_comes_out_is_what_went_in_under_the_folders_name(folder, tmp_path):
    seen = []

    class Watch:
        def update(self, *said):
            seen.append(said)

    size = zip_folder(folder, tmp_path / "out.zip", Watch())
    assert size == (tmp_path / "out.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["model/README.md", "model/model.safetensors"]
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / name).read_bytes()
        kinds = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert kinds == {"model/README.md": zipfile.ZIP_DEFLATED, "model/model.safetensors": zipfile.ZIP_STORED}
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_a_cancelled_zip_leaves_nothing(folder, tmp_path):
    class Stop:
        def update(self, done, *_):
            if done > 4:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        zip_folder(folder, tmp_path / "out.zip", Stop())
    assert not (tmp_path / "out.zip").exists()


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(folder, tmp_path):
    class Full:
        def update(self, done, *_):
            if done > 4:
                raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ExportError, match="The disk became full"):
        zip_folder(folder, tmp_path / "out.zip", Full())
    assert not (tmp_path / "out.zip").exists()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="holds no file"):
        zip_folder(tmp_path / "empty", tmp_path / "out.zip")
