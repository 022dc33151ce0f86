"""The form of a sweep: methods, places, what is measured, the folder; with the number of points and the time they will take."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from replaceme_core.plans.defaults import tasks_for
from ui.look.figures import duration
from ui.look.layout import split
from ui.parts.folder import FIXED, folder_name
from ui.parts.job_panel import has_active_job, is_running
from ui.parts.measure import ask_shares, ask_tokens
from ui.parts.quantised import prunes_in_memory
from ui.session import live, methods
from ui.session.access import access
from ui.session.state import Studio
from ui.sweep import words
from ui.sweep.jobs import SWEEP, run_sweep
from ui.sweep.state import SweepState

if TYPE_CHECKING:
    from replaceme_core.plans.sweep_section import Sweep
    from replaceme_core.studies.sweep.store import SweepFolder

_NONE = "none"
_COMPARED, _READ, _WRITTEN = 0.8, 0.15, 13.0
_ASKED = {"demo": 10.0, "plain": 60.0}
"""what a test token, a token of the timed prompt, a written token and a question of a suite cost, in tokens of the calibration pass
(measured on the demo model, two cores; a question of 'plain' has 76 tokens with its choices, compared at 0.8 each): only for a first guess, before any point is finished"""


def can_sweep(state: Studio) -> bool:
    return prunes_in_memory(state, words.NOT_IN_MEMORY)


def ask(state: Studio) -> None:
    """The settings, what they come to, and the buttons that start or resume."""
    if is_running(state, SWEEP):
        return
    from replaceme_core.errors import ReplaceMeError
    from replaceme_core.studies.sweep.store import Store

    st.markdown("### What to try")
    st.caption(words.INTRO)
    left, right = split("sweep_methods", [1, 1])
    data = _methods(state, left) | {"cuts": _cuts(state, right)} | _measures(state)
    folder = _folder(state)
    there = Store(folder).found() if folder else None
    sweep, problem = None, ""
    try:
        sweep = _section(state, data)
    except ReplaceMeError as error:
        problem = str(error)
    if problem:
        st.error(problem, icon=":material/error:")
    if there is not None and there.index.model_fingerprint != state.model:
        st.info(words.OTHER_MODEL.format(model=there.index.model), icon=":material/info:")
        there = None
        sweep = None
    if sweep is not None:
        st.markdown(f"**{_amount(state, sweep, there)}**")
    _buttons(state, sweep, folder, there)


def _buttons(state: Studio, sweep: "Sweep | None", folder: str, there: "SweepFolder | None") -> None:
    """Run, and go on with a folder's own sweep where it is not finished."""
    from replaceme_core.studies.sweep.store import Store

    unfinished = there is not None and there.unfinished > 0
    run, resume, show = split("sweep_buttons", [2, 3, 3])
    busy = has_active_job(state)
    if run.button(
        "Run the sweep",
        type="secondary" if unfinished else "primary",
        icon=":material/play_arrow:",
        disabled=busy or sweep is None,
        width="stretch",
    ):
        assert sweep is not None
        run_sweep(state, sweep, folder)
        st.rerun()
    if there is not None and unfinished:
        label = f"Resume: {there.unfinished} of {len(there.index.points)} points are left"
        same = state.calibration is not None and there.index.calibration_fingerprint == state.calibration.fingerprint
        if resume.button(label, type="primary", icon=":material/resume:", disabled=busy or not same, width="stretch"):
            run_sweep(state, Store(folder).sweep(), folder)
            st.rerun()
    if (
        there is not None
        and folder != state.slot(SweepState).folder
        and show.button("Show what is there", icon=":material/visibility:", width="stretch")
    ):
        state.slot(SweepState).folder = folder
        st.rerun()


def _methods(state: Studio, place: Any) -> dict[str, Any]:
    from replaceme_core.solvers import METHODS

    names = ["drop", *methods.live_methods(state), *methods.refits(state)]
    chosen = place.multiselect(
        "Methods",
        names,
        default=["drop", "weighted_least_squares"],
        format_func=lambda name: METHODS[name].title,
        key=f"sweep_methods_{state.model}",
        persist_state="session",
        help=words.METHODS_HELP,
    )
    structure = methods.structures(state)[0]
    plain = {"structure": structure} if structure != "full" else {}
    return {"methods": [{"name": name} | (plain if name.endswith("least_squares") else {}) for name in chosen]}


def _cuts(state: Studio, place: Any) -> dict[str, Any]:
    """Shares with a criterion, and spans by hand."""
    from replaceme_core.selection import criteria

    n_blocks = live.measured(state).n_blocks
    shares = ask_shares(place, n_blocks, "sweep", None, words.SHARES_HELP)
    places_box, criterion_box, hand_box = split("sweep_cuts", [2, 3, 4], "bottom")
    places = places_box.number_input("Places of each", 1, 10, 1, key="sweep_places", persist_state="session", help=words.PLACES_HELP)
    criterion = criterion_box.selectbox(
        "Criterion",
        list(criteria.CRITERIA),
        format_func=lambda name: criteria.CRITERIA[name].title,
        key="sweep_criterion",
        persist_state="session",
    )
    by_hand = hand_box.text_input(
        "Spans by hand", placeholder="6:9; 2:4,6:8", key="sweep_hand", persist_state="session", help=words.BY_HAND_HELP
    )
    named = {"shares": shares, "places": int(places), "criterion": criterion} if shares else {}
    return named | {"by_hand": by_hand}


def _measures(state: Studio) -> dict[str, Any]:
    """Test tokens, benchmarks and timing."""
    tokens_box, tasks_box, items_box, speed_box = split("sweep_measures", [3, 3, 2, 3], "bottom")
    tokens = ask_tokens(tokens_box, "sweep_tokens", 2048)
    suite = tasks_for(state.resident.section.path if state.resident else "")
    tasks = tasks_box.selectbox(
        "Benchmarks",
        [_NONE, suite],
        index=1,
        accept_new_options=not access().shared,
        key=f"sweep_tasks_{state.model}",
        persist_state="session",
        help=words.BENCHMARKS_HELP,
    )
    asked = tasks not in (None, _NONE)
    items = items_box.number_input(
        "Questions of each", 1, None, 10, 10, key="sweep_items", persist_state="session", disabled=not asked, help=words.ITEMS_HELP
    )
    timed = speed_box.toggle("Time and memory", value=True, key="sweep_speed", persist_state="session", help=words.SPEED_HELP)
    return {"measure": {"test_tokens": tokens, "speed": timed}} | ({"evaluation": {"tasks": tasks, "limit": int(items)}} if asked else {})


def _folder(state: Studio) -> str:
    """A new folder, or one of a sweep that is there; fixed on a shared server."""
    from replaceme_core.studies.sweep.store import list_sweeps

    name = state.resident.handle.name if state.resident else ""
    suggestion = f"sweeps/{folder_name(name, 'sweep')}"
    if access().shared:
        suggestion = f"{suggestion}-{state.owner}"
        st.text_input("Folder", value=suggestion, disabled=True, help=FIXED)
        return suggestion
    known = [str(found.folder) for found in list_sweeps()]
    options = list(dict.fromkeys([state.slot(SweepState).folder or suggestion, suggestion, *known]))
    chosen = st.selectbox(
        "Folder",
        options,
        accept_new_options=True,
        key=f"sweep_folder_{state.slot(SweepState).folder}_{state.model}",
        help=words.FOLDER_HELP,
    )
    return (chosen or "").strip()


def _section(state: Studio, data: dict[str, Any]) -> "Sweep":
    """The sweep, with the loaded model and its calibration set; every problem of the form in one error."""
    from replaceme_core.plans.sweep_section import Sweep
    from replaceme_core.span import Cut

    cuts = dict(data["cuts"])
    text = cuts.pop("by_hand")
    named = [Cut.parse(part) for part in text.split(";") if part.strip()]
    cuts |= {"spans": [[[span.start, span.end] for span in cut.spans] for cut in named]}
    base = {"model": state.resident.section.model_dump(), "calibration": state.calibration_section.model_dump()} if state.resident else {}
    return Sweep.parse(base | data | {"cuts": cuts}, "the form")


def _amount(state: Studio, sweep: "Sweep", there: "SweepFolder | None") -> str:
    """How many points, and about how long."""
    from replaceme_core.studies.sweep.points import most_points

    measured = live.measured(state)
    count = most_points(sweep, measured.n_blocks)
    done = [result.seconds for result in there.made] if there else []
    if done:
        seconds, source = (
            sum(done) / len(done) * count,
            f"from the {len(done)} points that are there; those that stay the same are not done again",
        )
    else:
        seconds, source = _guess(state, sweep, count), "a first guess, from the speed of the calibration pass"
    return f"{count} point{'s' if count != 1 else ''}, about {duration(seconds)} ({source})."


def _guess(state: Studio, sweep: "Sweep", count: int) -> float:
    from replaceme_core.evaluation.evaluate import list_tasks

    measured, asked = live.measured(state), sweep.measure
    each = 2 * _COMPARED * asked.test_tokens
    if asked.speed:
        each += 2 * (asked.repeats + 2) * (_READ * asked.prompt_tokens + _WRITTEN * asked.new_tokens)
    if sweep.evaluation is not None and sweep.evaluation.tasks in _ASKED:
        each += _ASKED[sweep.evaluation.tasks] * len(list_tasks(sweep.evaluation.tasks)) * (sweep.evaluation.limit or 200)
    fits = sum(methods.seconds(method, measured.seconds) for method in sweep.methods) * count / len(sweep.methods)
    return each * count * measured.seconds / measured.n_tokens + fits
