"""The linearity of the blocks on the Blocks page: asked for, measured as a job, shown with its table twin."""

import pytest

from replaceme_core.baselines import secretly_linear
from tests.support.app_session import at_the_root, click, demo, finish, needs_demo, open_page, text_of  # noqa: F401
from ui.blocks import linearity as linearity_view
from ui.blocks import words
from ui.look.palette import DARK, LIGHT
from ui.session.jobs import runner

STUDIES = {words.PART: words.TABS[1]}


@needs_demo
@pytest.mark.usefixtures("at_the_root")
def test_the_blocks_page_measures_how_linear_the_blocks_are_when_asked(demo):  # noqa: F811
    app = open_page("pages/2_Blocks.py", demo, STUDIES)
    assert "How linear is each block?" in text_of(app)
    assert "Green diamond" not in text_of(app)
    click(app, linearity_view.TITLE)
    finish(runner().latest(demo.owner))
    app = open_page("pages/2_Blocks.py", demo, STUDIES)
    assert linearity_view.TITLE not in [button.label for button in app.button]
    assert "Green diamond" in text_of(app)
    assert f"{demo.calibration.n_heldout_tokens:,} held-out tokens" in text_of(app)
    table = next(frame.value for frame in app.dataframe if "its own part" in frame.value.columns)
    fits = secretly_linear.fits(demo.resident.handle, demo.calibration)
    assert table["the stream behind it"].tolist() == [fit.heldout_score for fit in fits]
    assert table["its own part"].tolist() == [fit.heldout_own_score for fit in fits]
    assert table["block"][table["removed"]].tolist() == demo.removed


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_the_chart_is_valid_and_draws_a_score_below_zero_at_zero(colours):
    rows = linearity_view.linearity_rows(linearity_view.Linearity([0.5, 0.9, -0.2], [0.1, -3.0, -0.4], 100, 10), [1])
    chart = linearity_view.linearity_chart(rows, colours).to_dict()
    values = next(data for data in chart["datasets"].values() if len(data) == 3)
    assert [row["bar"] for row in values] == [0.5, 0.9, 0]
    assert [row["text"] for row in values] == ["0.50", "0.90", "-0.20"]
    assert [len(data) for data in chart["datasets"].values()] == [3, 1]


def test_without_a_measurement_nothing_is_asked():
    from ui.session.state import Studio

    assert linearity_view.linearity(Studio()) is None
