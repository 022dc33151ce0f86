"""Two sessions at once, a tab that is reloaded, a model that is unloaded: nothing is mixed up, lost or kept in memory."""

import gc
import threading
import weakref
from pathlib import Path

import psutil
import pytest
import torch

from replaceme_core.measurement.measure import measure
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from replaceme_core.storage import shelf
from tests.support.app_session import PAGES, click, finish, open_page, run, text_of
from tests.support.tiny_models import save_tiny
from ui.model import unload as unload_view
from ui.session import live, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.hub import hub, trim_heap
from ui.session.jobs import Job, runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
TEXT = CalibrationSection(max_tokens=600, max_length=32)


@pytest.fixture
def alone() -> None:
    """No session of an earlier test can be picked up."""
    hub().sessions.clear()


def test_two_sessions_with_other_models_and_precisions_at_once_get_what_they_would_get_alone(tmp_path: Path) -> None:
    sections = [
        ModelSection(path=str(save_tiny(tmp_path / "one", "llama")), dtype="float32"),
        ModelSection(path=str(save_tiny(tmp_path / "two", "llama", seed=1, num_hidden_layers=4)), dtype="bfloat16"),
    ]
    states = [Studio(), Studio()]
    for job in [work.load_model(state, section) for state, section in zip(states, sections, strict=True)]:
        finish(job)
    jobs = [work.measure_set(state, Chosen(TEXT)) for state in states for _ in range(2)]
    assert len(set(map(id, jobs))) == 2, "asked for twice, each is measured once"
    for path in PAGES[:3]:  # in turns, while the jobs run and after: AppTest swaps the process's runtime and takes one thread
        for state in states:
            open_page(path, state)
    for job in jobs:
        finish(job)
    for state, section in zip(states, sections, strict=True):
        alone_ = measure(load(section), state.calibration, again=True)
        assert torch.equal(state.measurement.distances["all"].values.nan_to_num(), alone_.distances["all"].values.nan_to_num())
        finish(variants.keep_variant(state, "mine", live.transform(state, state.span, state.method)))
        shown = text_of(open_page("pages/1_Model.py", state))
        assert f"{state.resident.handle.n_blocks} blocks" in shown
        assert section.dtype in shown
    assert states[0].model != states[1].model
    assert [list(state.variants) for state in states] == [["mine"], ["mine"]]
    assert states[0].variants["mine"].handle.dtype == "float32"
    assert states[1].variants["mine"].handle.dtype == "bfloat16"


def test_one_checkpoint_in_two_precisions_is_two_models(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path / "one", "llama"))
    states = [Studio(), Studio()]
    for state, dtype in zip(states, ("float32", "bfloat16"), strict=True):
        finish(work.load_model(state, ModelSection(path=folder, dtype=dtype)))
    assert [state.resident.handle.dtype for state in states] == ["float32", "bfloat16"]


@pytest.mark.usefixtures("alone")
def test_a_tab_reloaded_in_the_middle_of_a_job_finds_the_job_and_then_its_result(small: Path) -> None:
    before, hold = Studio(), threading.Event()
    finish(work.load_model(before, ModelSection(path=str(small))))
    before.forget_model()

    def slow(job: Job) -> None:
        hold.wait(30)
        before.use_model(hub().load(ModelSection(path=str(small)), job))

    job = work.submit(before, "Loading slowly", slow)
    app = open_page("pages/2_Blocks.py")  # a new tab: a session that knows nothing
    label = next(button.label for button in app.button if button.label.startswith("Pick up"))
    assert "Loading slowly, still running" in label
    click(app, label)
    assert app.session_state["studio"] is before
    assert "Loading slowly" in text_of(app)
    hold.set()
    finish(job)
    assert "has not been measured yet" in text_of(run(app)), "the model is there"


@pytest.mark.usefixtures("alone")
def test_another_session_is_not_offered_on_a_shared_server_or_without_anything_to_offer(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [button for button in open_page("app.py").button if button.label.startswith("Pick up")]
    finish(work.load_model(Studio(), ModelSection(path=str(small))))
    assert [button for button in open_page("app.py").button if button.label.startswith("Pick up")]
    monkeypatch.setenv("REPLACEME_MODELS", "demo")
    assert not [button for button in open_page("app.py").button if button.label.startswith("Pick up")]


def test_unload_is_asked_about_where_a_variant_would_be_lost_and_the_page_goes_on(small: Path) -> None:
    shelf.clear()  # what a session of an earlier test kept would come back to this one, which has the same model and text
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    finish(work.measure_set(state, Chosen(TEXT)))
    finish(variants.keep_variant(state, "first", live.transform(state, state.span, state.method)))
    app = open_page("pages/1_Model.py", state)
    assert "Back when this model is loaded and its text measured again: first" in text_of(app)
    shelf.clear()
    app = open_page("pages/1_Model.py", state)
    assert "Not exported, and gone with the model: first" in text_of(app)
    click(app, "Unload now")
    assert state.resident is None
    assert "Nothing is loaded yet" in text_of(app)
    for path in PAGES:
        open_page(path, state)
    finish(work.load_model(state, ModelSection(path=str(small))))
    assert not state.variants
    assert any(button.label.startswith("Unload (") for button in open_page("pages/1_Model.py", state).button), "nothing to ask about"


def test_a_shared_server_offers_no_unload(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small))))
    monkeypatch.setenv("REPLACEME_MODELS", "demo")
    assert not [button for button in open_page("pages/1_Model.py", state).button if button.label.startswith("Unload")]


def test_unloading_gives_the_memory_back(tmp_path: Path) -> None:
    """Measured: resident memory of the process, and that no tensor of the model or of its variant is alive.

    The heap is that of a process that has run for long: it holds freed blocks of a weight's size between living ones. Left there before
    the load, they would hold the model without any growth; left there after it, they would not come back.
    """
    shape = {"hidden_size": 512, "intermediate_size": 6144, "num_attention_heads": 8, "num_hidden_layers": 4}
    folder = save_tiny(tmp_path / "large", "llama", **shape)
    state = Studio()
    torch.ones(31 * 2**18)  # 31 MiB; what is smaller than the largest that was freed comes from the heap
    earlier = [torch.ones(size) for _ in range(12) for size in (512 * 6144, 2**17)]
    between = earlier[1::2]
    del earlier
    gc.collect()
    trim_heap()
    before = psutil.Process().memory_info().rss
    finish(work.load_model(state, ModelSection(path=str(folder))))
    finish(work.measure_set(state, Chosen(TEXT)))
    finish(variants.keep_variant(state, "first", live.transform(state, state.span, state.method)))
    app = open_page("pages/2_Blocks.py", state)
    run(app)
    loaded = psutil.Process().memory_info().rss
    n_bytes = state.resident.handle.n_bytes
    with state.resident.handle.borrow() as model, state.variants["first"].handle.borrow() as pruned:
        alive = [weakref.ref(tensor) for tensor in (*model.parameters(), *pruned.parameters())]
        del model, pruned
    unload_view.unload(state)
    run(app)
    del app
    gc.collect()
    left = psutil.Process().memory_info().rss
    del between
    assert not [tensor for tensor in alive if tensor() is not None]
    assert loaded - before > 0.9 * n_bytes, f"nothing was measured: {loaded - before:,} of {n_bytes:,}"
    assert loaded - left > 0.9 * n_bytes, f"{(loaded - left) / 2**20:.0f} MiB came back of {n_bytes / 2**20:.0f} MiB of weights"
    print(
        f"\nunload: weights {n_bytes / 2**20:.0f} MiB, process +{(loaded - before) / 2**20:.0f} MiB, then -{(loaded - left) / 2**20:.0f} MiB"
    )


def test_a_job_that_is_over_holds_nothing() -> None:
    class Heavy:
        pass

    heavy = Heavy()
    gone = weakref.ref(heavy)

    def work_(_job: Job, heavy: Heavy = heavy) -> None:
        assert heavy

    job = runner().submit(Job("heavy", "somebody", work_))
    assert job.finished.wait(30)
    del heavy, work_
    gc.collect()
    assert gone() is None
