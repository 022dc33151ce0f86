"""The story of the app in a browser, from the first press to a packed zip and the studies beside it: pictures and timings walk it.

Every step leaves its page with results on it. Amounts are small, so that a whole story with a real model takes minutes.
"""

import re
from collections.abc import Callable
from typing import Any

from benchmarks.browser import Walk
from ui.look.site import EXTRAS, PAGES, STEPS
from ui.parts.start import LABEL, REAL_LABEL

STARTS = {"smollm2": REAL_LABEL, "demo": LABEL}
"""model -> the button that starts with it"""
_PASS_MS = 600_000
"""milliseconds that the longest job may take on a busy machine"""
_ITEMS = 10
"""questions of each task"""


def names() -> list[str]:
    return ["overview", *STEPS, *EXTRAS]


def link(name: str) -> str:
    """What the sidebar calls a page."""
    title = PAGES[name].title
    return f"{STEPS.index(name) + 1} · {title}" if name in STEPS else title


def measured(walk: Walk, model: str) -> None:
    """The model up to its whole matrix."""
    walk.press(STARTS[model], walk.page.get_by_role("heading", name="Blocks", exact=True))
    walk.cell(2, 5).wait_for()
    walk.page.get_by_text("tokens so far").first.wait_for(state="hidden", timeout=_PASS_MS)
    walk.settle()


def fitted(walk: Walk) -> None:
    walk.go(link("fit"))
    _run(walk, "Save and stay", walk.page.get_by_role("heading", name="Saved variants"))


def written(walk: Walk, n_tokens: int = 64) -> None:
    """One prompt, gone on with by every system."""
    walk.go(link("compare"))
    length = walk.page.get_by_test_id("stSlider").filter(has_text="Max new tokens").get_by_role("slider")
    length.press("Home")
    for _ in range(n_tokens // 8 - 1):
        length.press("ArrowRight")
    _run(walk, "Generate", walk.page.get_by_role("rowheader", name="answer").nth(1))


def compared(walk: Walk) -> None:
    """One prompt, test text, and a set of prompts."""
    written(walk)
    _run(walk, "Measure on test text", walk.page.get_by_text("which no fit and no choice has read"))
    number(walk, "How many", _ITEMS)
    _run(walk, re.compile(r"Generate \d+ ×"), walk.page.get_by_text("prompts both write the same").first)


def scored(walk: Walk) -> None:
    walk.go(link("benchmarks"))
    number(walk, "Questions per task", _ITEMS)
    _run(walk, re.compile("Run on|Go on with"), walk.page.get_by_role("heading", name="Which answers changed?"), "All results are here")


def exported(walk: Walk) -> None:
    """Packed as a zip, which leaves no folder behind."""
    walk.go(link("export"))
    walk.page.get_by_role("radio", name="Zip download").click()
    walk.settle()
    _run(walk, "Pack the zip", walk.page.locator("[data-testid=stDownloadButton]", has_text=".zip").first)


def swept(walk: Walk) -> None:
    """Two methods at two depths, without benchmarks: KL and time."""
    walk.go(link("sweep"))
    walk.pick("Benchmarks", "none")
    _fewest(walk, "Test tokens")
    for share in ("50%", "37.5%"):
        walk.page.get_by_role("button", name=f"Remove {share}").first.click()
        walk.settle()
    _run(walk, "Run the sweep", walk.page.get_by_text("What is really gained?").first)


def methods(walk: Walk) -> None:
    """The page's own choice of methods, by KL alone."""
    walk.go(link("methods"))
    number(walk, "Questions per task", 0)
    _run(walk, "Compare: ", walk.page.get_by_role("heading", name="The table"), "All rows are here")


STORY: tuple[Callable[[Walk], None], ...] = (fitted, compared, scored, exported, swept, methods)


def _fewest(walk: Walk, label: str) -> None:
    """Draw a choice of amounts to its least."""
    walk.page.get_by_test_id("stSlider").filter(has_text=label).get_by_role("slider").press("Home")
    walk.settle()


def number(walk: Walk, label: str, value: int) -> None:
    """Write into a number field."""
    field = walk.page.get_by_role("spinbutton", name=label).first
    field.fill(str(value))
    field.press("Enter")
    walk.settle()


def _run(walk: Walk, button: str | re.Pattern[str], seen: Any, done: str | None = None) -> None:
    """Press a button that starts a job, and wait for what it brings and for its end.

    `done`: what the button is called where a home that was kept has all results already.
    """
    main = walk.page.get_by_test_id("stMain")
    if done is None or main.get_by_role("button", name=done).count() == 0:
        main.get_by_role("button", name=button).first.click(timeout=_PASS_MS)
    seen.wait_for(timeout=_PASS_MS)
    walk.page.get_by_role("button", name="Cancel").first.wait_for(state="hidden", timeout=_PASS_MS)
    walk.settle()
    walk.healthy()
