"""The frame of every page: configuration, sidebar, a guard that turns errors into sentences, and what a page needs before it can work."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from replaceme_core.errors import Cancelled, ReplaceMeError
from replaceme_core.storage.shipped import ASSETS
from ui.frame import address, navigation, presenter, resume, words
from ui.look.page_style import page_css
from ui.look.palette import palette
from ui.look.site import NAME, PAGES
from ui.parts import start, watch
from ui.parts.job_panel import follow, has_active_job, settle, show_failure, show_job, show_load
from ui.parts.links import link
from ui.session.jobs import sentence
from ui.session.state import Studio, studio
from ui.session.turns import DRAWING
from ui.session.warm import warm

logger = logging.getLogger(__name__)


@contextmanager
def page(name: str) -> Iterator[Studio]:
    """Draw the frame of the page `name`, run its body, and show any error as one sentence. Long work pauses meanwhile."""
    with DRAWING.page(), _page(name) as state:
        yield state


@contextmanager
def _page(name: str) -> Iterator[Studio]:
    about = PAGES[name]
    st.set_page_config(
        page_title=f"{about.title} · {NAME}", page_icon=str(ASSETS / "icon.svg"), layout="wide", initial_sidebar_state=presenter.sidebar()
    )
    st.html(page_css(palette()))
    resume.find_again()
    state = studio()
    resume.keep_address(state)
    settle(state)
    address.arrive(state)
    if state.present:
        st.html(presenter.css(name))
    with st.sidebar:
        navigation.navigation(state, name)
        st.divider()
        current, job_slot, load_slot = st.container(), st.container(), st.container()
    if state.present:  # the sidebar is folded away
        job_slot = st.container(key="presented_job")
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
    if not state.present or has_active_job(state):
        with job_slot:
            show_job(state, large=state.present)
    with load_slot:
        show_load()
    with current:
        navigation.current(state)
        presenter.toggle(state)
        address.copy_link(state)
    navigation.footer(state, name)
    presenter.bar(state, name)
    with st.sidebar:
        watch.theme()
    warm()  # only now: its imports would keep the first page waiting


def needs(state: Studio, measured: bool = True, variant: bool = False, text: bool = False, partial: bool = False) -> bool:
    """True if the page can work; else say what is missing and link to the page that makes it.

    `text`: it only reads text. `partial`: the distances of a pass that is under way are enough for it; it is redrawn as they sharpen.
    """
    if partial:
        follow(state)
    if state.resident is None:
        _missing(words.MODEL_LEFT if state.model else words.TOO_EARLY_MODEL, "model", state)
        return False
    if measured and (state.shown if partial else state.measurement) is None:
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
    target = PAGES[step]
    link(target.file, label=f"Go to {target.title}", icon=":material/arrow_forward:")
    if step == "model":
        resume.offer(state)
        if start.offers_real():
            link("app.py", label=f"{start.REAL_LABEL} (Overview)", icon=start.REAL_ICON)
        link("app.py", label=f"{start.LABEL} (Overview)", icon=start.ICON)
