"""The Compare page on a small random model with two variants: writing that no click disturbs, any reference, odd prompts, the lens."""

import threading
from contextlib import contextmanager
from html import unescape

import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core.calibration.calibration import prepare
from replaceme_core.comparison.compare import stream
from replaceme_core.plans.plan import CalibrationSection
from tests.support.app_session import click, finish, html_of, open_page, run, text_of
from ui.compare import jobs as writing
from ui.compare.generation import CompareState
from ui.look.systems import CUT, ORIGINAL
from ui.session import variants
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
PAGE = "pages/4_Compare.py"
SETTINGS = {"max_new_tokens": 24, "temperature": 1.0, "seed": 5}
PROMPT = "w1 w2 w3"
NAMES = [ORIGINAL, CUT, "second"]


def settled(app: AppTest) -> AppTest:
    """The page once the jobs that it starts by itself are done."""
    state = app.session_state["studio"]
    for _ in range(6):
        job = runner().latest(state.owner)
        if job is None or not job.active:
            run(app)
            if runner().latest(state.owner) is job:
                return app
        finish(runner().latest(state.owner))
    raise AssertionError("the page starts one job after another")


def written(state: Studio, prompt: str = PROMPT, names: list[str] | None = None) -> AppTest:
    """The page after Write, with everything that follows from it."""
    handles = variants.systems(state, ["second"])
    finish(writing.write(state, {name: handles[name] for name in names or NAMES}, prompt, dict(SETTINGS)))
    return settled(open_page(PAGE, state))


@contextmanager
def held_after(state: Studio, n_tokens: int):
    """The writing job, standing still once the original has written so many tokens, until the block ends."""
    reached, go_on = threading.Event(), threading.Event()

    class Gate(list):
        def append(self, piece: str) -> None:
            super().append(piece)
            if len(self) == n_tokens:
                reached.set()
                go_on.wait(60)

    handles = variants.systems(state, ["second"])
    with handles[ORIGINAL].borrow():  # the worker cannot begin before the gate stands
        job = writing.write(state, handles, PROMPT, dict(SETTINGS))
        state.slot(CompareState).generation.columns[ORIGINAL].pieces = Gate()
    try:
        assert reached.wait(60)
        yield job
    finally:
        go_on.set()


def test_write_streams_into_every_column_and_then_reads_and_looks(state: Studio) -> None:
    app = open_page(PAGE, state)
    app.text_area[0].set_value(PROMPT)
    next(item for item in app.slider if item.label == "Max new tokens").set_value(8)
    click(app, "Generate")
    finish(runner().latest(state.owner))
    shown = text_of(settled(app))
    assert list(state.slot(CompareState).generation.texts) == NAMES
    assert "8 new tokens, the number asked for" in shown
    assert "Where do they part?" in shown
    assert "mean KL" in shown
    assert "How does the answer form?" in shown
    assert "block 3 is removed" in html_of(app)


def test_a_click_during_writing_loses_nothing_and_leaves_no_half_drawn_page(state: Studio) -> None:
    expected = {name: "".join(stream(handle, PROMPT, **SETTINGS)) for name, handle in variants.systems(state, ["second"]).items()}
    with held_after(state, 6) as job:
        app = open_page(PAGE, state)
        before = state.slot(CompareState).generation.texts[ORIGINAL]
        assert before
        next(item for item in app.select_slider if item.label == "Tokens").set_value(512)
        run(app)
        assert state.slot(CompareState).generation.texts[ORIGINAL] == before
        assert "What does test text say?" in text_of(app), "the page is drawn to its end"
        assert "▌" in html_of(app)
        assert [button.label for button in app.button if button.label == "Stop"] == ["Stop"]
        open_page("pages/3_Fit.py", state)  # leaving the page does not stop it either
    finish(job)
    assert state.slot(CompareState).generation.texts == expected


def test_stop_keeps_what_is_written_and_reads_it(state: Studio) -> None:
    with held_after(state, 6) as job:
        app = open_page(PAGE, state)
        click(app, "Stop")
    finish(job)
    app = settled(app)
    assert state.slot(CompareState).generation.columns[ORIGINAL].n_tokens == 6
    assert len(state.slot(CompareState).generation.columns[ORIGINAL].pieces) == 6
    assert "stopped after 6 tokens" in text_of(app)
    assert "mean KL" in text_of(app)
    assert not app.error


def test_cancel_beside_another_page_stops_writing_too(state: Studio) -> None:
    with held_after(state, 4) as job:
        click(open_page("app.py", state), "Cancel")
    finish(job)
    assert "stopped after 4 tokens" in text_of(settled(open_page(PAGE, state)))


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("   ", "The prompt is empty; write a few words."),
        ("w1 " * 300, "tokens, the model reads at most 256; shorten it."),
    ],
)
def test_a_prompt_that_cannot_be_read_is_one_sentence_and_what_was_written_stays(state: Studio, prompt: str, sentence: str) -> None:
    app = written(state)
    before = state.slot(CompareState).generation
    app.text_area[0].set_value(prompt)
    click(app, "Generate")
    assert [error.value.endswith(sentence) for error in app.error] == [True]
    assert state.slot(CompareState).generation is before
    assert "Where do they part?" in text_of(app)
    assert "What does test text say?" in text_of(app)


@pytest.mark.parametrize("prompt", ["🙃 👩\u200d👧 w1", "شجرة خضراء w2", '<b>w1</b> & "w2"'])
def test_emoji_right_to_left_text_and_markup_are_drawn_as_they_are(state: Studio, prompt: str) -> None:
    app = written(state, prompt)
    strips = [body for body in (str(part.proto.body) for part in app.get("html")) if "linear-gradient(#" in body and "pre-wrap" in body]
    assert len(strips) == 2
    assert all(strip.startswith('<div dir="auto"') for strip in strips)
    assert "<b>" not in html_of(app)
    reading = next(iter(state.slot(CompareState).generation.readings.values()))
    assert "".join(reading.tokens).removeprefix("<s>").startswith(prompt)


def test_a_context_that_is_full_is_said_and_still_read(state: Studio) -> None:
    prompt = "w1 " * 60
    handle = state.resident.handle
    n = len(handle.tokenizer(prompt)["input_ids"])
    settings = {"max_new_tokens": 200, "temperature": 0.0, "seed": 0}
    finish(writing.write(state, variants.systems(state, ["second"]), prompt, settings))
    app = settled(open_page(PAGE, state))
    full = {name: column for name, column in state.slot(CompareState).generation.columns.items() if column.ended == "context full"}
    assert full, "at least one of these never ends its text"
    assert all(column.n_tokens == 256 - n for column in full.values())
    assert "the context of 256 was full" in text_of(app)
    assert not app.error


def test_any_system_can_be_the_reference_and_the_page_says_which(state: Studio) -> None:
    app = written(state)
    there = next(iter(state.slot(CompareState).generation.readings.values()))
    box = next(item for item in app.selectbox if item.label == "Compared with")
    assert box.options == NAMES
    box.set_value("second")
    app = settled(run(app))
    back = list(state.slot(CompareState).generation.readings.values())[-1]
    assert back is not there
    assert "KL(second ‖ system)" in text_of(app)
    assert "Dashed in 'second': left out by" in unescape(html_of(app))
    assert back.mean_kl(1) != there.mean_kl(2), "KL has a direction"
    click(app, "Measure on test text")
    finish(runner().latest(state.owner))
    table = run(app).dataframe[-1].value
    row = table.set_index("figure")["second (reference)"]
    assert (row["KL"], row["top-1 agreement"]) == ("–", "–")
    assert table.set_index("figure").loc["against the reference", ORIGINAL].startswith("×")
    assert "KL is measured from 'second'" in text_of(app)


def test_another_calibration_set_has_another_test_part(state: Studio) -> None:
    app = open_page(PAGE, state)
    click(app, "Measure on test text")
    finish(runner().latest(state.owner))
    assert "which no fit and no choice has read" in text_of(run(app))
    before = state.calibration, state.calibration_section
    try:
        state.calibration = prepare(CalibrationSection(max_tokens=600, max_length=32, seed=7), state.resident.handle.tokenizer)
        assert state.calibration.test_fingerprint != before[0].test_fingerprint
        assert "which no fit and no choice has read" not in text_of(open_page(PAGE, state)), "the figures are of the other text"
        app = open_page(PAGE, state)
        click(app, "Measure on test text")
        finish(runner().latest(state.owner))
        assert "which no fit and no choice has read" in text_of(run(app))
    finally:
        state.calibration, state.calibration_section = before


def test_two_variants_can_stand_alone_side_by_side(state: Studio) -> None:
    app = open_page(PAGE, state)
    systems = next(item for item in app.multiselect if item.label == "Side by side")
    assert systems.options == [ORIGINAL, CUT, "first", "second"]
    systems.set_value(["first", "second"])
    run(app)
    assert "removes blocks 1–2 of 0–5" in html_of(app)
    assert "removes blocks 3–4 of 0–5" in html_of(app)
    app.text_area[0].set_value(PROMPT)
    click(app, "Generate")
    finish(runner().latest(state.owner))
    app = settled(app)
    assert list(state.slot(CompareState).generation.texts) == ["first", "second"]
    assert "KL(first ‖ system)" in text_of(app)
    assert "block 1 is removed" in html_of(app)
    assert "block 3 is removed" in html_of(app)
    next(item for item in app.multiselect if item.label == "Side by side").set_value(["first"])
    assert "at least two systems" in text_of(run(app))


def test_a_click_on_the_text_and_the_slider_choose_the_token(state: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The click itself is made in Chromium (tests/browser); here the listener says that there was one."""
    app = written(state)
    made = state.slot(CompareState).generation
    (key,) = made.positions
    with monkeypatch.context() as clicked:
        clicked.setattr("ui.parts.watch.token", lambda *_names: 3)
        run(app)
    assert made.positions[key] == 3
    slider = next(item for item in app.select_slider if item.label == "Token")
    assert slider.value == 3
    slider.set_value(5)
    run(app)
    assert made.positions[key] == 5
    run(app)
    assert made.positions[key] == 5, "the old click does not come back"
    assert "is nearer to *original* than" in text_of(app)
    reading = made.readings[key]
    table = next(part.proto.body for part in app.get("html") if ">expected<" in part.proto.body)
    assert f"rank {reading.expected[0][5].rank:,}" in table


def test_the_lens_is_a_table_too_and_can_show_kl(state: Studio) -> None:
    app = written(state)
    twin = next(frame.value for frame in app.dataframe if "boundary" in frame.value)
    assert twin["boundary"].tolist() == [*(f"into block {block}" for block in range(6)), "answer"]
    assert twin["second"].tolist()[3:5] == ["removed", "removed"]
    assert twin["original: KL to its answer"].tolist()[-1] == "0.000"
    app.button_group(key="lens_figure").set_value("kl")
    run(app)
    assert "KL from the system's own answer" in text_of(app)


def test_a_name_that_now_means_another_model_shows_no_old_text(state: Studio) -> None:
    app = written(state)
    state.slot(CompareState).generation.columns["second"].fingerprint = "another"
    assert "Nothing generated yet" in text_of(run(app))


def test_a_reading_that_failed_says_why_and_is_not_started_again_by_itself(state: Studio) -> None:
    """A text that grew too long for the context is told as the models tell it."""
    finish(writing.write(state, variants.systems(state, ["second"]), PROMPT, dict(SETTINGS)))
    columns = state.slot(CompareState).generation.columns.values()
    for column in columns:
        column.prompt = "w1 " * 300
    app = open_page(PAGE, state)
    assert runner().latest(state.owner).finished.wait(60)
    run(app)
    assert runner().latest(state.owner).finished.wait(60)
    run(app)
    assert sum("reads at most 256" in error.value for error in app.error) >= 2, "of the reading and of the lens"
    assert "What does test text say?" in text_of(app), "the rest of the page is there"
    for column in columns:
        column.prompt = PROMPT
    click(app, "Read this text")
    app = click(settled(app), "Look again")
    app = settled(app)
    assert "mean KL" in text_of(app)
    assert not app.error


def test_a_double_click_on_write_writes_once(state: Studio) -> None:
    with held_after(state, 2) as job:
        made = state.slot(CompareState).generation
        assert writing.write(state, variants.systems(state, ["second"]), PROMPT, dict(SETTINGS)) is job
        assert state.slot(CompareState).generation is made
    finish(job)


def test_what_was_left_out_is_marked_in_the_reference_and_what_was_added_in_the_others(state: Studio) -> None:
    app = written(state)
    made = state.slot(CompareState).generation
    shown = html_of(app)
    assert made.columns[ORIGINAL].text != made.columns["second"].text
    assert "underline dashed" in shown
    assert "underline solid" in shown
    assert "left out by 'second'" in unescape(shown)
    app.button_group(key=f"left_{CUT}|second").set_value(CUT)
    assert f"left out by '{CUT}'" in unescape(html_of(run(app)))
