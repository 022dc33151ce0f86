"""The lesson in Chromium: keys, a click on the matrix, a poll in two browsers, presenter mode on every page, and an address that is opened cold."""

import re

import pytest

from tests.support.browser_walk import CHROMIUM, ROOT, Walk

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
    pytest.mark.skipif(not (ROOT / "assets/demo/model/config.json").is_file(), reason="the demo model is not built"),
]


@pytest.fixture
def lesson(address: str, chromium) -> Walk:
    return Walk(chromium.new_page(viewport={"width": 1280, "height": 800})).open(f"{address}/Lesson", "Lesson")


def card(walk: Walk, number: int):
    return walk.page.get_by_role("heading", name=f"{number} · ")


def test_arrow_keys_turn_the_cards_and_a_click_on_the_matrix_predicts(lesson: Walk) -> None:
    for number in (2, 3, 4, 5):
        lesson.until(lambda: lesson.page.keyboard.press("ArrowRight"), card(lesson, number), f"turning to card {number}")
    assert lesson.page.url.endswith("?card=5")
    reveal = lesson.page.locator("button:enabled", has_text="Reveal the damage")
    lesson.until(lesson.cell(3, 7).click, reveal, "a prediction by a click on the matrix")
    lesson.press("Reveal the damage", lesson.page.get_by_text("your choice").first)
    assert lesson.page.get_by_text("of 100").first.is_visible()
    lesson.until(lambda: lesson.page.keyboard.press("ArrowLeft"), card(lesson, 4), "turning back")
    lesson.until(lesson.page.go_back, card(lesson, 5), "the browser's Back")
    lesson.healthy()


def test_a_student_votes_in_an_own_browser_the_teacher_sees_it_live_and_both_see_the_answer(address: str, chromium) -> None:
    """Nobody but the student touches anything between the vote and its count on the teacher's page."""
    size = {"width": 1280, "height": 900}
    teacher = Walk(chromium.new_context(viewport=size).new_page()).open(f"{address}/Lesson?card=5", "Lesson")
    heading = teacher.page.get_by_role("heading", name=re.compile("^Poll [A-Z2-9]+$"))
    teacher.press("Start a poll of this round", heading)
    code = heading.inner_text().split()[-1]
    teacher.page.get_by_text("0 predictions so far").wait_for()
    student = Walk(chromium.new_context(viewport={"width": 400, "height": 800}).new_page()).open(
        f"{address}/Lesson?card=5&poll={code}", "Lesson"
    )
    choices = student.page.locator(f".st-key-poll_pick_{code}").get_by_role("radio")
    chosen, send = choices.first.inner_text(), student.page.locator("button:enabled", has_text="Send my prediction")
    student.until(choices.first.click, send, "a choice on the student's page")
    student.fill("Name (if you like)", "Zoe")
    student.until(send.click, student.page.get_by_text(f"Sent: {chosen}"), "sending the prediction")
    teacher.page.get_by_text("1 prediction so far").wait_for(timeout=20_000)
    teacher.page.get_by_text(f"{chosen}: Zoe").wait_for(timeout=20_000)
    assert student.page.get_by_text("least damage").count() == 0, "the answer is not shown before it is revealed"
    answer = re.compile(r"^[01] of 1 predicted")
    teacher.until(
        teacher.page.get_by_test_id("stMain").get_by_role("button", name="Reveal", exact=True).click,
        teacher.page.get_by_text(answer),
        "revealing",
    )
    student.page.get_by_text(answer).wait_for(timeout=20_000)
    assert student.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a phone shows the whole page"
    for walk in (teacher, student):
        walk.healthy()
        walk.page.context.close()


def test_presenter_mode_is_turned_on_by_the_switch_and_pages_by_keys(lesson: Walk) -> None:
    plain = lesson.page.evaluate("getComputedStyle(document.documentElement).fontSize")
    leave = lesson.page.get_by_role("button", name="Leave presenter mode")
    lesson.until(lesson.page.get_by_text("Presenter mode").first.click, leave, "presenter mode")
    large = lesson.page.evaluate("getComputedStyle(document.documentElement).fontSize")
    assert float(large.removesuffix("px")) > 1.2 * float(plain.removesuffix("px"))
    for key, heading in (("p", "Export"), ("p", "Benchmarks"), ("n", "Export"), ("n", "Lesson")):
        seen = lesson.page.get_by_role("heading", name=heading, exact=True)
        lesson.until(lambda key=key: lesson.page.keyboard.press(key), seen, f"key {key} to {heading}")
        assert "present=1" in lesson.page.url
        lesson.healthy()
    lesson.page.keyboard.press("Escape")
    leave.wait_for(state="detached")
    lesson.settle()
    assert "present" not in lesson.page.url


def test_an_address_opened_cold_lands_on_its_model_span_and_prompt(address: str, chromium) -> None:
    walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 800}))
    walk.open(f"{address}/Blocks?model=demo&span=2:4&prompt=Finn%20has%20the%20bottle.", "Blocks")
    walk.press("Load and measure the demo model")
    walk.page.get_by_text("removes blocks 2–3 of 0–11").first.wait_for()
    walk.settle()
    assert "span=" not in walk.page.url
    walk.press("Copy link", walk.page.get_by_test_id("stCode"))
    copied = walk.page.get_by_test_id("stCode").inner_text().strip()
    assert copied == f"{address}/Blocks?model=demo&span=2%3A4&prompt=Finn+has+the+bottle."
    second = Walk(chromium.new_page(viewport={"width": 1280, "height": 800})).open(copied, "Blocks")
    assert "without blocks 2–3, with the prompt" in second.text()
    second.healthy()
