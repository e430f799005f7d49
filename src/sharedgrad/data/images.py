"""Read image files with Pillow as arrays of pixels 0..255."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sharedgrad.data import capacity
from sharedgrad.errors import DataError, SharedgradError, require

if TYPE_CHECKING:
    from PIL.Image import Image

Progress = Callable[[int, int], None]

# Raster formats only: Pillow hands EPS to an interpreter, and some formats hold no pixels.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
_CHUNK = 64
_MAX_THREADS = 8


def read_image(path: str | Path, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read one image in the form that a model was trained on.

    Args:
        path: The file. Of an animation the first frame counts; an EXIF orientation is followed; an alpha
            channel is dropped.
        channels: 1 for grey (luma of ITU-R 601), 3 for RGB.
        size: The (height, width) to resize to: bilinear, antialiased where it shrinks.

    Returns:
        The pixels (channels, height, width), uint8.

    Raises:
        DataError: No such file, not a readable image, or more pixels than Pillow holds to be safe.
    """
    if channels not in (1, 3):
        raise DataError(path, f"an image file cannot give {channels} channels, only 1 (grey) or 3 (RGB)")
    if not os.path.isfile(path):
        raise DataError(path, "no such image file")
    with _strict_pillow():
        return _decode(Path(path), channels, size)


def read_images(
    paths: Sequence[Path], size: tuple[int, int] | None, progress: Progress | None = None
) -> NDArray[np.uint8]:
    """Read many images, as ``read_image`` does, in several threads.

    Grey where every image is grey, else RGB.

    Args:
        paths: The files, at least one.
        size: The (height, width) to resize to; None where all images have one size.
        progress: Called now and then with the number of images done and the number of all.

    Returns:
        The pixels (N, C, H, W), uint8.

    Raises:
        DataError: An unreadable image, images of different sizes without ``size``, or too many for memory.
    """
    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    with _strict_pillow(), _pool() as pool:
        grey = all(pool.map(lambda chunk: all(_is_grey(paths[i]) for i in chunk), chunks))
        channels = 1 if grey else 3
        height, width = size or _decode(paths[0], channels, None).shape[1:]
        fix = "give a smaller --size or fewer images" if size else "shrink the images with --size"
        x = capacity.reserve((len(paths), channels, height, width), np.uint8, f"{len(paths)} images", fix)

        def fill(chunk: range) -> int:
            for i in chunk:
                pixels = _decode(paths[i], channels, size)
                if pixels.shape != x.shape[1:]:
                    raise DataError(
                        paths[i],
                        f"is {_extent(pixels)} pixels (height × width), but {paths[0]} is {_extent(x)}",
                        "bring all images to one size with --size",
                    )
                x[i] = pixels
            return chunk.stop

        for done in pool.map(fill, chunks):
            if progress:
                progress(done, len(paths))
    return x


def _pillow() -> ModuleType:
    return require("PIL.Image", "reading images")


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that drops the work still waiting when an error or Ctrl-C ends it."""
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _strict_pillow() -> Iterator[None]:
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


def _is_grey(path: Path) -> bool:
    with _opened(path) as image:
        return image.mode in _GREY_MODES


def _decode(path: Path, channels: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The pixels (C, H, W) of one file; ``size`` is (height, width), None keeps the image's own."""
    operations = require("PIL.ImageOps", "reading images")
    with _opened(path) as opened:
        image = _converted(path, operations.exif_transpose(opened), "L" if channels == 1 else "RGB")
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], _pillow().Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _converted(path: Path, image: Image, mode: str) -> Image:
    """The image as 8-bit grey ("L") or "RGB"."""
    if image.mode.startswith("I;16"):
        # Pillow would clip the 16-bit range instead of scaling it.
        image = _pillow().fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DataError(path, "has 32-bit pixels of no fixed range", "save it with 8 or 16 bits per channel")
    elif image.mode in ("P", "PA"):
        # Straight to RGB would lose the colours of palettes with transparency.
        image = image.convert("RGBA")
    return image.convert(mode)


def _extent(pixels: NDArray[Any]) -> str:
    return " × ".join(map(str, pixels.shape[-2:]))
