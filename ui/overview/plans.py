"""A plan, opened in the app: its model is loaded and measured on its text, its span and its method are set. Nothing is pruned yet."""

from typing import TYPE_CHECKING

import streamlit as st
import yaml

from replaceme_core.errors import PlanError, ReplaceMeError
from ui.look.site import PAGES
from ui.parts.job_panel import has_active_job
from ui.parts.links import go
from ui.session.access import access
from ui.session.calibration_choice import Chosen
from ui.session.hub import hub
from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.work import measure_now, submit

if TYPE_CHECKING:
    from pathlib import Path

    from replaceme_core.plans.plan import PruningPlan

_SHIPPED = ("demo", "smollm2", "preset", "self")
"""kinds of text that a shared server reads for its visitors"""
MOST = 1 << 20
"""bytes of a plan"""


def read(text: str, name: str) -> "PruningPlan":
    """The plan in a YAML text. Raises `PlanError`, all problems together."""
    from replaceme_core.plans.plan import PruningPlan

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise PlanError(f"{name} is not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(data, dict):
        raise PlanError(f"{name} holds no plan: it must be a mapping with sections such as model, calibration and span.")
    return PruningPlan.parse(data, origin=name)


def require_offered(plan: "PruningPlan") -> None:
    """Raises for a model or a text that this server does not offer."""
    access().require(plan.model.path)
    for source in filter(None, (plan.calibration.source, plan.calibration.second)):
        if access().shared and source.partition(":")[0] not in _SHIPPED:
            raise PlanError(f"This shared server reads no files and no other data sets than those that it ships; '{source}' is one.")


def open_plan(state: Studio, plan: "PruningPlan") -> Job:
    """One job: load, measure, choose. What a plan does after that (prune, heal, score, export) is done on the pages, or by `replaceme run`."""
    require_offered(plan)

    def work(job: Job) -> None:
        from replaceme_core import pipeline
        from replaceme_core.selection import spans

        job.update(0, 0, "", "loading the libraries")
        resident = hub().load(plan.model, job)
        named = spans.fixed_cut(plan.span)
        if named is not None:
            named.check(resident.handle.n_blocks)
        state.use_model(resident)
        whole = pipeline.completed(plan, resident.handle)
        measure_now(state, resident, Chosen(whole.calibration), job)
        state.text_moves += 1
        if state.model != resident.handle.fingerprint or state.measurement is None or state.calibration is None:
            return  # another model was chosen meanwhile
        cut, _ = pipeline.chosen(resident.handle, state.calibration, state.measurement, whole, job)
        state.choose_cut(cut)
        state.method = whole.method

    return submit(state, f"Opening a plan for {plan.model.path}", work, plan.to_yaml(), moves=True)


def offer(state: Studio) -> None:
    """The upload of a plan."""
    with st.expander("Open a plan (YAML)", icon=":material/description:"):
        st.caption(
            "A plan, or the run config of an export (recipe.yaml): its model is loaded and measured on its text, then its span and its method are set. "
            "Nothing is pruned until you keep a fit. Files that it names are looked for on the server's machine."
        )
        given = st.file_uploader("Plan", type=["yaml", "yml"], key="plan_file", label_visibility="collapsed")
        if given is None:
            return
        if given.size > MOST:
            st.error(f"A plan has at most {MOST:,} bytes; this file has {given.size:,}.", icon=":material/error:")
            return
        show(state, given.getvalue().decode("utf-8", errors="replace"), given.name, "plan_open")


def show(state: Studio, text: str, name: str, key: str, beside: "Path | None" = None) -> None:
    """The button that opens a plan's text, or what is wrong with it. `beside`: the run's own folder, where its calibration text may lie."""
    try:
        plan = read(text, name)
        plan = plan.found_beside(beside) if beside is not None else plan
        require_offered(plan)
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
        return
    if st.button("Open it in the app", icon=":material/play_arrow:", key=key, disabled=has_active_job(state)):
        open_plan(state, plan)
        go(PAGES["blocks"].file)
