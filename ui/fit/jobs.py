"""The jobs of the Fit page."""

from typing import TYPE_CHECKING

from ui.session import live
from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, Span
    from replaceme_core.plans.plan import MethodSection


def fit_slowly(state: Studio, span: "Span | Cut", method: "MethodSection") -> Job:
    """A fit that is too slow to follow a slider; the Fit page finds it in the session's live results."""

    def work(job: Job) -> None:
        live.transform(state, span, method, job)

    return submit(state, f"Fitting {span}", work, method.model_dump_json())
