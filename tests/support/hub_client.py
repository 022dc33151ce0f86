"""The clients of the hub turned to the server of hub_server.py, with a cache of their own for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Hub, running

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Hub]:
    """One server for all tests of a process."""
    with running() as server:
        yield server


@pytest.fixture
def hub(hub_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, as huggingface_hub, transformers and datasets see it in this process: what HF_ENDPOINT and HF_HOME would have set at their import."""
    import datasets.config
    from huggingface_hub import constants, hf_file_system

    home = tmp_path / "hf"
    for key in (*_PROXIES, "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_server.address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its second way of storing; the server speaks the first
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16_384)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub_server.address)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    hf_file_system.HfFileSystem.clear_instance_cache()
    yield hub_server
    hub_server.calm()
    hub_server.repos.clear()
    hub_server.renamed.clear()
    hub_server.objects.clear()


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Of a process of its own that finds this hub by HF_ENDPOINT."""
    kept = {key: value for key, value in os.environ.items() if key not in (*_PROXIES, "HF_TOKEN", "HF_HUB_OFFLINE")}
    return kept | {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}


class Told:
    """A progress that remembers, and can stop the work."""

    def __init__(self, stop_at: float | None = None) -> None:
        self.said: list[tuple[float, float, str, str]] = []
        self._stop_at = stop_at

    def update(self, done: float, total: float, unit: str, what: str) -> None:
        from replaceme_core.errors import Cancelled

        self.said.append((done, total, unit, what))
        if self._stop_at is not None and unit in ("MB", "kB") and total and done / total >= self._stop_at:
            raise Cancelled("Cancelled.")

    @property
    def sizes(self) -> list[tuple[float, float]]:
        return [(done, total) for done, total, unit, _ in self.said if unit in ("MB", "kB")]
