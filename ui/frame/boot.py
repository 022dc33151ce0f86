"""The frame of every page: configuration, sidebar, a guard that turns errors into sentences, the way to the next page."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.errors import StreamlitAPIException

from replaceme_core.errors import Cancelled, ReplaceMeError
from ui.frame import address, presenter, resume
from ui.look import words
from ui.look.page_style import page_css
from ui.look.palette import palette
from ui.look.ruler import ruler
from ui.parts.job_panel import has_active_job, settle, show_failure, show_job
from ui.session.hub import warm
from ui.session.jobs import sentence
from ui.session.state import Studio, studio

logger = logging.getLogger(__name__)


@contextmanager
def page(name: str) -> Iterator[Studio]:
    """Draw the frame of the page `name`, run its body, and show any error as one sentence."""
    about = words.PAGES[name]
    st.set_page_config(
        page_title=f"{about.title} · {words.NAME}", page_icon="assets/icon.svg", layout="wide", initial_sidebar_state=presenter.sidebar()
    )
    st.html(page_css(palette()))
    state = studio()
    settle(state)
    address.arrive(state)
    if state.present:
        st.html(presenter.css(name))
    with st.sidebar:
        _navigation(state, name)
        st.divider()
        current, job_slot = st.container(), st.container()
    if about.question:
        st.markdown(f"## {about.title}")
        st.container(key="lead_question").markdown(f"*{about.question}*")
    show_failure(state)
    address.notice(state)
    try:
        yield state
    except Cancelled as error:
        st.info(str(error))
    except ReplaceMeError as error:
        st.error(str(error), icon=":material/error:")
    except Exception as error:
        logger.exception("page '%s' failed", name)
        st.error(sentence(error), icon=":material/error:")
    with job_slot:
        show_job(state)
    with current:
        _current(state)
        presenter.toggle(state)
        address.copy_link(state, name)
    _footer(state, name)
    presenter.bar(state, name)
    warm()  # only now: its imports would keep the first page waiting


def done_steps(state: Studio) -> set[str]:
    """The steps that have a result."""
    results = {
        "model": state.resident is not None and state.measurement is not None,
        "blocks": state.span is not None and "blocks" in state.visited,
        "fit": bool(state.variants),
        "compare": state.generation is not None or bool(state.divergences),
        "benchmarks": bool(state.scores),
        "export": bool(state.exports) or state.zipped is not None,
    }
    return {step for step, done in results.items() if done}


def next_step(state: Studio) -> str | None:
    """The first step without a result."""
    done = done_steps(state)
    return next((step for step in words.STEPS if step not in done), None)


def needs(state: Studio, measured: bool = True, variant: bool = False, text: bool = False) -> bool:
    """True if the page can work; else say what is missing and link to the page that makes it. `text`: it only reads text."""
    if state.resident is None:
        _missing(words.MODEL_LEFT if state.model else words.TOO_EARLY_MODEL, "model", state)
        return False
    if measured and state.measurement is None:
        _missing(words.TOO_EARLY_MEASURE, "model", state)
        return False
    if measured and state.span is None:
        _missing(words.NO_SPAN, "model", state)
        return False
    if text and state.reads_images:
        st.info(words.TEXT_ONLY, icon=":material/image:")
        return False
    if variant and not state.variants:
        _missing(words.TOO_EARLY_VARIANT, "fit", state)
        return False
    return True


def _missing(sentence_: str, step: str, state: Studio) -> None:
    if has_active_job(state):
        st.info("Working on it: this page fills itself as soon as the job is done.", icon=":material/hourglass_top:")
        show_job(state, large=True)
        return
    st.info(sentence_, icon=":material/signpost:")
    target = words.PAGES[step]
    link(target.file, label=f"Go to {target.title}", icon=":material/arrow_forward:")
    if step == "model":
        resume.offer(state)
        link("app.py", label="Start with the demo model (Overview)", icon=":material/play_arrow:")


def link(file: str, label: str, icon: str) -> None:
    """A link to a page; only its label where a page is run by itself, without app.py."""
    try:
        st.page_link(file, label=label, icon=icon, query_params={"present": "1"} if presenter.presenting() else None)
    except StreamlitAPIException:
        st.markdown(f"{icon} {label}")


def _navigation(state: Studio, name: str) -> None:
    st.markdown(f"**{words.NAME}**")
    done = done_steps(state)
    link("app.py", label="Overview", icon=":material/home:")
    for number, step in enumerate(words.STEPS, start=1):
        icon = "check_circle" if step in done else "radio_button_checked" if step == name else "radio_button_unchecked"
        link(words.PAGES[step].file, label=f"{number} · {words.PAGES[step].title}", icon=f":material/{icon}:")
    for extra in words.EXTRAS:
        link(words.PAGES[extra].file, label=words.PAGES[extra].title, icon=words.PAGES[extra].icon)


def _current(state: Studio) -> None:
    """Current model, calibration set, span and variants."""
    resident = state.resident
    if resident is None:
        st.caption("No model loaded yet.")
        return
    handle = resident.handle
    st.caption(f"**Model** {handle.name} · {handle.n_blocks} blocks · width {handle.width} · {handle.dtype}")
    if state.measurement is not None:
        measured = state.measurement
        st.caption(f"**Calibration set** {measured.calibration_name} · {measured.n_tokens:,} tokens")
    if state.span is not None:
        said = state.span_words(handle.n_blocks)
        ruler(handle.n_blocks, state.removed, said, compact=True)
        st.caption(f"**Span** {said}")
    if state.variants:
        st.caption("**Variants** " + ", ".join(state.variants))


def _footer(state: Studio, name: str) -> None:
    about = words.PAGES[name]
    if about.next_file and name in done_steps(state):
        st.divider()
        if st.button(f"Next: {about.next_label}", icon=":material/arrow_forward:", icon_position="right"):
            st.switch_page(about.next_file)
    if about.terms:
        with st.expander("Words on this page", icon=":material/menu_book:"):
            st.markdown("\n".join(f"- **{term[0].upper()}{term[1:]}** – {words.TERMS[term]}" for term in about.terms))
