"""How fast the app feels, in Chromium: from a click to what a person waits for. Prints medians, ranges and goals.

    python -m benchmarks.felt_speed [--repeats 7] [--model smollm2]

Cold start counts from the start of the server's process to the button that can be pressed, with a new browser, without a model.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.browser import Walk, browser, serve
from ui.look.site import PAGES, STEPS

GOALS = {
    "cold start: server, browser, usable Overview": 3.0,
    "new tab on a running server": 3.0,
    "click on a cell to the redrawn matrix": 0.3,
    "slider to the refitted error": 0.3,
    "page change to the page's own content": 0.5,
}
_COLD = 3
"""repeats of the cold start, which takes seconds each"""
_OUTLINED = """([start, end]) => {
  const box = document.querySelector('path[aria-label^="start: ' + start + '; end: ' + end + ';"]').getBoundingClientRect();
  return [...document.querySelectorAll('.mark-rect:not(.cells_marks) path, g.mark-rect path')].some(mark => {
    const other = mark.getBoundingClientRect(), width = parseFloat(getComputedStyle(mark).strokeWidth) || 0;
    return width >= 3 && getComputedStyle(mark).stroke !== 'none' && Math.abs(other.x + other.width / 2 - box.x - box.width / 2) < 3
      && Math.abs(other.y + other.height / 2 - box.y - box.height / 2) < 3; });
}"""
"""whether the outline of the chosen span stands on this cell"""
_CELLS = [(2, 5), (4, 7), (6, 8), (3, 6), (5, 9), (7, 10), (1, 4)]
_OWN = {
    "model": '[data-testid="stMain"] h3:has-text("2. The calibration set")',
    "blocks": 'path[aria-label^="start: 2; end: 5;"]',
    "fit": 'button:has-text("Save and stay")',
    "compare": 'button:has-text("Generate")',
    "benchmarks": 'button:has-text("Run on")',
    "export": 'button:has-text("Export")',
}
"""what a person came to a page for"""


def seconds(gesture: Callable[[], None], done: Callable[[], object]) -> float:
    began = time.perf_counter()
    gesture()
    done()
    return time.perf_counter() - began


def cold_start() -> float:
    """One start of everything."""
    with tempfile.TemporaryDirectory() as home:
        began = time.perf_counter()
        with serve(Path(home)) as address, browser() as chromium:
            page = chromium.new_page()
            page.goto(address, wait_until="commit")
            page.get_by_role("button", name="Start with the small demo, in seconds").wait_for()
            return time.perf_counter() - began


def new_tab(chromium, address: str) -> float:
    page = chromium.new_page()
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.get_by_role("button", name="Start with the small demo, in seconds").wait_for()
    took = time.perf_counter() - began
    page.close()
    return took


def clicks(walk: Walk, repeats: int) -> list[float]:
    found = []
    for start, end in (_CELLS[i % len(_CELLS)] for i in range(repeats)):
        cell = walk.cell(start, end)
        cell.scroll_into_view_if_needed()
        found.append(seconds(cell.click, lambda at=(start, end): walk.page.wait_for_function(_OUTLINED, arg=list(at))))
        walk.settle()
    return found


def slides(walk: Walk, repeats: int) -> list[float]:
    found = []
    for index in range(repeats):
        began = time.perf_counter()
        with walk.refitted():
            walk.page.get_by_role("slider").last.press("ArrowLeft" if index % 2 else "ArrowRight")
        found.append(time.perf_counter() - began)
        walk.settle()
    return found


def page_changes(walk: Walk, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(rounds):
        for number, name in enumerate(STEPS, start=1):
            link = walk.page.locator('[data-testid="stSidebar"] a', has_text=f"{number} · {PAGES[name].title}").first
            found[name].append(seconds(link.click, walk.page.locator(_OWN[name]).first.wait_for))
            walk.settle()
    return found


STARTS = {"demo": "Start with the small demo, in seconds", "smollm2": "Start with a real language model"}
_PASS_MS = 600_000


def row(what: str, values: list[float], goal: float) -> str:
    middle = median(values)
    verdict = "met" if middle <= goal else f"missed by {middle / goal:.1f} times"
    return f"| {what} | {middle:.2f} s | {min(values):.2f}–{max(values):.2f} s | {len(values)} | {goal} s | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model", choices=list(STARTS), default="demo", help="what is loaded")
    asked = parser.parse_args()
    repeats, names = asked.repeats, list(GOALS)
    rows = [row(names[0], [cold_start() for _ in range(_COLD)], GOALS[names[0]])]
    with tempfile.TemporaryDirectory() as home, serve(Path(home)) as address, browser() as chromium:
        tabs = [new_tab(chromium, address) for _ in range(_COLD)]
        walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 1400})).open(address)
        walk.press(STARTS[asked.model], walk.page.get_by_role("heading", name="Blocks", exact=True))
        walk.cell(2, 5).wait_for()
        walk.page.get_by_text("tokens so far").first.wait_for(state="hidden", timeout=_PASS_MS)
        walk.settle()
        rows += [row(names[1], tabs, GOALS[names[1]]), row(names[2], clicks(walk, repeats), GOALS[names[2]])]
        rows.append(row(names[3], slides(walk, repeats), GOALS[names[3]]))
        walk.go("3 · Fit")
        walk.page.get_by_role("button", name="Save and stay").first.click()
        walk.page.get_by_role("heading", name="Saved variants").wait_for(timeout=_PASS_MS)
        walk.settle()
        changes = page_changes(walk, max(2, repeats // 2))
    rows.append(row(names[4], [value for values in changes.values() for value in values], GOALS[names[4]]))
    rows += [row(f"page change to {PAGES[name].title}", values, GOALS[names[4]]) for name, values in changes.items()]
    print("| from … to … | median | range | n | goal | |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
