"""In Chromium: double clicks, a page change and a reload in the middle of a job, cancel and unload. Nothing runs twice, nothing is lost."""

from pathlib import Path

import pytest

from tests.support.browser_walk import CHROMIUM, ROOT, Walk

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
    pytest.mark.skipif(not (ROOT / "assets/demo/model/config.json").is_file(), reason="the demo model is not built"),
]


def twice(walk: Walk, name: str, seen) -> None:
    """A double click on a button, then what it brings about."""
    walk.page.get_by_role("button", name=name, exact=True).first.dblclick()
    seen.first.wait_for()
    walk.settle()
    assert not walk.page.get_by_role("button", name="Cancel").is_visible(), "a second job runs"
    walk.healthy()


def test_a_job_survives_a_double_click_a_page_change_and_a_reload(walk: Walk, tmp_path: Path) -> None:
    walk.page.get_by_role("button", name="Start with the small demo, in seconds").dblclick()
    walk.page.get_by_role("heading", name="Blocks", exact=True).wait_for()
    walk.page.locator('[data-testid="stSidebar"] a', has_text="3 · Fit").click()
    walk.page.get_by_role("heading", name="Fit", exact=True).wait_for()
    if walk.page.get_by_role("button", name="Save and stay").count() == 0:  # the job is not done yet, as it should be
        walk.page.reload()  # the id in the address finds the session, unless the server still counts the tab from before as connected
        saved, offered = (walk.page.get_by_role("button", name=name) for name in ("Save and stay", "Pick up the last tab's work"))
        saved.or_(offered).first.wait_for()
        if offered.is_visible():
            walk.press("Pick up the last tab's work", saved)
    walk.healthy()
    twice(walk, "Save and stay", walk.page.get_by_role("heading", name="Saved variants"))
    sidebar = walk.page.locator('[data-testid="stSidebar"]').inner_text()
    assert len(sidebar.split("Variants")[-1].split(", blocks")) == 1, sidebar
    walk.go("6 · Export")
    walk.fill("Folder", str(tmp_path / "model"))
    twice(walk, "Export", walk.page.get_by_text("Exported to"))
    assert walk.page.get_by_text("Exported to").count() == 1


def test_a_cancelled_job_says_so_and_an_unloaded_model_is_gone_from_every_page(walk: Walk) -> None:
    walk.go("5 · Benchmarks")
    run = walk.page.get_by_role("button", name="Run on")
    walk.until(run.first.click, walk.page.get_by_role("button", name="Cancel"), "starting the benchmarks")
    walk.press("Cancel", walk.page.get_by_text("What was computed before is still here"))
    walk.press("Close")
    walk.settle()
    assert walk.page.get_by_text("What was computed before is still here").count() == 0
    walk.go("1 · Model")
    walk.press("Unload …", walk.page.get_by_role("button", name="Unload now"))
    walk.press("Unload now", walk.page.get_by_text("Nothing is loaded yet"))
    walk.go("2 · Blocks")
    assert walk.page.get_by_text("No model is loaded yet").is_visible()
