"""The Export page: proofs as a checklist, the zip, and where it goes when it is no longer wanted."""

import dataclasses
import gc
import zipfile
from pathlib import Path

import pytest
import torch

from replaceme_core.artifacts import Proof
from replaceme_core.plans.plan import ExportSection
from tests.support.app_session import click, finish, html_of, needs_demo, open_page, run, text_of
from tests.support.hub_server import TOKEN, Hub
from ui.export import checks as proof_view
from ui.export import jobs as export_work
from ui.export.jobs import ExportState
from ui.look.palette import DARK, LIGHT
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@needs_demo
def test_a_zip_is_packed_fetched_and_cleaned_away(kept: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_work.tempfile, "tempdir", str(tmp_path))
    app = open_page("pages/6_Export.py", kept)
    assert "to come" in html_of(app)
    app.session_state["export_way"] = "zip"
    run(app)
    assert "of weights" in text_of(app)
    click(app, "Pack the zip")
    finish(runner().latest(kept.owner))
    run(app)
    first = kept.slot(ExportState).zipped
    assert first is not None
    assert first.path.is_file()
    assert "to come" not in html_of(app), "it was read back before it was packed"
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name], "the folder itself is gone"
    assert next(item.label for item in app.get("download_button")).startswith(f"Download {first.path.name} (")
    with zipfile.ZipFile(first.path) as archive:
        archive.extractall(tmp_path / "there")
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "there" / first.path.stem)
    with kept.variants["first"].handle.borrow() as model:
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    app.selectbox(key="export_dtype").set_value("bfloat16")
    run(app)
    assert not [item for item in app.get("download_button") if item.label.startswith("Download first")], "that zip has another precision"
    click(app, "Pack the zip")
    finish(runner().latest(kept.owner))
    assert not first.path.exists(), "the older one goes when another is packed"
    second = kept.slot(ExportState).zipped
    assert second is not None
    assert second.n_bytes < 0.7 * first.n_bytes
    kept.slot(ExportState).zipped = None
    place = second.path.parent
    del second, app
    gc.collect()
    assert not place.exists(), "it goes with the session"


@needs_demo
def test_weights_too_large_for_a_zip_are_sent_to_the_folder(kept: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.export.view.MOST_ZIPPED", 1000)
    app = open_page("pages/6_Export.py", kept)
    app.session_state["export_way"] = "zip"
    run(app)
    assert "Write a folder" in text_of(app)
    assert next(button for button in app.button if button.label == "Pack the zip").disabled


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_passed_and_failed_differ_by_sign_and_word(colours) -> None:
    good = Proof("merged = hooked", True, 3.1e-7, 1e-4, "logits of 48 tokens")
    bad = dataclasses.replace(good, passed=False, error=0.2)
    for proof, sign, word, figure in ((good, "✓", "passed", "3.1 × 10⁻⁷"), (bad, "✗", "failed", "0.2")):
        shown = proof_view.checklist_html([proof], False, colours)
        assert sign in shown
        assert f"</span>{word}</span>" in shown
        assert f"<strong>{figure}</strong>, allowed 0.0001" in shown
        assert "Logits of 48 tokens" in shown
    assert "No difference; none is allowed" in proof_view.checklist_html([dataclasses.replace(good, error=0, tolerance=0)], False, colours)


@needs_demo
def test_an_export_is_pushed_private_from_the_page_and_the_login_is_never_asked_for(
    kept: Studio, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page("pages/6_Export.py", kept)
    assert "Put it on the hub" not in text_of(app), "nothing was exported yet"
    finish(export_work.export_variant(kept, kept.variants["first"], str(tmp_path / "out"), ExportSection()))
    run(app)
    assert "This server has no login for the Hugging Face hub" in text_of(app)
    assert next(button for button in app.button if button.label == "Push").disabled
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    app.text_input(key="push_name").set_value("me/first")
    run(app)
    app.toggle(key="push_show").set_value(True)
    run(app)
    assert "The licence of the original is not known" in text_of(app)
    click(app, "Push")
    finish(runner().latest(kept.owner))
    run(app)
    assert f"{hub.address}/me/first, private." in text_of(app)
    assert hub.repos["models", "me/first"].private
    assert not [box for box in app.text_input if box.proto.type], "no box for a password"
    monkeypatch.setenv("REPLACEME_MODELS", "demo")
    run(app)
    assert "Put it on the hub" not in text_of(app), "a shared server's login is not its visitors'"
