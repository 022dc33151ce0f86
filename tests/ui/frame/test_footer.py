"""The foot of a page: its words are there once they are asked for."""

import pytest

from tests.support.app_session import open_page, run, text_of
from ui.look.glossary import TERMS
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


def test_the_words_of_a_page_are_drawn_when_they_are_opened() -> None:
    """All of them are as much text as the rest of a page, and every change of page waited for it."""
    app = open_page("pages/2_Blocks.py", Studio())
    assert "Words on this page" in [box.label for box in app.expander]
    assert "All other words" not in text_of(app)
    app.session_state["words_blocks"] = True
    said = text_of(run(app))
    assert "All other words" in said
    assert all(explained in said for explained in TERMS.values())
