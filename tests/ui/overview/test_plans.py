"""A plan that is opened sets what it says: the method on the Fit page, whatever that was set to before, and the span that a run would cut."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from replaceme_core import pipeline
from replaceme_core.plans.plan import MethodSection, PruningPlan
from tests.support.app_session import finish, needs_demo, open_page, run, text_of
from tests.support.tiny_models import save_tiny
from ui.model.state import ModelPageState
from ui.overview import plans
from ui.session import live
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]
FIT, MODEL = "pages/3_Fit.py", "pages/1_Model.py"
TEXT = {"source": "demo:stories", "max_tokens": 4096}


def plan_of(**sections: Any) -> PruningPlan:
    return plans.read(yaml.safe_dump({"model": {"path": "demo"}, "calibration": TEXT} | sections), "plan.yaml")


def opened(state: Studio, **sections: Any) -> Studio:
    finish(plans.open_plan(state, plan_of(**sections)))
    return state


@pytest.mark.parametrize(
    "method",
    [
        {"name": "weighted_least_squares", "ridge": 0.1},
        {"name": "least_squares", "ridge": 0.037},
        {"name": "weighted_least_squares", "structure": "low_rank_update", "rank": 5, "ridge": 1.0},
        {"name": "weighted_least_squares", "structure": "orthogonal"},
        {"name": "weighted_least_squares", "separate": True},
        {"name": "cosine", "ridge": 0.1, "max_iterations": 3, "separate": True},
        {"name": "adam", "loss": "mse", "l2": 0.01},
        {"name": "proximal", "loss": "relative_mse", "l1": 0.2, "max_iterations": 7},
        {"name": "refit", "attention": False},
        {"name": "sequential_refit", "lookahead": 0},
        {"name": "sequential_refit", "lookahead": 5},
        {"name": "deep_refit", "lookahead": 1, "max_iterations": 3},
        {"name": "drop"},
    ],
    ids=str,
)
def test_the_method_of_a_plan_is_that_of_the_fit_page_visited_before_or_not(method: dict[str, Any]) -> None:
    span = {"start": 7, "end": 9}
    fresh = opened(Studio(), span=span, method=method)
    open_page(FIT, fresh)
    assert fresh.method == MethodSection.parse(method)

    visited = opened(Studio(), span=span, method={"name": "least_squares", "structure": "diagonal", "ridge": 10.0})
    app = open_page(FIT, visited)
    assert (visited.method.structure, visited.method.ridge) == ("diagonal", 10.0)
    opened(visited, span=span, method=method)
    for _ in range(2):
        run(app)
        assert visited.method == MethodSection.parse(method)


def test_what_a_person_changes_after_the_plan_stays_and_a_new_tab_shows_it() -> None:
    state = opened(Studio(), method={"name": "weighted_least_squares", "ridge": 0.1})
    app = open_page(FIT, state)
    app.select_slider(key="fit_ridge").set_value(1.0)
    run(app)
    run(app)
    assert state.method.ridge == 1.0
    app = open_page(FIT, state)
    assert (app.select_slider(key="fit_ridge").value, state.method.ridge) == (1.0, 1.0)
    app.toggle(key="fit_automatic").set_value(True)
    run(app)
    assert state.method.ridge is None


def test_a_ridge_stays_where_its_path_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a wide model, whose fit is made beside the page."""
    state = opened(Studio(), method={"name": "weighted_least_squares", "ridge": 0.05})
    monkeypatch.setattr(live, "LONG", -1.0)
    app = open_page(FIT, state)
    assert state.method.ridge == 0.05
    assert "Ridge 0.05 is taken" in text_of(app)


def test_a_rank_of_a_wider_model_does_not_break_the_page_of_a_narrow_one(tmp_path: Path) -> None:
    wide = {"name": "weighted_least_squares", "structure": "low_rank", "rank": 100}
    state = opened(Studio(), method=wide)
    app = open_page(FIT, state)
    assert state.method.rank == 100
    path = str(save_tiny(tmp_path / "narrow", "llama"))
    finish(plans.open_plan(state, plan_of(model={"path": path}, method=wide | {"rank": 8})))
    run(app)
    assert state.method.rank == 8
    state.method = MethodSection.parse(wide)
    run(app)
    assert state.method.rank == 32


@pytest.mark.parametrize("path", ["demo", "small"])
def test_a_plan_that_names_no_method_gets_the_one_that_a_run_takes_and_its_tokens(small: Path, path: str) -> None:
    plan = plan_of(model={"path": str(small) if path == "small" else "demo"}, calibration={"source": "demo:stories", "max_length": 32})
    state = Studio()
    finish(plans.open_plan(state, plan))
    whole = pipeline.completed(plan, state.resident.handle)
    assert (state.method, state.calibration_section) == (whole.method, whole.calibration)
    assert state.method.name == "exchange_refit"
    open_page(FIT, state)
    assert state.method.name == "exchange_refit"


@pytest.mark.parametrize(
    "span",
    [
        {"share": 0.25},
        {"share": 0.25, "count": 2},
        {"share": 0.4, "count": 3},
        {"share": 0.15, "criterion": "path"},
        {"share": 0.1, "criterion": "missed"},
        {"share": 0.25, "criterion": "distance", "positions": "last"},
        {"share": 0.2, "criterion": "measured_kl"},
        {"start": 2, "end": 4, "more": [[6, 8]]},
    ],
    ids=str,
)
def test_the_span_of_a_plan_is_that_of_its_run(tmp_path: Path, span: dict[str, Any]) -> None:
    plan = plan_of(span=span, method={"name": "drop"}, calibration=TEXT | {"test_tokens": 64})
    state = Studio()
    finish(plans.open_plan(state, plan))
    made = pipeline.run(plan, tmp_path / "run")
    assert state.cut == made.variant.transform.cut


def test_spans_that_were_put_aside_before_go_with_a_plan_of_one() -> None:
    state = opened(Studio(), span={"start": 1, "end": 2, "more": [[10, 11]]}, method={"name": "drop"})
    opened(state, span={"share": 0.1}, method={"name": "drop"})
    assert [len(span) for span in state.cut.spans] == [1]


@pytest.mark.parametrize(
    "text",
    [
        {"holdout": 0.02},
        {"holdout": 0.6},
        {"holdout": 0.333},
        {"max_length": 16384},
        {"seed": 123456},
        {"seed": -3},
        {"max_tokens": 60, "max_length": 16},
        {"second": "demo:facts", "second_share": 0.02},
        {"second": "demo:facts", "second_share": 0.97},
        {"second": "demo:facts", "second_share": 0.335},
        {"test_tokens": 64},
        {"skip_first": True},
    ],
    ids=str,
)
def test_the_text_of_a_plan_is_that_of_the_model_page_visited_before_or_not(text: dict[str, Any]) -> None:
    plan = TEXT | text
    fresh = opened(Studio(), calibration=plan, method={"name": "drop"})
    described = open_page(MODEL, fresh)
    visited = opened(Studio(), calibration={"source": "demo:mixture", "max_tokens": 2048}, method={"name": "drop"})
    app = open_page(MODEL, visited)
    opened(visited, calibration=plan, method={"name": "drop"})
    run(app)
    for state, page in ((fresh, described), (visited, app)):
        assert not page.error
        assert "Measure again" in [button.label for button in page.button], "nothing but what was measured"
        assert state.slot(ModelPageState).prepared.popitem()[1].fingerprint == state.measurement.calibration_fingerprint
    described.switch_page(FIT)
    run(described)
    described.switch_page(MODEL)
    run(described)
    assert "Measure again" in [button.label for button in described.button], "also when the page is opened again"


def test_the_text_of_a_plan_that_is_written_in_the_job_stands_in_the_form_exactly() -> None:
    """Nothing is prepared for such a text, so the section itself is compared."""
    text = {"source": "self:prose", "second": "demo:facts", "second_share": 0.07, "max_tokens": 300, "max_length": 48, "holdout": 0.15}
    state = opened(Studio(), calibration=text | {"test_tokens": 0, "seed": 20000}, method={"name": "drop"})
    app = open_page(MODEL, state)
    assert "As the plan says: test_tokens 0." in text_of(app)
    assert "Measure again" in [button.label for button in app.button]
