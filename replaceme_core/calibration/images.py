"""A folder of images -> a calibration set: every image a sequence, every position (CLS and patches) a token, none of them padding.

The budget is counted in tokens as for text: `max_tokens` over the positions of one image is how many images are used, and
`max_texts` bounds it too. The split into train and held-out is by image, copies together.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.calibration.parts import hold_out
from replaceme_core.errors import ImageError, InputError, ModelError
from replaceme_core.handle import ModelHandle
from replaceme_core.models.image_files import ImageFiles, ImageReader, list_images
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import CalibrationSection
from replaceme_core.progress import SILENT, Progress

_PREVIEWS = 20


def prepare(section: CalibrationSection, handle: ModelHandle, progress: Progress = SILENT) -> CalibrationSet:
    """Shuffles the folder `section.source`, reads every image used once to check and fingerprint it, and splits the set.

    Raises `ImageError` naming an image that cannot be read or comes out in another shape than the others.
    """
    if section.second:
        raise InputError("Two sources cannot be mixed for a model of images; put the images into one folder and leave 'second' out.")
    reader: ImageReader = handle.tokenizer
    paths = list_images(section.source)
    generator = torch.Generator().manual_seed(section.seed)
    paths = [paths[i] for i in torch.randperm(len(paths), generator=generator).tolist()]
    positions = _positions(handle, reader.pixels(paths[0]))
    limit = min(section.max_texts, section.max_tokens // positions)
    if limit < 2:
        raise InputError(
            f"{section.max_tokens} tokens are fewer than two images of {positions} positions; raise max_tokens to {2 * positions} or more."
        )
    chosen = paths[:limit]
    keys = _keys(chosen, reader, progress)
    heldout = hold_out(keys, section.holdout, generator)
    digest = hashlib.sha256(b"".join((b"h" if out else b"t") + key for key, out in zip(keys, heldout, strict=True)))
    names = [path.name for path in chosen[:_PREVIEWS]]
    whole = CalibrationSet(section.source, ImageFiles(chosen, reader), heldout, digest.hexdigest()[:16], names, positions)
    return whole.beginning(section.first_sequences or limit)


def _positions(handle: ModelHandle, pixels: Tensor) -> int:
    """Positions that the model makes of one image, CLS and patches."""
    try:
        with handle.borrow() as model:
            stream = capture.read_states(model, handle.family, pixels.unsqueeze(0), None, stop=1).boundaries[0]
    except (ValueError, RuntimeError) as error:  # what a vision tower raises for a size it was not made for
        raise ModelError(
            f"The image processor makes pixel values of shape {tuple(pixels.shape)}, which the model '{handle.name}' does not take "
            f"({error}); mend the size in its preprocessor_config.json."
        ) from error
    return stream.shape[1]


def _keys(paths: list[Path], reader: ImageReader, progress: Progress) -> list[bytes]:
    """A digest of each image's pixel values, all of one shape."""
    keys: list[bytes] = []
    shape: torch.Size | None = None
    for number, path in enumerate(paths, start=1):
        pixels = reader.pixels(path)
        shape = shape or pixels.shape
        if pixels.shape != shape:
            raise ImageError(
                f"The image '{path}' becomes {tuple(pixels.shape)}, the first one {tuple(shape)}: the image processor does not give "
                "all images one size. Crop the images, or set do_center_crop in preprocessor_config.json."
            )
        keys.append(hashlib.sha256(pixels.numpy().tobytes()).digest())
        progress.update(number, len(paths), "images", "reading images")
    return keys
