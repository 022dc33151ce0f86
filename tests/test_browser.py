"""One walk through the whole story in Chromium, on the demo model, with screenshots in tests/screenshots."""

import json
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
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'

if CHROMIUM is None and os.environ.get("CI"):
    raise RuntimeError("Chromium is missing: install Debian's package 'chromium', the walk must run here")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
    pytest.mark.skipif(not (ROOT / "assets/demo/model/config.json").is_file(), reason="the demo model is not built"),
]


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
        self.page = page
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
        """Wait until the script rests twice in a row."""
        for _ in range(2):
            self.page.wait_for_timeout(150)
            self.page.wait_for_selector(IDLE)

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


def test_the_whole_story_from_start_to_export(walk: Walk, tmp_path: Path) -> None:
    walk.shot("0_overview")
    choose_blocks(walk)
    with walk.timed("model and fit pages"):
        walk.go("1 · Model")
        walk.shot("1_model")
        walk.go("3 · Fit")
        walk.shot("3_fit")
        walk.press("Keep this variant")
        walk.page.get_by_role("heading", name="Kept variants").wait_for()
        walk.settle()
    with walk.timed("compare page"):
        compare(walk)
    with walk.timed("benchmarks page"):
        benchmark(walk)
    with walk.timed("export page"):
        export(walk, tmp_path / "pruned")
    assert (tmp_path / "pruned" / "model.safetensors").is_file()
    walk.go("Overview")
    walk.shot("0_overview_done")
    (SHOTS / "seconds.json").write_text(json.dumps(walk.seconds, indent=1), encoding="utf-8")
    assert walk.seconds["start to matrix"] < 60, "an absolute bound for a loaded machine; the figure itself is in seconds.json"


def choose_blocks(walk: Walk) -> None:
    with walk.timed("start to matrix"):
        walk.press("Start with the demo model")
        walk.cell(2, 5).wait_for()
    walk.settle()
    walk.shot("2_blocks")
    for cell, said in (((2, 4), "Removes blocks 2–3 of"), ((3, 6), "Removes blocks 3–5 of")):
        with walk.timed("click to refitted report"), walk.refitted():
            walk.cell(*cell).click()
        walk.settle()
        assert walk.page.get_by_text(said).first.is_visible()
    with walk.timed("slider to refitted report"), walk.refitted():
        walk.page.get_by_role("slider").last.press("ArrowRight")
    walk.settle()
    assert walk.page.get_by_text("Removes blocks 3–6 of").first.is_visible()
    walk.healthy()
    walk.shot("2_blocks_clicked")


def compare(walk: Walk) -> None:
    walk.go("4 · Compare")
    walk.press("Write")
    walk.page.get_by_role("heading", name="Where do they part?").wait_for()
    walk.settle()
    walk.press("Measure on held-out text")
    walk.page.get_by_text("that the fit did not see").wait_for()
    walk.settle()
    walk.healthy()
    walk.shot("4_compare")


def benchmark(walk: Walk) -> None:
    walk.go("5 · Benchmarks")
    limit = walk.page.get_by_role("spinbutton", name="Questions per task")
    limit.fill("5")
    limit.press("Enter")
    walk.settle()
    walk.press("Run on 3 models")
    walk.page.get_by_role("heading", name="Which answers changed?").wait_for()
    walk.settle()
    walk.healthy()
    walk.shot("5_benchmarks")


def export(walk: Walk, target: Path) -> None:
    walk.go("6 · Export")
    folder = walk.page.get_by_role("textbox", name="Folder")
    folder.fill(str(target))
    folder.press("Enter")
    walk.settle()
    walk.press("Export")
    walk.page.get_by_text("Exported to").wait_for()
    walk.settle()
    walk.healthy()
    walk.shot("6_export")
