"""The order of the tests, and what is loaded before them. What they share is in tests/support, most of it in tiny_models.py."""

import gc
import os
import tempfile

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["REPLACEME_CACHE"] = tempfile.mkdtemp(prefix="replaceme-tests-")  # nothing that was scored before is found
os.environ.setdefault("REPLACEME_COST_SECONDS", "0")  # no page measures in the background while a test looks at something else

_SHARED = "tests.support.tiny_models"
_PLUGINS = (_SHARED, "tests.support.app_session", "tests.support.browser_walk", "tests.support.hub_client")
_LONG = (
    "browser/test_browser.py", "core/models/test_families.py", "real/test_smollm2.py", "core/healing/test_healing.py", "browser/test_browser_hub.py",
    "core/test_distribution.py", "browser/test_accessibility.py", "core/models/test_devices.py", "browser/test_browser_robust.py", "core/refit",
    "browser", "core/test_pipeline.py", "core/cli", "test_docs.py", "test_wheel.py", "core/studies", "real", "core/test_memory.py",
)  # fmt: skip
"""files and folders of more than half a minute: the first to begin, so that no worker ends long after the other; the browser's apart"""


def pytest_configure(config: pytest.Config) -> None:
    """The leading process of xdist runs no test, and begins without torch and all that needs it."""
    if getattr(config.option, "dist", "no") == "no" or hasattr(config, "workerinput"):
        for name in _PLUGINS:
            config.pluginmanager.import_plugin(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((at for at, name in enumerate(_LONG) if item.nodeid.startswith(f"tests/{name}")), len(_LONG)))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: a collection of garbage need not look at it again, and may come less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
