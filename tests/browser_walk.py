"""A server of the app and a browser page on it, with the few gestures that a walk needs; screenshots go to tests/screenshots."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHOTS = ROOT / "tests" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_RESTED = """calm => {
  const now = performance.now(), app = document.querySelector('[data-testid="stApp"]');
  if (!app || app.getAttribute('data-test-script-state') !== 'notRunning') { window.__idleSince = null; return false; }
  window.__idleSince ??= now;
  return now - window.__idleSince > calm;
}"""
_CALM_MS = 250
"""how long the script must rest before a walk goes on: a rerun begins a little after the gesture that asked for it"""
_TRIES = 12


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, with a home of its own, ready to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    log = (home / "server.log").open("w")
    environment = {**os.environ, "HOME": str(home), "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true", "--server.port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
        log.close()


class Walk:
    """A browser page with the few gestures that the story needs."""

    def __init__(self, page) -> None:
        from playwright.sync_api import TimeoutError as Late

        self.page = page
        self.late = Late
        self.seconds: dict[str, float] = {}
        page.set_default_timeout(60_000)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Remember how long a stretch of the walk took."""
        began = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - began, 2)

    @contextmanager
    def refitted(self) -> Iterator[None]:
        """Wait until the error after the fit shows another figure than before."""
        figure = self.page.locator('[data-testid="stMetric"]', has_text="Error after the fit").locator('[data-testid="stMetricValue"]')
        before = figure.inner_text()
        yield
        self.page.wait_for_function("([shown, old]) => shown.innerText !== old", arg=[figure.element_handle(), before])

    def settle(self) -> None:
        """Wait until the script has rested for a moment."""
        self.page.evaluate("window.__idleSince = null")
        self.page.wait_for_function(_RESTED, arg=_CALM_MS)

    def fill(self, label: str, value: str) -> None:
        """Write into a text box and leave it with Enter."""
        box = self.page.get_by_role("textbox", name=label, exact=True)
        box.fill(value)
        box.press("Enter")
        self.settle()

    def pick(self, label: str, option: str) -> None:
        """Choose from a drop-down list. A rerun on a slow machine can close the list that was just opened: open it again, as a person would."""
        entry = self.page.get_by_role("option", name=option).first
        for _ in range(_TRIES):
            self.page.get_by_role("combobox", name=label).first.click()
            try:
                entry.click(timeout=5_000)
            except self.late:
                self.page.keyboard.press("Escape")
                self.settle()
            else:
                self.settle()
                return
        raise AssertionError(f"'{label}' never offered '{option}'")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).first.click()

    def go(self, title: str) -> None:
        self.page.locator('[data-testid="stSidebar"] a', has_text=title).first.click()
        heading = "ReplaceMe Studio" if title == "Overview" else title.split(" · ")[-1]
        self.page.get_by_role("heading", name=heading, exact=True).first.wait_for()
        self.settle()
        self.healthy()

    def cell(self, start: int, end: int):
        return self.page.locator(f'path[aria-label^="start: {start}; end: {end};"]').first

    def healthy(self) -> None:
        """No exception box, no error."""
        assert self.page.locator('[data-testid="stException"]').count() == 0
        assert self.page.locator('[data-testid="stAlertContentError"]').count() == 0

    def shot(self, name: str) -> None:
        """The whole page, not only its first screen."""
        size = dict(self.page.viewport_size)
        height = self.page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": min(int(height) + 20, 4000)})
        self.page.wait_for_timeout(250)
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")
        self.page.set_viewport_size(size)


@pytest.fixture(scope="module")
def walk(address: str) -> Iterator[Walk]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        walk = Walk(browser.new_page(viewport={"width": 1280, "height": 900}))
        walk.page.goto(address)
        walk.page.get_by_role("button", name="Start with the demo model").wait_for()
        yield walk
        browser.close()
