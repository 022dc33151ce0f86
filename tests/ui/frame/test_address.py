"""Addresses carry model, span, prompt, card and presenter mode; what is wrong in one is a sentence, and nothing loads without a click."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core.artifacts import Span
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.support.app_session import PAGES, ROOT, click, finish, needs_demo, open_page, run, text_of
from ui.compare.generation import CompareState, Generation, present
from ui.frame import address
from ui.lesson.cards import CARDS
from ui.lesson.state import LessonState
from ui.parts import chart
from ui.session import link, live, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.hub import hub
from ui.session.jobs import runner
from ui.session.link import LinkState, PromptInUse
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
BLOCKS, COMPARE, LESSON = "pages/2_Blocks.py", "pages/4_Compare.py", "pages/7_Lesson.py"


def open_address(path: str, state: Studio | None = None, **params: str) -> AppTest:
    """The page as a browser opens it that was given this address."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.session_state["studio"] = state or Studio()
    for key, value in params.items():
        app.query_params[key] = value
    if path != "app.py":
        app.switch_page(path)
    return run(app)


def bar(app: AppTest) -> dict[str, str]:
    """What the address bar holds."""
    return {key: value if isinstance(value, str) else value[0] for key, value in app.query_params.items()}


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_an_address_is_read() -> None:
    found, problems = link.read(
        {"model": "demo", "span": "6:8,2:4", "prompt": "Good day\nשלום \u200f👩\u200d🚀", "card": "4", "present": "1"}
    )
    assert problems == []
    assert found == link.Address("demo", (Span(2, 4), Span(6, 8)), "Good day\nשלום \u200f👩\u200d🚀", 4, True)
    assert link.read({}) == (link.Address(), [])


def test_every_card_of_the_lesson_has_an_address() -> None:
    assert len(CARDS) == link.CARDS
    assert link.read({"card": str(len(CARDS))}) == (link.Address(card=len(CARDS)), [])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("span", "8:5", "end after it begins"),
        ("span", "0:3", "block 0 stays"),
        ("span", "5-8", "must look like 5:8"),
        ("span", "1:2:3", "must look like 5:8"),
        ("span", "2:5,4:7", "overlap"),
        ("span", ",".join(["1:2"] * 50), "must look like"),
        ("span", "٣:٥", "must look like"),
        ("card", "0", "1 to 12"),
        ("card", "13", "1 to 12"),
        ("card", "four", "1 to 12"),
        ("card", "²", "1 to 12"),
        ("present", "yes", "1 (presenter mode) or 0"),
        ("model", "x" * 201, "at most 200"),
        ("model", "a\x00b", "printable"),
        ("model", "![](http://somewhere/picture.png)", "without []"),
        ("prompt", "x" * 1501, "1,501 characters"),
        ("prompt", "a\x07", "control characters"),
    ],
)
def test_a_wrong_value_is_a_sentence_and_the_rest_still_counts(key: str, value: str, said: str) -> None:
    found, problems = link.read({"card": "4", key: value} if key != "card" else {key: value})
    assert len(problems) == 1
    assert said in problems[0]
    assert key == "card" or found.card == 4


@pytest.mark.parametrize("path", ["app.py", *PAGES, LESSON])
def test_every_page_opens_with_a_nonsense_address(path: str) -> None:
    app = open_address(path, span="9:1", card="x", present="2", model="\x01", prompt="\x02")
    assert len([line for line in app.warning[0].value.splitlines() if line.strip()]) == 5
    assert not app.error


def test_a_cold_address_offers_one_button_and_loads_nothing_before_it() -> None:
    state = Studio()
    app = open_address(BLOCKS, state, model="demo", span="5:8", prompt="Finn has the bottle.")
    assert "the demo model, without blocks 5–7, with the prompt" in text_of(app)
    assert "Load and measure the demo model" in labels(app)
    assert runner().latest(state.owner) is None
    assert bar(app)["span"] == "5:8", "a reload still knows"
    click(app, "Not now")
    assert state.slot(LinkState).wanted is None
    assert "span" not in app.query_params
    assert "Load and measure the demo model" not in labels(app)


@needs_demo
def test_the_button_of_a_cold_address_lands_on_its_span_and_prompt() -> None:
    state = Studio()
    app = open_address(BLOCKS, state, model="demo", span="2:4,6:8", prompt="Finn has the bottle.")
    click(app, "Load and measure the demo model")
    finish(runner().latest(state.owner))
    run(app)
    assert (state.span, state.more) == (Span(2, 4), [Span(6, 8)])
    assert "span" not in app.query_params, "the bar would be wrong after the next click"
    assert next(slider for slider in app.slider if slider.label.startswith("Blocks to remove")).value == (2, 3)
    finish(variants.keep_variant(state, "one", live.transform(state, Span(5, 8), state.method)))
    assert open_page(COMPARE, state).text_area[0].value == "Finn has the bottle."


@needs_demo
def test_the_prompt_of_an_address_takes_the_place_of_the_one_that_was_written_with(demo: Studio) -> None:
    own = demo.slot(CompareState)
    for prompt, stays in (("Once", True), ("Another one", False)):
        demo.slot(PromptInUse).text, own.generation = "Once", Generation("Once", {}, {})
        open_address(BLOCKS, demo, model="demo", prompt=prompt)
        assert (present(demo) is not None) is stays
    own.generation = None


@needs_demo
def test_a_span_that_the_model_does_not_have_is_said_and_the_present_one_stays(demo: Studio) -> None:
    before = demo.span
    app = open_address(BLOCKS, demo, model="demo", span="5:40")
    assert "does not fit this model" in app.warning[0].value
    assert demo.span == before
    assert demo.slot(LinkState).wanted is None


@needs_demo
def test_an_address_of_another_model_does_not_touch_the_loaded_one(demo: Studio) -> None:
    before, count = demo.span, demo.model
    app = open_address(BLOCKS, demo, model="somebody/else", span="1:2")
    assert "Load this model" in labels(app)
    assert (demo.span, demo.model) == (before, count)
    click(app, "Not now")


def test_a_shared_server_refuses_a_model_that_it_does_not_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLACEME_MODELS", "demo")
    state = Studio()
    for path in ("/etc", "somebody/else"):
        app = open_address(BLOCKS, state, model=path, span="1:2")
        assert "offers only demo" in app.error[0].value
        assert not {"Load this model", "Load and measure the demo model"} & set(labels(app))
    assert runner().latest(state.owner) is None


def test_a_loaded_model_that_is_not_measured_is_sent_to_its_page(small: Path) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    app = open_address(BLOCKS, state, span="1:3")
    assert "chosen by themselves" in text_of(app)
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=32))))
    run(app)
    assert state.span == Span(1, 3)


@needs_demo
def test_the_link_of_a_page_brings_somebody_else_to_the_same_place(demo: Studio) -> None:
    demo.choose(Span(3, 6))
    demo.more = [Span(8, 9)]
    demo.slot(PromptInUse).text = "Größe & Wärme?\n=5"
    demo.slot(LessonState).card = 7
    app = open_page(LESSON, demo)
    shown = next(item.value for item in app.code if item.value.startswith(("http", "?")))
    query = parse_qs(urlsplit(shown).query)
    demo.more, demo.slot(PromptInUse).text = [], ""
    assert query == {"model": ["demo"], "span": ["3:6,8:9"], "prompt": ["Größe & Wärme?\n=5"], "card": ["7"]}
    found, problems = link.read({key: values[0] for key, values in query.items()})
    assert problems == []
    assert found.spans == (Span(3, 6), Span(8, 9))


def test_a_prompt_too_long_for_an_address_is_left_out_of_the_link() -> None:
    state = Studio()
    state.slot(LinkState).prompt = "x" * (link.LONGEST_PROMPT + 1)
    assert "prompt" not in address.carried(state)


def test_an_address_opens_the_lesson_at_its_card_and_the_bar_follows() -> None:
    app = open_address(LESSON, card="4", present="1")
    assert app.session_state["studio"].present
    assert "4 · How is the matrix read?" in text_of(app)
    click(app, "Next")
    assert bar(app)["card"] == "5"
    assert bar(app)["present"] == "1"
    app.query_params["card"] = "2"  # the browser's Back, or another link in the same tab
    assert "2 · What runs" in text_of(run(app))


@pytest.mark.parametrize("path", ["app.py", *PAGES, LESSON])
def test_presenter_mode_goes_with_the_switch_on_every_page(path: str) -> None:
    app = open_page(path)
    assert "Leave presenter mode" not in labels(app)
    next(toggle for toggle in app.toggle if toggle.label == "Presenter mode").set_value(True)
    run(app)
    assert "Leave presenter mode" in labels(app)
    assert bar(app)["present"] == "1"
    click(app, "Leave presenter mode")
    assert "Leave presenter mode" not in labels(app)
    assert "present" not in app.query_params
    assert not app.session_state["studio"].present


def test_the_pages_are_turned_in_order_in_presenter_mode() -> None:
    app = open_page("app.py", Studio(present=True))
    click(app, "Model")
    assert any(button.label == "Overview" for button in app.button)
    click(app, "Blocks")
    assert "## Blocks" in text_of(app)


def test_a_chart_grows_for_the_room_but_its_data_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {
        "height": 100,
        "layer": [{"mark": {"type": "text", "fontSize": 10}}],
        "config": {"axis": {"labelFontSize": 12}},
        "datasets": {"a": [{"fontSize": 1}]},
    }
    assert chart.enlarged(spec) is spec
    monkeypatch.setattr(chart, "presenting", lambda: True)
    grown = chart.enlarged(spec)
    assert grown["height"] == 130
    assert grown["layer"][0]["mark"]["fontSize"] == 14.5
    assert grown["config"]["axis"]["labelFontSize"] == 17.4
    assert grown["datasets"] == spec["datasets"]


def test_a_reload_finds_its_session_by_the_id_in_the_address_and_nobody_gets_into_one_that_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = Studio()
    app = open_page("app.py", state)
    assert "session" not in bar(app), "there is nothing to come back to yet"
    state.asked = True
    hub().remember(state)
    assert bar(run(app))["session"] == state.owner

    def reloaded() -> Studio:
        again = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        again.query_params["session"] = state.owner
        found: Studio = run(again).session_state["studio"]
        assert ("session" in bar(again)) is (found is state)
        return found

    monkeypatch.setattr("ui.frame.resume._is_shown", lambda _other: False)
    assert reloaded() is state
    monkeypatch.setattr("ui.frame.resume._is_shown", lambda _other: True)
    assert reloaded() is not state


def test_a_class_of_thirty_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLACEME_MODELS", "demo")
    here = type(hub())()
    sessions = [Studio() for _ in range(30)]
    for session in sessions:
        here.remember(session)
    assert here.sessions == sessions
