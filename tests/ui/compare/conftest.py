"""The session of the Compare page's tests: a small random model with two variants."""

from pathlib import Path

import pytest

from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.support.app_session import finish
from ui.compare.generation import CompareState
from ui.session import live, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.state import Studio


@pytest.fixture(scope="module")
def session(small: Path) -> Studio:
    """The small model with the variants 'first' and 'second', of different spans."""
    from replaceme_core.artifacts import Span
    from replaceme_core.plans.plan import MethodSection

    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=32))))
    for name, span in (("first", Span(1, 3)), ("second", Span(3, 5))):
        finish(variants.keep_variant(state, name, live.transform(state, span, MethodSection())))
    return state


@pytest.fixture
def state(session: Studio) -> Studio:
    """The session with nothing written yet."""
    session.slot(CompareState).generation = None
    return session
