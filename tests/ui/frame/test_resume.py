"""Who is offered the last tab's work: nobody while a connected tab shows it, and nobody where other people reach the server."""

from pathlib import Path

import pytest

from replaceme_core.plans.plan import ModelSection
from tests.support.app_session import finish, open_page
from ui.frame.resume import last_tab
from ui.session import work
from ui.session.hub import hub
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.fixture
def before(small: Path) -> Studio:
    """The only session there is, with a model, that a tab shows (to AppTest every tab is connected)."""
    hub().sessions.clear()
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    open_page("app.py", state)
    assert state.tab
    return state


def offers() -> list[str]:
    return [button.label for button in open_page("app.py").button if button.label.startswith("Pick up")]


def test_a_session_that_a_connected_tab_shows_is_offered_to_nobody_else(before: Studio) -> None:
    assert offers() == []
    before.tab = ""  # closed
    assert offers() == ["Pick up the last tab's work"]


def test_of_two_sessions_the_one_that_is_not_shown_is_offered(before: Studio) -> None:
    closed = Studio(model=before.model)
    hub().sessions.insert(0, closed)
    before.tab = ""
    assert last_tab(Studio()) is before
    shown = open_page("app.py", before)
    assert "Pick up" not in "".join(button.label for button in shown.button)
    other = open_page("app.py")
    next(button for button in other.button if button.label.startswith("Pick up")).click()
    other.run()
    assert other.session_state["studio"] is closed


def test_nothing_is_offered_where_other_people_reach_the_server(before: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    before.tab = ""
    assert offers()
    monkeypatch.setattr("ui.frame.resume.listens", lambda: True)
    assert offers() == []
