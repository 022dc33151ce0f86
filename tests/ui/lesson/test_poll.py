"""A class predicts: votes from several sessions, a live tally on the page that asked, and the answer for all of them."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from replaceme_core.artifacts import Span
from tests.support.app_session import ROOT, click, html_of, open_page, run, text_of
from ui.lesson import poll as poll_view
from ui.lesson.data import DROP, traces
from ui.lesson.state import LessonState
from ui.look.palette import Palette
from ui.session.hub import hub
from ui.session.polls import Polls, polls
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
LESSON = "pages/7_Lesson.py"


def opened(state: Studio, **params: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.session_state["studio"] = state
    for key, value in params.items():
        app.query_params[key] = value
    app.switch_page(LESSON)
    return run(app)


def test_a_vote_counts_once_for_a_session_and_not_after_the_answer() -> None:
    poll = Polls().start("teacher", "demo", 3)
    assert poll.vote("a", Span(5, 8), "  Zoe\n ")
    assert poll.vote("b", Span(5, 8))
    assert poll.vote("a", Span(2, 5), "Zoe")
    assert not poll.vote("c", Span(2, 6)), "another length"
    assert (poll.tally(), poll.names(Span(2, 5)), poll.names(Span(5, 8))) == ({Span(2, 5): 1, Span(5, 8): 1}, ["Zoe"], [])
    poll.revealed = True
    assert not poll.vote("a", Span(5, 8))


def test_a_session_has_one_poll_and_the_oldest_go_first() -> None:
    all_polls = Polls()
    first = all_polls.start("teacher", "demo", 3)
    second = all_polls.start("teacher", "demo", 1)
    assert all_polls.get(first.code) is None
    assert all_polls.of("teacher") is second
    for number in range(20):
        all_polls.start(f"teacher {number}", "demo", 3)
    assert all_polls.get(second.code) is None
    assert all_polls.get(None) is None


def test_a_class_votes_the_teacher_sees_the_tally_and_all_see_the_answer() -> None:
    teacher = Studio()
    teacher.slot(LessonState).card = poll_view.CARD
    shown = click(open_page(LESSON, teacher), "Start a poll")
    poll = polls().of(teacher.owner)
    assert poll is not None
    assert any(f"poll={poll.code}" in item.value for item in shown.code)
    assert "**0** predictions so far" in text_of(shown)

    student = Studio()
    page = opened(student, card="5", poll=poll.code.lower())
    assert "Reveal the damage" not in [button.label for button in page.button], "the class answers together"
    best = traces(poll.model).best(poll.length).span
    place = next(row.span for row in traces(poll.model).of_length(poll.length, DROP) if row.span != best)
    pills = page.button_group(key=f"poll_pick_{poll.code}")
    pills.set_value(f"blocks {place.start}–{place.end - 1}")
    run(page)
    page.text_input(key=f"poll_name_{poll.code}").set_value("<b>Ada")
    click(run(page), "Send my prediction")
    assert "Sent: blocks" in text_of(page)
    assert page.query_params["session"] in (student.owner, [student.owner]), "a reload is the same voter"
    assert poll.tally() == {place: 1}

    run(shown)
    assert "**1** prediction so far" in text_of(shown)
    assert "<b>Ada" in "".join(item.value for item in shown.get("text")), "a name is text"
    shown.button(key="poll_reveal").click()
    run(shown)
    run(page)
    for either in (shown, page):
        assert "**0 of 1** predicted" in text_of(either)
    assert "Send my prediction" not in [button.label for button in page.button]
    click(shown, "End the poll")
    assert "is over" in text_of(run(page))


def test_votes_of_a_class_do_not_take_the_teachers_session_away_nor_those_with_a_model() -> None:
    hub().sessions.clear()
    with_model = Studio(model="held")
    hub().remember(with_model)
    teacher = Studio()
    teacher.slot(LessonState).card = poll_view.CARD
    click(open_page(LESSON, teacher), "Start a poll")
    poll = polls().of(teacher.owner)
    assert poll is not None
    students = [Studio() for _ in range(6)]
    for student in students:
        page = opened(student, card="5", poll=poll.code)
        pills = page.button_group(key=f"poll_pick_{poll.code}")
        pills.set_value(pills.options[0])
        click(run(page), "Send my prediction")
    assert poll.tally().total() == 6
    assert hub().sessions == [with_model, teacher, *students[-3:]], "a server of one's own keeps five"


def test_the_tally_is_a_valid_chart_with_a_row_for_every_place(colours: Palette) -> None:
    spans = [Span(start, start + 3) for start in range(1, 20)]
    chart = poll_view.tally_chart(spans, {spans[2]: 7}, colours).to_dict()
    rows = next(iter(chart["datasets"].values()))
    assert [row["votes"] for row in rows].count(0) == 18
    assert rows[2] == {"place": "blocks 3–5", "votes": 7, "said": "7"}


def test_a_code_that_is_none_is_a_sentence() -> None:
    app = opened(Studio(), card="5", poll="<script>")
    assert "names no poll" in app.warning[0].value
    assert "<script>" not in html_of(app)
    assert Path(LESSON).is_file()
