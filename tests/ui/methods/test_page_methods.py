"""The Methods page: too early, a small run to chart, table and verdict, and rows that are kept."""

from pathlib import Path

import pytest

from replaceme_core.storage.cache import CACHE
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.methods import view as methods_view
from ui.session import work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
PAGE = "pages/9_Methods.py"


def test_without_a_model_the_page_says_what_is_missing() -> None:
    assert "No model is loaded yet" in text_of(open_page(PAGE, Studio()))


@needs_demo
def test_a_small_run_ends_in_a_verdict_a_chart_and_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from replaceme_core.comparison.speed_gain import Timing
    from replaceme_core.plans.plan import CalibrationSection, ModelSection
    from replaceme_core.studies.leaderboard import standing

    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setattr(standing, "TIMING", Timing(repeats=1, prompt_tokens=8, new_tokens=2))
    state = Studio()
    finish(work.load_model(state, ModelSection(path="demo")))
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=64))))
    app = open_page(PAGE, state)
    assert "Nothing is compared" in text_of(app)
    assert app.multiselect(key="methods_names").value == ["drop", "weighted_least_squares", "exchange_refit", "uidl", "llm_pruner"]
    app.multiselect(key="methods_names").set_value(["drop", "llm_pruner"])
    app.select_slider(key="methods_tokens").set_value(512)
    app.number_input(key="methods_items_demo").set_value(0)
    run(app)
    click(app, "Compare: 2 to make")
    finish(runner().latest(state.owner))
    run(app)
    shown = text_of(app)
    assert "3 blocks or as many parameters" in shown
    assert "wins on KL" in shown
    table = app.dataframe[0].value
    assert sorted(table["method"]) == ["LLM-Pruner", "original", "removed, no transform"]
    assert table["method"][0] == "original"
    assert any(button.label == "All rows are here" and button.disabled for button in app.button)
    app.multiselect(key="methods_names").set_value(["drop", "llm_pruner", "uidl_simple"])
    assert any(button.label == "Compare: 1 to make" for button in run(app).button), "what is finished is not made again"


def test_the_verdict_names_the_winner_and_says_when_it_is_not_certain() -> None:
    ours = {"title": "refit", "group": "ours", "n_removed": 3, "kl": 0.2, "kl_low": 0.15, "kl_high": 0.25}
    field = {"title": "SLEB", "group": "field", "n_removed": 3, "kl": 0.1, "kl_low": 0.05, "kl_high": 0.12}
    (said,) = methods_view.winners([ours, field])
    assert "SLEB wins" in said
    assert "a method of the field" in said
    assert "do not overlap" in said
    (said,) = methods_view.winners([ours, field | {"kl": 0.3, "kl_low": 0.22, "kl_high": 0.4}])
    assert "refit wins" in said
    assert "not certain" in said
