"""What the tests of the pages share: opening a page in a session, pressing a button, waiting for a job, and sessions to start from."""

import functools
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.support.tiny_models import save_tiny
from ui.look.palette import DARK, LIGHT, Palette
from ui.parts.start import start_demo
from ui.session import live, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.jobs import Job
from ui.session.state import Studio

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ["pages/1_Model.py", "pages/2_Blocks.py", "pages/3_Fit.py", "pages/4_Compare.py", "pages/5_Benchmarks.py", "pages/6_Export.py"]
# every AppTest looks through the metadata of all installed packages for components, half a second each; they stay the same
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)
needs_demo = pytest.mark.skipif(not (ROOT / "assets/demo/model/config.json").is_file(), reason="the demo model is not built")


@pytest.fixture
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def open_page(path: str, state: Studio | None = None, opened: dict[str, str | bool] | None = None) -> AppTest:
    """The page with a given session state, run once; no exception, no unnamed error. `opened`: tabs and expanders that are open, by their keys."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for key, shown in (opened or {}).items():
        app.session_state[key] = shown
    if state is not None:
        app.session_state["studio"] = state
    if path != "app.py":
        app.switch_page(path)
    return run(app)


def run(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception
    assert not [shown.value for shown in app.error if "did not expect" in shown.value]
    return app


def click(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label.startswith(label)).click()
    return run(app)


def finish(job: Job | None) -> None:
    """Wait for a job and require that it succeeded."""
    assert job is not None
    assert job.finished.wait(120)
    assert job.state == "done", job.error


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.info, *app.error, *app.success, *app.warning]
    return "\n".join(str(part.value) for part in parts)


@pytest.fixture(scope="module")
def demo() -> Studio:
    """A session with the demo model measured, as *Start with the small demo, in seconds* leaves it."""
    state = Studio()
    finish(start_demo(state))
    return state


@pytest.fixture(scope="module")
def kept(demo: Studio) -> Studio:
    """The same session with one variant kept."""
    assert demo.span is not None
    finish(variants.keep_variant(demo, "first", live.transform(demo, demo.span, demo.method)))
    return demo


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with fewer blocks than the demo model."""
    return save_tiny(tmp_path_factory.mktemp("small"), "llama")


@pytest.fixture(scope="module")
def foreign(small: Path) -> Studio:
    """A session with a model that is not the demo, measured, with one variant kept."""
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(small), device="cpu")))
    finish(work.measure_set(state, Chosen(CalibrationSection(source="demo:mixture", max_tokens=2048, max_length=64))))
    assert state.span is not None
    finish(variants.keep_variant(state, "first", live.transform(state, state.span, state.method)))
    return state


def save_wide(folder: Path) -> Path:
    """A random model whose widths a processor can compute in 4 bits."""
    return save_tiny(folder, "llama", hidden_size=64, intermediate_size=128, num_attention_heads=4, head_dim=16)


@pytest.fixture(params=[LIGHT, DARK], ids=["light", "dark"])
def colours(request: pytest.FixtureRequest) -> Palette:
    """The palette of either theme."""
    found: Palette = request.param
    return found


def html_of(app: AppTest) -> str:
    """Everything that the page draws as HTML of its own."""
    return "\n".join(str(part.proto.body) for part in app.get("html"))
