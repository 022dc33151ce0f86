"""A fit that would hold the page is a job that begins by itself; what it made is shown when it is there, and one that failed is not begun again."""

import pytest
import torch

from replaceme_core import solvers
from replaceme_core.errors import NumericsError
from replaceme_core.plans.plan import MethodSection
from replaceme_core.solvers import cost
from tests.support.app_session import finish, open_page, text_of
from ui.session import live
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


def test_a_wide_fit_is_a_job_that_begins_by_itself_and_a_quick_one_is_made_at_once(
    foreign: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = foreign
    assert state.span is not None
    state.slot(live.LiveResults).held.clear()
    asked: list[str] = []
    own = solvers.fit
    monkeypatch.setattr(solvers, "fit", lambda *args, **more: (asked.append("fit"), own(*args, **more))[1])
    monkeypatch.setattr(cost, "seconds", lambda *_facts: 200.0)
    blocks = text_of(open_page("pages/2_Blocks.py", state))
    assert "takes about 3 min here; the Fit page makes it beside the page" in blocks
    assert not asked
    page = open_page("pages/3_Fit.py", state)
    assert "At this width a fit takes about 3 min here" in text_of(page)
    assert "Held-out cosine" not in [item.label for item in page.metric]
    job = runner().latest(state.owner, "short")
    finish(job)
    assert (job.title, asked) == (f"Fitting {state.span}", ["fit"])
    page = open_page("pages/3_Fit.py", state)
    assert "Held-out cosine" in [item.label for item in page.metric]
    assert any("How hard should the ridge pull?" in item.value for item in page.markdown), "the path was made in the job, too"
    assert asked == ["fit"]
    assert runner().latest(state.owner, "short") is job

    monkeypatch.setattr(cost, "seconds", lambda *_facts: 2.0)
    state.slot(live.LiveResults).held.clear()
    assert "Held-out cosine" in [item.label for item in open_page("pages/3_Fit.py", state).metric]
    assert runner().latest(state.owner, "short") is job, "no job for what the page can wait for"


def test_a_wide_fit_that_failed_waits_for_the_button(foreign: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise NumericsError("No ridge gives a fit.")

    foreign.slot(live.LiveResults).held.clear()
    before = runner().latest(foreign.owner, "short")
    if before is not None:
        runner().forget(before)  # of another test: a page that sees it end is drawn once more
    monkeypatch.setattr(cost, "seconds", lambda *_facts: 200.0)
    monkeypatch.setattr(solvers, "fit", fail)
    open_page("pages/3_Fit.py", foreign)
    job = runner().latest(foreign.owner, "short")
    assert job is not None
    assert job.finished.wait(30)
    page = open_page("pages/3_Fit.py", foreign)
    assert any("No ridge gives a fit." in item.value for item in page.error)
    assert "Fit it" in [item.label for item in page.button]
    assert runner().latest(foreign.owner, "short") is job


def test_what_a_fit_is_expected_to_cost_grows_as_its_sums_and_its_solve_do() -> None:
    full, removed = MethodSection(), MethodSection(name="drop")
    assert cost.flops(128, 4096, removed) == 4 * 4096 * 128**2
    wide = cost.flops(4096, 16_384, full)
    assert wide / 4096**3 == pytest.approx(2 * (8 + 8) + 4 * 4, rel=1e-9)
    assert cost.flops(4096, 16_384, MethodSection(structure="diagonal")) < wide / 2
    product = torch.randn(256, 256, dtype=torch.float64)
    assert torch.isfinite(product).all()
    assert 1e7 < cost.speed("cpu") < 1e15
    assert cost.speed("cpu") == cost.speed("cpu"), "measured once in a minute"
