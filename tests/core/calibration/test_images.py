"""Images as a calibration set: the split is by image, and what cannot be read or does not fit is named with the way out."""

from pathlib import Path

import pytest
import transformers as hf
from PIL import Image

from replaceme_core import pipeline
from replaceme_core.artifacts import ModelHandle
from replaceme_core.errors import ImageError, InputError, ModelError
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.support.image_models import MODELS, N_IMAGES, POSITIONS, prepared, save_tiny


@pytest.fixture(params=list(MODELS))
def handle(request: pytest.FixtureRequest, tmp_path: Path) -> ModelHandle:
    return load(ModelSection(path=str(save_tiny(tmp_path / "model", request.param))))


def test_the_split_is_by_image_and_follows_the_seed_and_the_budget(handle: ModelHandle, images: Path) -> None:
    first, again, other = (prepared(handle, images, seed=seed) for seed in (1, 1, 2))
    assert (first.fingerprint, first.heldout) == (again.fingerprint, again.heldout)
    assert first.fingerprint != other.fingerprint
    assert (len(first.sequences), sum(first.heldout)) == (N_IMAGES, 8)
    few = prepared(handle, images, max_tokens=10 * POSITIONS + 5)
    assert (len(few.sequences), few.n_tokens) == (10, 10 * POSITIONS)
    assert len(prepared(handle, images, max_texts=7).sequences) == 7
    with pytest.raises(InputError, match="raise max_tokens to 34 or more"):
        prepared(handle, images, max_tokens=20)


def test_copies_of_an_image_stay_on_one_side(clip: ModelHandle, images: Path, tmp_path: Path) -> None:
    for path in list(images.glob("*.png"))[:4]:
        for copy_number in range(3):
            (tmp_path / f"{path.stem}_{copy_number}.png").write_bytes(path.read_bytes())
    found = prepared(clip, tmp_path)
    sides: dict[str, set[bool]] = {}
    for name, out in zip(found.previews, found.heldout, strict=True):
        sides.setdefault(name[:2], set()).add(out)
    assert all(len(side) == 1 for side in sides.values())
    assert sum(found.heldout) == 3


@pytest.mark.parametrize("kind", ["text", "cut off", "gif", "empty"])
def test_an_image_that_cannot_be_read_is_named(kind: str, clip: ModelHandle, images: Path, tmp_path: Path) -> None:
    whole = next(images.glob("*.png"))
    (tmp_path / "good.png").write_bytes(whole.read_bytes())
    bad = tmp_path / "bad.png"
    if kind == "gif":
        Image.new("RGB", (40, 40)).save(bad, format="GIF")
    else:
        bad.write_bytes({"text": b"no image at all", "cut off": whole.read_bytes()[:-200], "empty": b""}[kind])
    with pytest.raises(ImageError, match=r"bad\.png' cannot be read .*; mend or remove it"):
        prepared(clip, tmp_path)


def test_too_few_images_and_sources_of_text_are_refused_with_the_way_out(clip: ModelHandle, images: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(next(images.glob("*.png")).read_bytes())
    with pytest.raises(ImageError, match=r"holds 1 png or jpg file\(s\); at least 2 are needed"):
        prepared(clip, tmp_path)
    with pytest.raises(InputError, match="its calibration source is a folder of png or jpg files, which 'demo:mixture' is not"):
        pipeline.prepare_for(clip, CalibrationSection())
    with pytest.raises(InputError, match="Two sources cannot be mixed"):
        prepared(clip, images, second="demo:facts")
    with pytest.raises(InputError, match="reads images, not text"):
        clip.tokenizer("some text")


def test_an_image_processor_of_another_size_is_refused_with_the_way_out(images: Path, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "vit")
    hf.ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    with pytest.raises(
        ModelError, match=r"shape \(3, 48, 48\), which the model .* does not take .*; mend the size in its preprocessor_config\.json"
    ):
        prepared(load(ModelSection(path=str(folder))), images)


def test_images_that_the_processor_leaves_in_different_shapes_are_named(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "clip_vision")
    hf.CLIPImageProcessorPil(do_resize=False, do_center_crop=False).save_pretrained(folder)
    handle = load(ModelSection(path=str(folder)))
    for number, size in enumerate(((32, 32), (40, 32), (32, 32), (32, 32))):
        Image.new("RGB", size, (number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(ImageError, match=r"1\.png' becomes \(3, 32, 40\), the first one \(3, 32, 32\): .* set do_center_crop"):
        prepared(handle, tmp_path)


def test_a_checkpoint_without_an_image_processor_says_which_file_is_missing(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "vit")
    for path in folder.glob("*processor*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        load(ModelSection(path=str(folder)))
