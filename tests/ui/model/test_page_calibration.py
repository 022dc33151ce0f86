"""The calibration form of the Model page: two texts in one set, what the pass keeps, and a given text that an export takes along."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
import torch
import yaml
from streamlit.testing.v1 import AppTest

from replaceme_core.calibration import calibration
from replaceme_core.plans.plan import CalibrationSection, ModelSection, PruningPlan
from tests.support.app_session import click, finish, html_of, open_page, run, text_of
from ui.session import live, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
NOTES = "\n\n".join(f"w{i} w{i + 1} w{i + 2} w{i * 7 % 150} w{i * 5 % 150}" for i in range(120)).encode()


@pytest.fixture
def session(small: Path) -> Studio:
    """A session with a random model of 6 blocks loaded and nothing measured."""
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    return state


def form(state: Studio, **values: object) -> AppTest:
    """The Model page with these values in its fields."""
    app = open_page("pages/1_Model.py", state)
    for key, value in ({"text_tokens": 2000, "text_length": 32, "text_source": "demo", "second_source": "demo"} | values).items():
        app.session_state[key] = value
    return run(app)


def measure(app: AppTest, state: Studio) -> None:
    click(app, "Measure")
    finish(runner().latest(state.owner))


def upload(app: AppTest, name: str = "my notes.txt") -> AppTest:
    app.file_uploader[0].set_value((name, NOTES, "text/plain"))
    return run(app)


def test_two_sets_are_mixed_by_share_and_both_are_shown_with_their_tokens(session: Studio) -> None:
    app = form(session, text_mix=True, second_share=30)
    shown = text_of(app)
    assert "**demo:mixture** · 1,400 tokens" in shown
    assert "**demo:stories** · 600 tokens" in shown
    measure(app, session)
    section = session.calibration_section
    assert section is not None
    assert (section.second, section.second_share) == ("demo:stories", 0.3)
    assert session.measurement.n_tokens == 2000
    assert "demo:mixture + 30% demo:stories" in text_of(run(app))
    app.session_state["second_share"] = 40
    assert "**demo:stories** · 800 tokens" in text_of(run(app))
    assert "Measure" in [button.label for button in app.button], "another share is another set"


def test_an_upload_is_mixed_with_a_shipped_set(session: Studio) -> None:
    app = upload(form(session, text_source="upload", text_mix=True, second_share=50))
    assert "**my notes.txt** · 1,000 tokens" in text_of(app)
    measure(app, session)
    assert session.measurement.calibration_name == "my notes.txt + 50% demo:stories"


@pytest.mark.parametrize("kind", ["preset", "hub"])
def test_a_second_text_of_the_hub_is_read_in_the_job(session: Studio, kind: str) -> None:
    app = form(session, text_mix=True, second_source=kind, second_hub="owner/set", second_config="small", second_hub_column="body")
    assert not app.error
    assert "Measure" in [button.label for button in app.button]
    assert "tokens** in" not in text_of(app), "nothing is fetched for a preview"


def test_the_columns_of_an_upload_hold_for_a_second_text_of_the_hub(session: Studio) -> None:
    app = form(session, text_source="upload", text_mix=True, second_source="hub")
    assert "those of the first text" in text_of(app)
    assert "Configuration" not in [item.label for item in app.text_input]


def test_what_the_model_writes_itself_is_mixed_with_another_text_in_the_job(session: Studio) -> None:
    app = form(session, text_source="self", text_mix=True, text_tokens=300, second_share=60)
    measure(app, session)
    assert session.measurement.calibration_name == "self:prose + 60% demo:stories"
    written, shipped = session.calibration.sources
    assert (written.n_tokens, shipped.n_tokens) == (pytest.approx(120, abs=12), pytest.approx(180, abs=12))


def test_an_upload_is_mixed_with_what_the_model_writes(session: Studio) -> None:
    app = upload(form(session, text_source="upload", text_mix=True, second_source="self", text_tokens=300))
    measure(app, session)
    assert session.measurement.calibration_name == "my notes.txt + 50% self:prose"
    assert [each.n_tokens for each in session.calibration.sources] == [pytest.approx(150, abs=15)] * 2


def test_another_paste_is_another_text_also_where_it_is_read_in_the_job(session: Studio) -> None:
    first, second = (NOTES.decode().replace("w", sign) for sign in ("alpha", "omega"))
    app = form(session, text_source="paste", text_paste=first, text_mix=True, second_source="self", text_tokens=300)
    measure(app, session)
    assert "Measure again" in [button.label for button in run(app).button]
    assert "alpha" in html_of(app)
    app.session_state["text_paste"] = second
    run(app)
    assert "Measure" in [button.label for button in app.button]
    assert "alpha" not in html_of(app)
    measure(app, session)
    assert "omega" in html_of(run(app))


def test_a_text_is_read_and_tokenised_behind_a_spinner_once(session: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload of 61 MB takes more than two seconds."""
    app = form(session, text_source="upload")
    spinner, prepare, read = st.spinner, calibration.prepare, calibration.read_upload
    turning: list[str] = []
    seen: list[list[str]] = []

    @contextmanager
    def watched(text: str, **options: Any) -> Iterator[None]:
        turning.append(text)
        with spinner(text, **options):
            yield
        turning.pop()

    def heard(*args: Any) -> calibration.CalibrationSet:
        seen.append(list(turning))
        return prepare(*args)

    def parsed(*args: Any) -> list[str]:
        seen.append(list(turning))
        return read(*args)

    monkeypatch.setattr(st, "spinner", watched)
    monkeypatch.setattr(calibration, "prepare", heard)
    monkeypatch.setattr(calibration, "read_upload", parsed)
    run(upload(app))
    assert seen == [["Reading the file …"], ["Reading the text …"]]
    run(app)
    assert len(seen) == 2, "neither is done again at the next click"
    run(upload(app, "another.txt"))
    assert len(seen) == 4


def test_a_text_of_ones_own_is_not_mixed_unless_one_says_so(session: Studio) -> None:
    app = form(session, text_source="self", text_mix=True)
    app.button_group(key="text_source").set_value("paste")
    assert not next(item for item in run(app).toggle if item.label.startswith("Mix in")).value


def test_what_the_pass_stores_is_said_before_it_and_a_disk_without_room_is_a_warning(
    session: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "The pass writes up to 2.9 MiB of activations to the disk (room for " in text_of(form(session)), (
        "12 points, 2,000 tokens, 32 wide"
    )
    monkeypatch.setenv("REPLACEME_STORE_GIB", "0.001")
    app = form(session)
    assert any("The pass would measure distances alone" in item.value for item in app.warning)
    assert [button for button in app.button if button.label.startswith("Measure")], "distances are measured all the same"


def test_passes_of_earlier_sessions_are_found_again_shown_with_their_size_and_removed(session: Studio, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path))
    app = form(session)
    assert "passes of this and earlier" not in text_of(app)
    measure(app, session)
    seconds = session.measurement.seconds
    again = Studio()
    again.use_model(session.resident)
    app = form(again)
    assert "1 pass of this and earlier sessions is kept in" in text_of(app)
    measure(app, again)
    assert again.measurement.seconds == seconds, "the pass of the session before"
    measure(run(form(again)), again)  # now the button says *Measure again*
    assert again.measurement.seconds != seconds
    click(form(again), "Remove them")
    assert list((tmp_path / "passes").iterdir()) == []
    assert live.can_fit(again, again.span), "what is measured stays"
    assert live.transform(again, again.span, again.method).report.n_tokens > 0


def kept(state: Studio, app: AppTest) -> None:
    """Measured, and one variant kept."""
    measure(app, state)
    finish(variants.keep_variant(state, "mine", live.transform(state, state.span, state.method)))


@pytest.mark.parametrize("mixed", [False, True])
def test_an_exported_recipe_repeats_a_pass_on_an_upload(session: Studio, tmp_path: Path, mixed: bool) -> None:
    kept(session, upload(form(session, text_source="upload", text_mix=mixed)))
    app = open_page("pages/6_Export.py", session)
    assert "my notes.txt" in next(item for item in app.toggle).label
    next(item for item in app.text_input if item.label == "Folder").set_value(str(tmp_path / "model"))
    run(app)
    click(app, "Export")
    finish(runner().latest(session.owner))
    assert (tmp_path / "model" / "calibration-my-notes.txt").read_bytes() == NOTES
    assert "lies beside it" in (tmp_path / "model" / "README.md").read_text()
    assert yaml.safe_load((tmp_path / "model" / "recipe.yaml").read_text())["calibration"]["source"] == "calibration-my-notes.txt"
    section = PruningPlan.read(tmp_path / "model" / "recipe.yaml").calibration
    again = calibration.prepare(section, session.resident.handle.tokenizer)
    assert again.fingerprint == session.measurement.calibration_fingerprint


def test_pasted_text_goes_along_too(session: Studio, tmp_path: Path) -> None:
    app = form(session, text_source="paste")
    app.text_area[0].set_value(NOTES.decode())
    kept(session, run(app))
    app = open_page("pages/6_Export.py", session)
    next(item for item in app.text_input if item.label == "Folder").set_value(str(tmp_path / "model"))
    run(app)
    click(app, "Export")
    finish(runner().latest(session.owner))
    section = PruningPlan.read(tmp_path / "model" / "recipe.yaml").calibration
    again = calibration.prepare(section, session.resident.handle.tokenizer)
    assert again.fingerprint == session.measurement.calibration_fingerprint


def test_a_text_that_stays_out_is_said_on_the_page_and_in_the_model_card(session: Studio, tmp_path: Path) -> None:
    kept(session, upload(form(session, text_source="upload")))
    app = open_page("pages/6_Export.py", session)
    app.toggle[0].set_value(False)
    run(app)
    assert "only by someone who has this text" in text_of(app)
    next(item for item in app.text_input if item.label == "Folder").set_value(str(tmp_path / "model"))
    run(app)
    click(app, "Export")
    finish(runner().latest(session.owner))
    assert not (tmp_path / "model" / "calibration-my-notes.txt").exists()
    assert "`calibration-my-notes.txt`, which is not part of this folder" in (tmp_path / "model" / "README.md").read_text()


def test_a_shipped_set_asks_nothing_about_its_text(session: Studio) -> None:
    finish(work.measure_set(session, Chosen(CalibrationSection(max_tokens=600, max_length=32))))
    finish(variants.keep_variant(session, "mine", live.transform(session, session.span, session.method)))
    assert not [box for box in open_page("pages/6_Export.py", session).toggle if "calibration text" in box.label]


def test_the_preview_says_how_much_text_only_comparisons_read() -> None:
    from ui.model.preview import _beside

    prepared = calibration.CalibrationSet("texts", [], [], "", [], test=[torch.arange(1500)])
    assert _beside(prepared) == "; 1,500 test tokens beside, which only comparisons read"
    assert _beside(replace(prepared, test=[])) == "; too little text for a test part"
    assert _beside(replace(prepared, positions=9)) == "", "images are not compared"
