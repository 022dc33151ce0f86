"""A server of the app and a browser on it, with the few gestures that a walk needs. Tests, timings and screenshots share it.

Nothing here waits for a time: every gesture waits for what it should bring about, and is made again if a rerun swallowed it.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
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
_PATIENCE = 8_000
"""milliseconds that a gesture has to show an effect before it is made again"""
_LONGEST = 180_000
"""milliseconds for the longest wait; the machine may be busy with other things"""


@contextmanager
def serve(
    home: Path, command: tuple[str, ...] = (sys.executable, "-m", "streamlit", "run", "app.py"), cwd: Path = ROOT, **environment: str
) -> Iterator[str]:
    """The address of a server of its own, with a home of its own, once it answers. Raises with the server's log if it does not.

    `command` starts it in `cwd`; the port is put behind it.
    """
    for _ in range(3):  # the free port can be taken by somebody else before the server has it
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        with (home / "server.log").open("w") as log:
            server = _start(home, port, log, environment, command, cwd)
            try:
                if _answers(server, address):
                    yield address
                    return
            finally:
                server.terminate()
                with suppress(subprocess.TimeoutExpired):
                    server.wait(3)
                server.kill()
    raise RuntimeError(f"the server did not start:\n{(home / 'server.log').read_text()[-2000:]}")


def _start(home: Path, port: int, log: Any, environment: dict[str, str], command: tuple[str, ...], cwd: Path) -> "subprocess.Popen[bytes]":
    variables = {
        **os.environ,
        "HOME": str(home),
        "OMP_WAIT_POLICY": "passive",
        "HF_HUB_OFFLINE": "1",
        "REPLACEME_CACHE": str(home / "cache"),
        **environment,
    }
    whole = [*command, "--server.headless", "true", "--server.port", str(port)]
    return subprocess.Popen(whole, cwd=cwd, env=variables, stdout=log, stderr=subprocess.STDOUT)


def _answers(server: "subprocess.Popen[bytes]", address: str) -> bool:
    """Whether the server becomes healthy within two minutes; False as soon as its process ends."""
    late = time.monotonic() + 120
    while time.monotonic() < late and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
            if answer.status == 200:
                return True
        time.sleep(0.1)
    return False


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=_LONGEST)
        try:
            yield chromium
        finally:
            chromium.close()


class Walk:
    """A browser page with the few gestures that the story needs."""

    def __init__(self, page: Any, shots: Path = ROOT / "tests" / "screenshots") -> None:
        from playwright.sync_api import Error
        from playwright.sync_api import TimeoutError as Late

        self.page = page
        self.late = Late
        self.gone = Error
        self.shots = shots
        self.seconds: dict[str, float] = {}
        self.errors: list[str] = []
        """what the page's own program threw, and what it did not get from the server"""
        page.on("crash", lambda: self.errors.append("the browser's process for this page ended"))
        page.on("requestfailed", lambda request: self.errors.append(f"{request.url}: {request.failure}"))
        page.on("pageerror", lambda error: self.errors.append(f"{error.name}: {error.message}\n{(error.stack or '')[:1500]}"))
        page.on("console", lambda said: self.errors.append(said.text[:1500]) if said.type == "error" else None)
        page.set_default_timeout(_LONGEST)
        page.set_default_navigation_timeout(_LONGEST)

    def open(self, address: str, heading: str = "ReplaceMe Studio") -> "Walk":
        """Go to an address and wait for its page."""
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.get_by_role("heading", name=heading, exact=True).first.wait_for()
        self.settle()
        return self

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Remember how long a stretch of the walk took."""
        began = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - began, 2)

    @contextmanager
    def refitted(self) -> Iterator[None]:
        """Wait until the error after the fit shows another figure than before."""
        figure = self.page.locator('[data-testid="stMetric"]', has_text="Error, fitted").locator('[data-testid="stMetricValue"]')
        before = figure.inner_text()
        yield
        self.page.wait_for_function("([shown, old]) => shown.innerText !== old", arg=[figure.element_handle(), before])

    def settle(self) -> None:
        """Wait until the script has rested for a moment."""
        self.page.evaluate("window.__idleSince = null")
        try:
            self.page.wait_for_function(_RESTED, arg=_CALM_MS)
        except self.late as late:
            raise AssertionError(f"{self.page.url} never rests; it says:\n{self.text()}") from late

    def until(self, gesture: Callable[[], None], seen: Any, what: str, rest: bool = True) -> None:
        """Make a gesture, and again as long as `seen`, a locator or a script, does not come true: a rerun on a slow machine can swallow it.

        With `rest` the page has settled afterwards.
        """
        for _ in range(_TRIES):
            with suppress(self.late, self.gone):
                gesture()
            try:
                if isinstance(seen, str):
                    self.page.wait_for_function(seen, timeout=_PATIENCE)
                else:
                    seen.wait_for(timeout=_PATIENCE)
            except self.late:
                self.settle()
                if self._came(seen):
                    return
            else:
                if rest:
                    self.settle()
                return
        raise AssertionError(f"{what} never happened; the page says:\n{self.text()}")

    def _came(self, seen: Any) -> bool:
        """Whether it came about after all, while the page was waited for: then the gesture is not made a second time."""
        return bool(self.page.evaluate(seen) if isinstance(seen, str) else seen.first.is_visible())

    def text(self) -> str:
        main = self.page.locator('[data-testid="stMain"]')
        said = str((main if main.count() else self.page.locator("body")).inner_text())
        return "\n".join([said[:1500], *self.errors[-3:]])

    def fill(self, label: str, value: str) -> None:
        """Write into a text box and leave it with Enter; written again if a rerun put the old text back."""
        box = self.page.get_by_role("textbox", name=label, exact=True).first
        for _ in range(_TRIES):
            box.fill(value)
            box.press("Enter")
            self.settle()
            if box.input_value() == value:
                return
        raise AssertionError(f"'{label}' never kept '{value}'")

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

    def press(self, name: str, seen: Any = None) -> None:
        """Press a button; with `seen`, a locator, until that appears. Never pressed while it is disabled, so never twice for one job."""
        button = self.page.get_by_role("button", name=name).first
        if seen is None:
            button.click()
        else:
            self.until(lambda: button.click(timeout=_PATIENCE), seen, f"pressing '{name}'")

    def go(self, title: str) -> None:
        """Follow the sidebar's link to a page."""
        link = self.page.locator('[data-testid="stSidebar"] a', has_text=title).first
        seen = f"document.title.startsWith('{title.split(' · ')[-1]} · ')"
        self.until(lambda: link.click(timeout=_PATIENCE), seen, f"going to '{title}'")
        self.healthy()

    def cell(self, start: int, end: int) -> Any:
        return self.page.locator(f'path[aria-label^="start: {start}; end: {end};"]').first

    def healthy(self) -> None:
        """No exception box, no error."""
        wrong = self.page.locator('[data-testid="stException"], [data-testid="stAlertContentError"]')
        assert wrong.count() == 0, wrong.first.inner_text()

    def shot(self, name: str) -> Path:
        """The whole page, not only its first screen."""
        size = dict(self.page.viewport_size)
        height = self.page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
        self.page.set_viewport_size({"width": size["width"], "height": min(int(height) + 20, 4000)})
        self.page.wait_for_timeout(250)
        self.shots.mkdir(parents=True, exist_ok=True)
        path = self.shots / f"{name}.png"
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)
        return path
