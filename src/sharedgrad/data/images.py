"""Read one image file with Pillow as an array of pixels 0..255."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sharedgrad.errors import ConfigError, DataError, SharedgradError, require

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

BACKGROUNDS = {"white": 255, "black": 0}

# Raster formats only: Pillow hands EPS to an interpreter, and some formats hold no pixels.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: str | Path, channels: int, size: Size, background: str = "white") -> NDArray[np.uint8]:
    """Read one image in the form that a model was trained on.

    Args:
        path: The file. Of an animation the first frame counts; an EXIF orientation is followed.
        channels: 1 for grey (luma of ITU-R 601), 3 for RGB.
        size: The (height, width) to resize to: bilinear, antialiased where it shrinks.
        background: What transparent images are laid on: "white" or "black".

    Returns:
        The pixels (channels, height, width), uint8.

    Raises:
        DataError: No such file, not a readable image, or more pixels than Pillow holds to be safe.
        ConfigError: There is no such background.
    """
    if channels not in (1, 3):
        raise DataError(path, f"an image file cannot give {channels} channels, only 1 (grey) or 3 (RGB)")
    if not os.path.isfile(path):
        raise DataError(path, "no such image file")
    check_background(background)
    with strict_pillow():
        return decode(Path(path), channels, size, background)[0]


def check_background(name: object) -> None:
    """Raise ConfigError unless there is such a background."""
    if name not in BACKGROUNDS:
        raise ConfigError("background", f"expected {' or '.join(BACKGROUNDS)}, got {name!r}")


def _pillow() -> ModuleType:
    return require("PIL.Image", "reading images")


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Make Pillow's warning of a decompression bomb an error, and its remarks on metadata silent."""
    bomb = _pillow().DecompressionBombWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", bomb)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image; whatever goes wrong with it is one DataError."""
    pillow = _pillow()
    pillow.init()
    try:
        with pillow.open(path, formats=[name for name in _FORMATS if name in pillow.OPEN]) as image:
            yield image
    except SharedgradError:
        raise
    except pillow.UnidentifiedImageError as error:
        raise DataError(path, "is not an image of a known format", "remove or replace it") from error
    except Exception as error:  # a damaged or hostile file makes Pillow raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(path, f"cannot be read as an image ({reason})", "remove or replace it") from error


def is_grey(path: Path) -> bool:
    """Whether an image has no colours, as its header says; DataError if it cannot be read."""
    with _opened(path) as image:
        return image.mode in _GREY_MODES


def decode(path: Path, channels: int, size: Size | None, background: str) -> tuple[NDArray[np.uint8], bool]:
    """The pixels (C, H, W) of one file, and whether the background shows through; no ``size`` keeps the image's own."""
    operations = require("PIL.ImageOps", "reading images")
    with _opened(path) as opened:
        image, transparent = _opaque(path, operations.exif_transpose(opened), background)
        image = image.convert("L" if channels == 1 else "RGB")
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], _pillow().Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1), transparent


def _opaque(path: Path, image: Image, background: str) -> tuple[Image, bool]:
    """The image without an alpha channel, in 8 bits, and whether it had any transparent pixel."""
    if image.mode.startswith("I;16"):
        return _from_16_bits(image, background)
    if image.mode in ("I", "F"):
        raise DataError(path, "has 32-bit pixels of no fixed range", "save it with 8 or 16 bits per channel")
    if not image.has_transparency_data:
        return image, False
    image = image.convert("RGBA")
    opaque = image.getchannel("A").getextrema()[0] == 255
    under = _pillow().new("RGBA", image.size, background)
    return _pillow().alpha_composite(under, image), not opaque


def _from_16_bits(image: Image, background: str) -> tuple[Image, bool]:
    """Scaled, as Pillow would clip the 16-bit range; one grey value may stand for "transparent"."""
    deep = np.asarray(image)
    clear = deep == image.info.get("transparency", -1)
    pixels = np.where(clear, BACKGROUNDS[background], deep >> 8).astype(np.uint8)
    return _pillow().fromarray(pixels), bool(clear.any())
