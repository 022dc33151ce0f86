"""The jobs of the Fit page."""

from typing import TYPE_CHECKING

from ui.session import live
from ui.session.jobs import Job, runner
from ui.session.state import Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, Span
    from replaceme_core.plans.plan import MethodSection


def fit_slowly(state: Studio, span: "Span | Cut", method: "MethodSection") -> Job:
    """A fit that is too slow to follow a slider; the Fit page finds it, and the path of its ridge, in the session's live results."""

    def work(job: Job) -> None:
        from replaceme_core.artifacts import Span
        from replaceme_core.plans.plan import LEAST_SQUARES

        job.update(0, 0, "", "fitting")
        live.transform(state, span, method, job)
        if isinstance(span, Span) and method.name in LEAST_SQUARES and live.can_fit(state, span):
            job.update(0, 0, "", "the path of the ridge")
            live.ridge_path(state, span, method)

    return submit(state, title_of(span), work, method.model_dump_json(), lane="short")


def title_of(span: "Span | Cut") -> str:
    return f"Fitting {span}"


def was_stopped(state: Studio, span: "Span | Cut", method: "MethodSection") -> bool:
    """Whether this very fit failed or was cancelled last, so that it is not begun again by itself."""
    job = runner().latest(state.owner, "short")
    return (
        job is not None and job.state in ("failed", "cancelled") and (job.title, job.settings) == (title_of(span), method.model_dump_json())
    )
