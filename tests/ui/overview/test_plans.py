"""A plan that is opened sets what a run of it would take: the spans, and the method that it leaves out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from replaceme_core import pipeline
from replaceme_core.plans.plan import PruningPlan
from tests.support.app_session import finish, needs_demo, open_page
from ui.overview import plans
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]
FIT = "pages/3_Fit.py"
TEXT = {"source": "demo:stories", "max_tokens": 4096}


def plan_of(**sections: Any) -> PruningPlan:
    return plans.read(yaml.safe_dump({"model": {"path": "demo"}, "calibration": TEXT} | sections), "plan.yaml")


def opened(state: Studio, **sections: Any) -> Studio:
    finish(plans.open_plan(state, plan_of(**sections)))
    return state


@pytest.mark.parametrize("path", ["demo", "small"])
def test_a_plan_that_names_no_method_gets_the_one_that_a_run_takes_and_its_tokens(small: Path, path: str) -> None:
    plan = plan_of(model={"path": str(small) if path == "small" else "demo"}, calibration={"source": "demo:stories", "max_length": 32})
    state = Studio()
    finish(plans.open_plan(state, plan))
    whole = pipeline.completed(plan, state.resident.handle)
    assert (state.method, state.calibration_section) == (whole.method, whole.calibration)
    assert state.method.name == "local_refit"
    open_page(FIT, state)
    assert state.method.name == "local_refit"


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
