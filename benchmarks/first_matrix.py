"""From *Start with a real language model* to the first matrix on the page, in Chromium, on a new server each time. Goal: 20 s on two cores.

    python -m benchmarks.first_matrix [--repeats 3]

The server is up and the Overview rests before the button is pressed. Then a span is chosen while the pass runs, which is ended by *Enough*.
"""

import argparse
import os
import re
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from benchmarks.browser import Walk, browser, serve
from ui.parts.start import REAL_LABEL

GOAL = 20.0
_SPAN = (12, 20)
_SO_FAR = re.compile(r"from ([\d,]+) of ([\d,]+) tokens so far")


def walk(folder: Path | None) -> dict[str, float]:
    """One start; seconds since the press, and tokens. Pictures go into `folder`."""
    with tempfile.TemporaryDirectory() as home, serve(Path(home)) as address, browser() as chromium:
        tour = Walk(chromium.new_page(viewport={"width": 1280, "height": 900}), folder or Path(home))
        page = tour.open(address).page
        found = {"load before": os.getloadavg()[0]}
        began, worked, idle = time.perf_counter(), _worked(), _not_idle()
        page.get_by_role("button", name=REAL_LABEL).click()
        tour.cell(2, 5).wait_for()
        found["first matrix, s"] = time.perf_counter() - began
        found["processor time of it, s"] = _worked() - worked
        found["share of the machine's work"] = (_worked() - worked) / max(1e-9, _not_idle() - idle)
        found["from tokens"] = _n_read(page)
        if folder:
            tour.shot("first_matrix")
        with tour.timed("span"):
            said = page.get_by_text(f"removes blocks {_SPAN[0]}–{_SPAN[1] - 1} of").first
            tour.until(lambda: tour.cell(*_SPAN).click(timeout=8_000), said, "choosing a span meanwhile", rest=False)
        found["span chosen, s after its click"] = tour.seconds["span"]
        found["its tokens"] = _n_read(page)
        page.get_by_role("button", name="Enough").first.click()
        page.get_by_text("The pass kept").first.wait_for()
        found["ended by Enough, s"] = time.perf_counter() - began
        tour.settle()
        tour.healthy()
        if folder:
            tour.shot("after_enough")
        return found


def _worked() -> float:
    """Processor seconds of the server and the browser so far: what the wait would need without other work, spread over the cores."""
    processes = psutil.Process().children(recursive=True)
    return sum(sum(process.cpu_times()[:2]) for process in processes if process.is_running())


def _not_idle() -> float:
    """Processor seconds of the machine that were not idle, those that its host took away included."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "steal", 0.0)


def _n_read(page) -> float:
    """Tokens that the matrix on the page is from."""
    said = _SO_FAR.search(page.locator('[data-testid="stMain"]').inner_text())
    return float(said[1].replace(",", "")) if said else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    options = parser.parse_args()
    runs = [walk(options.pictures) for _ in range(options.repeats)]
    for run in runs:
        print("  ".join(f"{name}: {value:,.1f}" for name, value in run.items()), flush=True)
    times = [run["first matrix, s"] for run in runs]
    print(f"first matrix: median {median(times):.1f} s, from {min(times):.1f} to {max(times):.1f} s; goal {GOAL:.0f} s")


if __name__ == "__main__":
    main()
