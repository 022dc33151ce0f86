"""One walk through the whole story in Chromium, on the demo model, with screenshots in tests/screenshots."""

import csv
import json
import os
import re
from pathlib import Path

import pytest

from tests.support.browser_walk import CHROMIUM, ROOT, SHOTS, Walk
from ui.look.palette import DARK, LIGHT

if CHROMIUM is None and os.environ.get("CI"):
    raise RuntimeError("Chromium is missing: install Debian's package 'chromium', the walk must run here")
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
    pytest.mark.skipif(not (ROOT / "assets/demo/model/config.json").is_file(), reason="the demo model is not built"),
]


def test_the_whole_story_from_start_to_export(walk: Walk, tmp_path: Path) -> None:
    walk.shot("0_overview")
    choose_blocks(walk)
    with walk.timed("model and fit pages"):
        walk.go("1 · Model")
        walk.shot("1_model")
        walk.go("3 · Fit")
        walk.shot("3_fit")
        walk.press("Save and stay", walk.page.get_by_role("heading", name="Saved variants"))
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


def choose_blocks(walk: Walk) -> None:
    with walk.timed("start to matrix"):
        walk.press("Start with the small demo, in seconds", walk.page.get_by_role("heading", name="Blocks", exact=True))
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
    saves_a_chart(walk)
    follows_the_system_into_the_dark(walk)


def saves_a_chart(walk: Walk) -> None:
    """Every chart has its SVG, whose text is the chart's own."""
    button = walk.page.get_by_role("button", name="Save this chart as SVG").first
    button.focus()
    with walk.page.expect_download() as waited:
        button.press("Enter")
    assert "first removed block" in Path(waited.value.path()).read_text(encoding="utf-8")


def saves_a_table(walk: Walk) -> None:
    """A table of ours is saved with all its cells, and copied as it stands."""
    table = walk.page.locator("table", has_text="stands here")
    shown = table.evaluate("table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText.trim().replace(/\\s+/g, ' ')))")
    bar = table.locator("xpath=following-sibling::*[1]")
    with walk.page.expect_download() as waited:
        bar.get_by_role("button", name="Save this table as CSV").click()
    with Path(waited.value.path()).open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file)) == shown
    assert shown[0][0] == "expected"
    walk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    bar.get_by_role("button", name="Copy this table").click()
    bar.get_by_text("Copied").wait_for()
    assert walk.page.evaluate("navigator.clipboard.readText()") == "\n".join("\t".join(row) for row in shown)


def follows_the_system_into_the_dark(walk: Walk) -> None:
    """Texts in a chart are drawn anew when the system's colours turn over in the middle of a page."""
    title = "[...document.querySelectorAll('.vega-embed text')].find(text => text.textContent === 'first removed block')"
    for scheme, colours in (("dark", DARK), ("light", LIGHT)):
        walk.page.emulate_media(color_scheme=scheme)
        walk.page.wait_for_function(f"{title}?.getAttribute('fill')?.toUpperCase() === '{colours.ink}'")
    walk.settle()


def compare(walk: Walk) -> None:
    """A click while it writes reruns the page; what is written stays, and the rest follows by itself."""
    walk.go("4 · Compare")
    write, ended = walk.page.get_by_role("button", name="Generate").first, walk.page.get_by_text("then it ended the text itself")
    begun = walk.page.get_by_role("button", name="Stop").or_(ended).first
    walk.until(lambda: write.click(timeout=8_000), begun, "writing", rest=False)
    walk.page.locator('[data-testid="stSlider"]').filter(has_text=re.compile(r"^Tokens(?! to)")).get_by_role("slider").press("ArrowRight")
    ended.or_(walk.page.get_by_text("the number asked for")).nth(2).wait_for()
    walk.page.get_by_role("heading", name="Where do they part?").wait_for()
    walk.page.get_by_role("rowheader", name="answer").nth(1).wait_for()
    walk.settle()
    walk.page.locator('[data-strip] [data-token="5"]').first.click()
    walk.page.locator('[data-testid="stSlider"]').filter(has_text=re.compile(r"^Token5: ")).wait_for()
    walk.settle()
    saves_a_table(walk)
    walk.press("Measure on test text", walk.page.get_by_text("which no fit and no choice has read"))
    walk.healthy()
    walk.shot("4_compare")


def benchmark(walk: Walk) -> None:
    walk.go("5 · Benchmarks")
    limit = walk.page.get_by_role("spinbutton", name="Questions per task")
    limit.fill("5")
    limit.press("Enter")
    walk.settle()
    walk.press("Run on 3 models", walk.page.get_by_role("heading", name="Which answers changed?"))
    walk.healthy()
    walk.shot("5_benchmarks")


def export(walk: Walk, target: Path) -> None:
    walk.go("6 · Export")
    walk.fill("Folder", str(target))
    walk.press("Export", walk.page.get_by_text("Exported to"))
    walk.healthy()
    walk.shot("6_export")
