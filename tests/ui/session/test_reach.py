"""The address that others can open, and its code."""

import re

import pytest

from ui.look.palette import Palette
from ui.look.qr import qr_html
from ui.parts.share import ALONE
from ui.session import reach as reach_module
from ui.session.hub import hub
from ui.session.reach import Reach, reach
from ui.session.state import Studio


@pytest.fixture
def listens(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr("streamlit.get_option", lambda _name: request.param)
    monkeypatch.setattr(reach_module, "_own_address", lambda: "10.1.2.3")


@pytest.mark.parametrize("listens", ["0.0.0.0", ""], indirect=True)
@pytest.mark.usefixtures("listens")
def test_this_machine_becomes_its_address_in_the_network_where_the_server_listens() -> None:
    assert reach("http://localhost:8501/Lesson?card=5") == Reach("http://10.1.2.3:8501/Lesson?card=5", True)
    assert reach("http://127.0.0.1/Blocks") == Reach("http://10.1.2.3/Blocks", True)
    assert reach("https://class.example.org/Blocks?span=5:8") == Reach("https://class.example.org/Blocks?span=5:8", True)


@pytest.mark.parametrize("listens", ["127.0.0.1"], indirect=True)
@pytest.mark.usefixtures("listens")
def test_a_server_that_listens_to_itself_alone_is_reached_by_nobody_else() -> None:
    assert reach("http://localhost:8501/Lesson") == Reach("http://localhost:8501/Lesson", False)


@pytest.mark.parametrize(("listens", "kept"), [("0.0.0.0", 30), ("", 30), ("10.1.2.3", 30), ("127.0.0.1", 5)], indirect=["listens"])
@pytest.mark.usefixtures("listens")
def test_a_server_that_others_reach_keeps_the_sessions_of_a_class(kept: int) -> None:
    here = type(hub())()
    for _ in range(30):
        here.remember(Studio())
    assert len(here.sessions) == kept


def test_the_sentence_that_lets_a_class_in_says_what_makes_the_server_a_shared_one() -> None:
    assert "--server.address 0.0.0.0" in ALONE
    assert "REPLACEME_MODELS" in ALONE


def test_no_address_is_made_up() -> None:
    own = reach_module._own_address()
    assert own is None or re.fullmatch(r"(\d+\.){3}\d+", own)
    assert not reach("").by_others


def test_the_code_is_black_on_white_in_either_theme_and_says_its_address(colours: Palette) -> None:
    shown = qr_html('http://10.1.2.3:8501/Lesson?card=5&poll="<K7QF9>', colours)
    assert "#000" in shown
    assert "&quot;&lt;K7QF9&gt;" in shown
    assert "<K7QF9>" not in shown
    assert "<svg" in shown
