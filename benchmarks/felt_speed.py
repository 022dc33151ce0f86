"""How fast the app feels, in Chromium: from a click to what a person waits for. Prints medians, ranges and goals as Markdown.

    python -m benchmarks.felt_speed [--repeats 7] [--model demo smollm2] [--write]

Cold start counts from the start of the server's process to the button that can be pressed, with a new browser, without a model. Of every page
that has them: a click and a step of a slider until what they bring is drawn; and the change to it until what a person came for is there.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.browser import ROOT, Walk, browser, serve
from benchmarks.story import STARTS, fitted, link, measured, names, written
from ui.look.site import PAGES

PAGE_OF = ROOT / "docs" / "results" / "felt_speed.md"
BEGIN, END = "<!-- felt speed: python -m benchmarks.felt_speed --write -->", "<!-- felt speed end -->"
START, PAGE, CLICK = 3.0, 0.5, 0.3
"""goals in seconds"""
_COLD = 3
"""repeats of the cold start, which takes seconds each"""
_OUTLINED = """([start, end]) => {
  const box = document.querySelector('path[aria-label^="start: ' + start + '; end: ' + end + ';"]').getBoundingClientRect();
  return [...document.querySelectorAll('g.mark-rect path')].some(mark => {
    if (!(parseFloat(mark.getAttribute('stroke-width')) >= 3)) return false;  // looked at in every frame: it must not cost what it measures
    const other = mark.getBoundingClientRect(), width = parseFloat(getComputedStyle(mark).strokeWidth) || 0;
    return width >= 3 && getComputedStyle(mark).stroke !== 'none' && Math.abs(other.x + other.width / 2 - box.x - box.width / 2) < 3
      && Math.abs(other.y + other.height / 2 - box.y - box.height / 2) < 3; });
}"""
"""whether the outline of the chosen span stands on this cell"""
_CHANGED = "([place, old]) => !place.isConnected || place.innerText !== old"
_CELLS = [(2, 5), (4, 7), (6, 8), (3, 6), (5, 9), (7, 10), (1, 4)]
_OWN = {
    "overview": 'button:has-text("Continue with")',
    "model": '[data-testid="stMain"] h3:has-text("2. The calibration set")',
    "blocks": 'path[aria-label^="start: 2; end: 5;"]',
    "fit": 'button:has-text("Save and stay")',
    "compare": 'button:has-text("Generate")',
    "benchmarks": 'button:has-text("Run on")',
    "export": 'button:has-text("Export")',
    "lesson": ".st-key-lesson_title h3",
    "sweep": 'button:has-text("Run the sweep")',
    "methods": 'button:has-text("Compare: ")',
}
"""what a person came to a page for"""


def seconds(gesture: Callable[[], Any], done: Callable[[], Any]) -> float:
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
            page.get_by_role("button", name=STARTS["demo"]).wait_for()
            return time.perf_counter() - began


def new_tab(chromium: Any, address: str) -> float:
    page = chromium.new_page()
    took = seconds(lambda: page.goto(address, wait_until="commit"), page.get_by_role("button", name=STARTS["demo"]).wait_for)
    page.close()
    return took


def changes(walk: Walk, seen: Any, gestures: list[Callable[[], Any]]) -> list[float]:
    """Seconds from each gesture until `seen`, a locator, says something else than before."""
    found = []
    for gesture in gestures:
        before = seen.inner_text()
        found.append(seconds(gesture, lambda old=before: walk.page.wait_for_function(_CHANGED, arg=[seen.element_handle(), old])))
        walk.settle()
    return found


def clicks(walk: Walk, repeats: int) -> list[float]:
    """On cells of the matrix, until the outline stands on the cell."""
    found = []
    for start, end in (_CELLS[i % len(_CELLS)] for i in range(repeats)):
        cell = walk.cell(start, end)
        cell.scroll_into_view_if_needed()
        found.append(seconds(cell.click, lambda at=(start, end): walk.page.wait_for_function(_OUTLINED, arg=list(at))))
        walk.settle()
    return found


def slides(walk: Walk, slider: Any, seen: Any, repeats: int) -> list[float]:
    """A step of a slider to the left and back."""
    return changes(walk, seen, [lambda key=key: slider.press(key) for key in ("ArrowLeft", "ArrowRight") * (repeats // 2 + 1)][:repeats])


def on_pages(walk: Walk, repeats: int) -> list[tuple[str, list[float], float]]:
    """(what, seconds, goal) of the gestures of Blocks, Fit, Compare and Lesson, each in the state in which it is met."""
    page, found = walk.page, []
    metric = '[data-testid="stMetric"]:has-text("{}") [data-testid="stMetricValue"]'
    found.append(("Blocks: click on a cell to the redrawn matrix", clicks(walk, repeats), CLICK))
    error = page.locator(metric.format("Error, fitted"))
    found.append(("Blocks: slider to the refitted error", slides(walk, page.get_by_role("slider").last, error, repeats), CLICK))
    walk.go(link("fit"))
    cosine = page.locator(metric.format("Held-out cosine"))
    found.append(("Fit: slider to the refitted cosine", slides(walk, page.get_by_role("slider").nth(1), cosine, repeats), CLICK))
    fitted(walk)
    written(walk, n_tokens=8)
    token = page.locator('[data-testid="stSlider"]', has=page.get_by_text("Token", exact=True))
    tokens = [page.locator("[data-strip]").first.locator("[data-token]").nth(1 + at % 4) for at in range(repeats)]
    found.append(("Compare: click on a token to what was expected", changes(walk, token, [each.click for each in tokens]), CLICK))
    found.append(("Compare: slider to what was expected", slides(walk, token.get_by_role("slider"), token, repeats), CLICK))
    walk.go(link("lesson"))
    turns = [lambda key=key: page.keyboard.press(key) for key in ("ArrowRight", "ArrowLeft") * (repeats // 2 + 1)][:repeats]
    found.append(("Lesson: key to the next card", changes(walk, page.locator(".st-key-lesson_title"), turns), CLICK))
    return found


def page_changes(walk: Walk, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in names()}
    for _ in range(rounds):
        for name in found:
            title = walk.page.locator('[data-testid="stSidebar"] a', has_text=link(name)).first
            found[name].append(seconds(title.click, walk.page.locator(_OWN[name]).first.wait_for))
            walk.settle()
    return found


def row(what: str, values: list[float], goal: float) -> str:
    middle = median(values)
    verdict = "met" if middle <= goal else f"missed by {middle / goal:.1f} times"
    return f"| {what} | {middle:.2f} s | {min(values):.2f}–{max(values):.2f} s | {len(values)} | {goal} s | {verdict} |"


def rows_of(model: str, repeats: int) -> list[str]:
    """The whole table of one model."""
    with tempfile.TemporaryDirectory() as home, serve(Path(home)) as address, browser() as chromium:
        tabs = [new_tab(chromium, address) for _ in range(_COLD)]
        walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 1400})).open(address)
        measured(walk, model)
        found = [("new tab on a running server", tabs, START), *on_pages(walk, repeats)]
        turned = page_changes(walk, max(2, repeats // 2))
    found.append(("page change to the page's own content", [value for values in turned.values() for value in values], PAGE))
    found += [(f"page change to {PAGES[name].title}", values, PAGE) for name, values in turned.items()]
    return [row(*each) for each in found]


def tables(models: list[str], repeats: int) -> str:
    """What was measured, and on what."""
    import psutil

    load = psutil.getloadavg()[0]
    head = "| from … to … | median | range | n | goal | |\n|---|---|---|---|---|---|"
    cold = row("cold start: server, browser, usable Overview", [cold_start() for _ in range(_COLD)], START)
    parts = [f"**Without a model**\n\n{head}\n{cold}"]
    for model in models:
        parts.append("\n".join([f"**{model}**\n\n{head}", *rows_of(model, repeats)]))
        print(parts[-1], flush=True)
    said = (
        f"{time.strftime('%Y-%m-%d')}, {psutil.cpu_count()} processor cores that server and browser share, load {load:.1f} before it began."
    )
    return "\n\n".join([said, *parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model", nargs="*", choices=list(STARTS), default=list(STARTS), help="what is loaded, one after the other")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE_OF.relative_to(ROOT)}, too")
    asked = parser.parse_args()
    found = tables(asked.model, asked.repeats)
    print(f"\n{found}")
    if asked.write:
        before, _, rest = PAGE_OF.read_text(encoding="utf-8").partition(BEGIN)
        PAGE_OF.write_text(f"{before}{BEGIN}\n{found}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
