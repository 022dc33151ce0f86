"""A walk in Chromium with a model held in 4 bits: from its folder to the merged one, which is then compared and loaded."""

from pathlib import Path

import pytest

from tests.support.app_session import save_wide
from tests.support.browser_walk import CHROMIUM, Walk

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


def test_a_model_in_4_bits_from_its_folder_to_the_merged_one(walk: Walk, tmp_path: Path) -> None:
    folder, merged = save_wide(tmp_path / "tiny"), tmp_path / "merged"
    walk.go("1 · Model")
    local = walk.page.get_by_role("radio", name="Local folder or GGUF file")
    walk.until(local.click, walk.page.get_by_role("textbox", name="Folder or file", exact=True), "choosing a local folder")
    walk.fill("Folder or file", str(folder))
    walk.pick("Weights in memory", "4 bits (NF4)")
    walk.page.get_by_text("in nf4, calibration pass included").wait_for()
    walk.shot("q1_model_form")
    walk.press("Load this model", walk.page.get_by_text("Held in 4 bits (NF4), for measuring"))
    demo = walk.page.get_by_role("radio", name="The demo's text")
    mix = walk.page.get_by_text("Mix in a second text")
    walk.until(demo.first.click, walk.page.get_by_text("This text is about the small w").first, "choosing the demo's text")
    mix.click()
    walk.page.get_by_role("radio", name="The demo's text").nth(1).click()
    walk.page.get_by_text("demo:stories · ").first.wait_for()
    walk.settle()
    walk.shot("q1_model_text")
    walk.press("Measure", walk.page.get_by_text("Measured on demo:mixture + 50% demo:stories"))
    walk.healthy()
    walk.go("2 · Blocks")
    walk.cell(2, 4).wait_for()
    walk.cell(2, 4).click()
    walk.settle()
    walk.shot("q2_blocks")
    walk.go("3 · Fit")
    walk.fill("Folder", str(merged))
    walk.shot("q3_fit")
    walk.press("Save and stay", walk.page.get_by_role("heading", name="Saved variants"))
    walk.healthy()
    assert (merged / "model.safetensors").is_file()
    walk.shot("q3_kept")
    walk.go("4 · Compare")
    walk.press("Generate", walk.page.get_by_role("heading", name="Where do they part?"))
    walk.healthy()
    walk.shot("q4_compare")
    walk.go("6 · Export")
    walk.page.get_by_role("heading", name="It is saved").wait_for()
    walk.shot("q6_export")
    walk.go("1 · Model")
    walk.page.get_by_text("Choose another model").click()
    walk.fill("Folder or file", str(merged))
    walk.pick("Weights in memory", "as they are")
    walk.press("Load this model", walk.page.get_by_text("4 blocks, all kept").first)
    walk.healthy()
