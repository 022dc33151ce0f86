"""The two starts of the Overview: which real model it is, how to have it, and what a shared server offers."""

import pytest

from replaceme_core.models.checkpoints import smollm2
from tests.support.app_session import open_page, text_of
from ui.parts import start
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


def buttons(app) -> list[str]:
    return [button.label for button in app.button]


def test_the_overview_says_where_the_real_model_comes_from() -> None:
    app = open_page("app.py")
    assert {start.REAL_LABEL, start.LABEL} <= set(buttons(app))
    assert smollm2.origin() in text_of(app)


def test_where_the_package_is_missing_the_one_command_is_there_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "a-package-that-is-not-installed")
    app = open_page("app.py")
    assert "HuggingFaceTB/SmolLM2-135M-Instruct from the hub or its cache" in text_of(app)
    assert smollm2.INSTALL in [block.value for block in app.code]
    assert start.REAL_LABEL in buttons(app), "the hub may have it"


def test_where_it_is_packaged_no_command_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(smollm2, "packaged", lambda: tmp_path)
    monkeypatch.setattr(smollm2, "origin", lambda: "the file of the package")
    assert smollm2.INSTALL not in [block.value for block in open_page("app.py").code]


@pytest.mark.parametrize(("offered", "real"), [("demo,org/one", False), ("demo,smollm2", True)])
def test_a_shared_server_starts_only_what_it_offers(monkeypatch: pytest.MonkeyPatch, offered: str, real: bool) -> None:
    monkeypatch.setenv("REPLACEME_MODELS", offered)
    app = open_page("app.py")
    assert (start.REAL_LABEL in buttons(app)) is real
    assert sum(button.proto.type == "primary" for button in app.button) == 1, "one of them leads"
    monkeypatch.setenv("REPLACEME_MODELS", "org/one")
    job = start.start_demo(Studio())
    assert job.finished.wait(60)
    assert "offers only org/one" in job.error


def test_a_start_without_the_model_ends_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    monkeypatch.setattr(smollm2, "PACKAGE", "a-package-that-is-not-installed")
    monkeypatch.setattr("replaceme_core.models.checkpoints.sources._hub_answers", lambda: False)
    monkeypatch.setattr("replaceme_core.models.checkpoints.sources._is_cached", lambda _section: False)
    state = Studio()
    job = start.start_real(state)
    assert job.finished.wait(60)
    assert job.state == "failed"
    assert smollm2.INSTALL in job.error
    assert smollm2.INSTALL in open_page("pages/2_Blocks.py", state).error[0].value
