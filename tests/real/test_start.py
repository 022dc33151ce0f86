"""*Start with a real language model*: the packaged model, its own text, and a matrix before the pass has ended."""

from pathlib import Path

import pytest

from replaceme_core import pipeline
from replaceme_core.models.checkpoints import smollm2
from tests.support.app_session import finish, open_page, text_of
from ui.parts.start import start_real
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root", "packaged")


@pytest.fixture(scope="module")
def started(packaged: Path) -> Studio:  # noqa: ARG001
    """A start of which somebody had enough at the first picture."""
    state = Studio()
    job = start_real(state)
    job.enough.set()
    finish(job)
    return state


def test_the_start_measures_smollm2_on_what_it_wrote_and_enough_ends_it(started: Studio) -> None:
    resident, measured, section = started.resident, started.measurement, started.calibration_section
    assert resident.section.path == "smollm2"
    assert resident.section.dtype == "float32", "what 4-bit weights are dequantised to"
    assert resident.handle.n_blocks == 30
    assert (section.source, section.second, section.max_tokens) == ("smollm2:chats", "smollm2:prose", 6656)
    assert 512 <= measured.n_tokens < 6656
    assert measured.n_heldout_tokens > 0
    assert len(started.span) == 8
    assert started.span in measured.spans()
    again = pipeline.prepare_for(resident.handle, section)
    assert again.fingerprint == measured.calibration_fingerprint


def test_its_pages_offer_its_own_text_and_the_plain_suite(started: Studio) -> None:
    model = open_page("pages/1_Model.py", started)
    said = text_of(model)
    control = next(group for group in model.button_group if group.label == "Where is the text?")
    assert control.value == "smollm2"
    assert control.options[-1] == "The demo's text"
    assert smollm2.origin() in said
    assert "Q4_1" in said, "the card says that the weights were 4-bit once"
    assert "Measure" in [button.label for button in model.button], "the whole text was not measured"
    assert "Jane" not in said, "no sentence of the demo's world"
    assert f"{started.measurement.n_tokens:,} tokens" in text_of(open_page("pages/2_Blocks.py", started))
    sweep = next(box for box in open_page("pages/8_Sweep.py", started).selectbox if box.label == "Benchmarks")
    assert (sweep.options, sweep.value) == (["none", "plain"], "plain")
    methods = open_page("pages/9_Methods.py", started)
    assert "Questions per task (plain)" in [field.label for field in methods.number_input]
