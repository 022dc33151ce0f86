"""Encoders of images in the app: calibrated from a folder, fitted, kept and exported; the pages that read text say so."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from replaceme_core.plans.plan import ModelSection
from tests.support.app_session import PAGES, click, finish, open_page, run, text_of
from tests.support.image_models import save_tiny
from ui.session import work
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(3)
    for number in range(24):
        values = torch.randint(0, 256, (40, 40, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(values).save(folder / f"{number:02d}.png")
    return folder


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_a_model_of_images_goes_from_a_folder_of_images_to_an_export(kind: str, photos: Path, tmp_path: Path) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(save_tiny(tmp_path / kind, kind)))))
    app = open_page("pages/1_Model.py", state)
    assert "Fill in the folder" in text_of(app)
    folder = next(item for item in app.text_input if item.label == "Folder of images")
    folder.set_value(str(photos))
    assert "24 images" in text_of(run(app))
    click(app, "Measure")
    finish(runner().latest(state.owner))
    assert "408 tokens** in 24 images" in text_of(run(app))
    assert not open_page("pages/2_Blocks.py", state).error
    app = click(open_page("pages/3_Fit.py", state), "Save and stay")
    finish(runner().latest(state.owner))
    assert "forward = block by block" in run(app).dataframe[-1].value["checks"][0]
    for path in ("pages/4_Compare.py", "pages/5_Benchmarks.py"):
        assert "This page reads text" in open_page(path, state).info[0].value
    app = open_page("pages/6_Export.py", state)
    next(item for item in app.text_input if item.label == "Folder").set_value(str(tmp_path / "out"))
    run(app)
    click(app, "Export")
    finish(runner().latest(state.owner))
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()
    for path in PAGES:
        assert not open_page(path, state).error, path


def test_a_folder_without_images_is_one_sentence(tmp_path: Path) -> None:
    state = Studio()
    finish(work.load_model(state, ModelSection(path=str(save_tiny(tmp_path / "vit", "vit")))))
    app = open_page("pages/1_Model.py", state)
    for path, sentence in ((tmp_path / "vit", "holds 0 png or jpg"), (tmp_path / "nowhere", "which '")):
        next(item for item in app.text_input if item.label == "Folder of images").set_value(str(path))
        assert sentence in run(app).error[0].value


@pytest.mark.parametrize("how", [{"quantisation": "int8"}, {"device": "spread"}])
def test_a_model_of_images_held_quantised_or_spread_is_refused_in_a_sentence(tmp_path: Path, how: dict[str, str]) -> None:
    state = Studio()
    work.load_model(state, ModelSection(path=str(save_tiny(tmp_path / "vit", "vit")), **how)).finished.wait(60)
    shown = text_of(open_page("pages/1_Model.py", state))
    assert "reads images; such a model is not pruned quantised or spread" in shown
