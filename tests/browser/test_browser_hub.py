"""In Chromium, with a hub on loopback: a model by its id, its download seen in bytes, cancelled, gone on with, and a wrong name."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from benchmarks.browser import serve
from tests.support.browser_walk import CHROMIUM, Walk
from tests.support.hub_client import environment
from tests.support.hub_server import Hub

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def address(hub_server: Hub, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the app that reads HF_ENDPOINT; on the hub lies the tiny llama in many small files."""
    folder, home = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("home")
    AutoModelForCausalLM.from_pretrained(llama_folder).save_pretrained(folder, max_shard_size="15KB")
    for path in llama_folder.glob("tokenizer*"):
        shutil.copy(path, folder)
    hub_server.add("open/tiny", folder)
    found = environment(hub_server, home / "hf")
    wanted = {key: found[key] for key in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET")}
    with serve(home, HF_HUB_OFFLINE="0", HTTPS_PROXY="", https_proxy="", **wanted) as running:
        yield running
    hub_server.repos.clear()


def test_a_model_by_its_id_is_fetched_before_the_eyes_cancelled_and_gone_on_with(walk: Walk, hub_server: Hub) -> None:
    page = walk.page
    page.set_default_timeout(20_000)
    walk.go("1 · Model")
    walk.until(
        page.get_by_role("button", name="Hugging Face id").first.click, page.get_by_role("textbox", name="Id", exact=True), "the id's box"
    )
    walk.fill("Id", "open/tyni")
    walk.press("Check memory first", page.get_by_text("was not found on the hub, and there is no such local folder"))
    walk.fill("Id", "open/tiny")
    walk.press("Check memory first", page.get_by_text("Weights as they are"))
    assert hub_server.asked_for(".safetensors") == []
    hub_server.pause = 2.0
    line = page.get_by_text("downloading model-").first
    load = page.get_by_role("button", name="Load this model").first
    walk.until(lambda: load.click(timeout=4_000), line, "the download's bar", rest=False)
    assert " kB" in line.inner_text()
    cancel, ended = page.get_by_role("button", name="Cancel").first, page.get_by_text("What was computed before")
    walk.until(lambda: cancel.click(timeout=4_000), ended, "the end of it")
    assert len(hub_server.asked_for(".safetensors")) < 15, "it went on to its end"
    hub_server.pause = 0.0
    walk.press("Close")
    walk.press("Load this model", page.get_by_text("2. The calibration set"))
    assert page.get_by_text("In memory").first.is_visible()
    again = hub_server.asked_for(".safetensors")
    assert len(again) <= len(set(again)) + 1, "more than the file that was under way was fetched again"
    walk.healthy()
