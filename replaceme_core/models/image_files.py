"""Strict reading of calibration images: png and jpg files of one folder, through the checkpoint's own image processor.

The processors of transformers that need only Pillow are used where torchvision is missing; both give the same pixel values
up to rounding. Every error names the file and the way out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from replaceme_core.errors import ImageError, InputError, ModelError

ENDINGS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Stands where a text model has its tokenizer: turns files into pixel values, and is saved beside the weights."""

    processor: Any
    tokenizer: Any = None
    """of the text tower, if the checkpoint has one; only carried along to the export"""

    @classmethod
    def read(cls, path: str, options: dict[str, Any]) -> "ImageReader":
        """From a checkpoint. Raises `ModelError` without a preprocessor_config.json; a missing tokenizer is no error."""
        from transformers import AutoImageProcessor, AutoTokenizer
        from transformers.utils import cached_file

        try:
            processor = AutoImageProcessor.from_pretrained(path, **options)
        except Exception as error:  # transformers raises many kinds, with no common base
            raise ModelError(
                f"'{path}' has no image processor that can be read; put its preprocessor_config.json beside the weights."
            ) from error
        where = {key: value for key, value in options.items() if key != "trust_remote_code"}
        try:  # without its files, transformers would make up an empty tokenizer
            cached_file(path, "tokenizer_config.json", **where)
            return cls(processor, AutoTokenizer.from_pretrained(path, **options))
        except Exception:  # the same; encoders of images alone have none
            return cls(processor)

    def pixels(self, path: Path) -> Tensor:
        """Pixel values [channels, height, width] of one file, float32. Raises `ImageError` that names it."""
        from PIL import Image

        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                rgb = image.convert("RGB")
        except Exception as error:  # Pillow's decoders raise many kinds for damaged files
            reason = "it is damaged, cut off, or not a png or jpg" if not isinstance(error, PermissionError) else "no permission"
            raise ImageError(f"The image '{path}' cannot be read ({reason}); mend or remove it.") from error
        pixels: Tensor = self.processor(images=rgb, return_tensors="pt")["pixel_values"][0]
        return pixels

    def save_pretrained(self, folder: Path) -> None:
        """Writes the image processor, and the tokenizer of the text tower if there is one."""
        for part in (self.processor, self.tokenizer):
            if part is not None:
                part.save_pretrained(folder)

    def __call__(self, *_args: Any, **_options: Any) -> Any:
        raise InputError("This model reads images, not text; give a folder of png or jpg files.")


class ImageFiles(Sequence[Tensor]):
    """Pixel values of files, decoded when they are asked for, so that memory does not grow with the number of images."""

    def __init__(self, paths: Sequence[Path], reader: ImageReader) -> None:
        self.paths, self._reader = list(paths), reader

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...

    def __getitem__(self, index: int | slice) -> "Tensor | ImageFiles":
        if isinstance(index, slice):
            return ImageFiles(self.paths[index], self._reader)
        return self._reader.pixels(self.paths[index])

    def only(self, numbers: Sequence[int]) -> "ImageFiles":
        """These of the images, still unread."""
        return ImageFiles([self.paths[number] for number in numbers], self._reader)

    def __iter__(self) -> Iterator[Tensor]:
        return (self._reader.pixels(path) for path in self.paths)


def list_images(source: str) -> list[Path]:
    """The png and jpg files of a folder and of the folders in it, by name; hidden and other files are passed over."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise InputError(f"This model reads images: its calibration source is a folder of png or jpg files, which '{source}' is not.")
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()]
    if len(paths) < 2:
        raise ImageError(
            f"The folder '{source}' holds {len(paths)} png or jpg file(s); at least 2 are needed, one to fit and one to check."
        )
    return sorted(paths)
