"""A folder of images and a tiny CLIP, shared by the tests of models and of calibration."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from replaceme_core.artifacts import ModelHandle
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection
from tests.support.image_models import N_IMAGES, save_tiny


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images of different sizes, png and jpg, some in a folder below, beside a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "more").mkdir()
    (folder / "notes.txt").write_text("not an image")
    generator = torch.Generator().manual_seed(3)
    for number in range(N_IMAGES):
        height, width = torch.randint(20, 60, (2,), generator=generator).tolist()
        values = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy()
        ending = "jpg" if number % 4 == 0 else "png"
        Image.fromarray(values).save(folder / ("more" if number % 5 == 0 else ".") / f"{number:02d}.{ending}")
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("clip_alone"), "clip")


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> ModelHandle:
    return load(ModelSection(path=str(clip_folder)))
