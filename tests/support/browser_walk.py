"""A server of the app and a browser page on it for a module of walks; screenshots go to tests/screenshots. See benchmarks/browser.py."""

from collections.abc import Iterator

import pytest

from benchmarks.browser import CHROMIUM as CHROMIUM
from benchmarks.browser import ROOT as ROOT
from benchmarks.browser import Walk as Walk
from benchmarks.browser import browser, serve

SHOTS = ROOT / "tests" / "screenshots"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, with a home of its own, ready to answer."""
    with serve(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def walk(address: str, chromium) -> Walk:
    """A page at 1280 × 900 on the Overview."""
    walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 900}))
    walk.open(address)
    walk.page.get_by_role("button", name="Start with the small demo, in seconds").wait_for()
    return walk
