"""Read many image files into one array, in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharedgrad.data import capacity
from sharedgrad.data.images import Size, decode, is_grey, strict_pillow
from sharedgrad.errors import DataError

Progress = Callable[[int, int], None]

_CHUNK = 64
_MAX_THREADS = 8
_MOST_NAMED = 20


class Images(NamedTuple):
    """What image files hold.

    Attributes:
        x: The pixels (N, C, H, W), uint8.
        kept: For each file, whether it is among them.
        transparent: How many of them had transparent pixels.
    """

    x: NDArray[np.uint8]
    kept: NDArray[np.bool_]
    transparent: int


def read_images(
    paths: Sequence[Path],
    size: Size | None,
    progress: Progress | None = None,
    background: str = "white",
    skip_bad: bool = False,
) -> Images:
    """Read many images, as ``read_image`` does; grey where every image is grey, else RGB.

    Args:
        paths: The files, at least one.
        size: The (height, width) to resize to; None where all images have one size.
        progress: Called now and then with the number of images done and the number of all.
        background: What transparent images are laid on: "white" or "black".
        skip_bad: Leave out files that cannot be read.

    Raises:
        DataError: Files that cannot be read, all named at once; images of different sizes without ``size``; or
            too many for memory.
    """
    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    bad: dict[int, DataError] = {}
    with strict_pillow(), _pool() as pool:
        grey = all(pool.map(lambda chunk: all(_is_grey_or_bad(paths[i]) for i in chunk), chunks))
        channels = 1 if grey else 3
        height, width = size or _first_size(paths, channels)
        fix = "give a smaller --size or fewer images" if size else "shrink the images with --size"
        x = capacity.reserve((len(paths), channels, height, width), np.uint8, f"{len(paths)} images", fix)
        transparent = np.zeros(len(paths), bool)

        def fill(chunk: range) -> int:
            for i in chunk:
                try:
                    pixels, transparent[i] = decode(paths[i], channels, size, background)
                except DataError as error:
                    bad[i] = error
                    continue
                if pixels.shape != x.shape[1:]:
                    problem = f"is {_extent(pixels)} pixels (height × width), but others are {_extent(x)}"
                    raise DataError(paths[i], problem, "bring all images to one size with --size")
                x[i] = pixels
            return chunk.stop

        for done in pool.map(fill, chunks):
            if progress:
                progress(done, len(paths))
    if bad and not skip_bad:
        raise _unreadable([bad[i] for i in sorted(bad)], len(paths))
    kept = np.ones(len(paths), bool)
    kept[list(bad)] = False
    return Images(x[kept] if bad else x, kept, int(transparent.sum()))


def _is_grey_or_bad(path: Path) -> bool:
    try:
        return is_grey(path)
    except DataError:  # said when all have been read
        return True


def _first_size(paths: Sequence[Path], channels: int) -> Size:
    """The (height, width) of the first image that can be read."""
    errors = []
    for path in paths:
        try:
            _, height, width = decode(path, channels, None, "white")[0].shape
            return height, width
        except DataError as error:
            errors.append(error)
    raise _unreadable(errors, len(paths))


def _unreadable(errors: list[DataError], total: int) -> DataError:
    """One line for all files that cannot be read."""
    leave_out = "leave them out with --skip-bad (skip_bad=True)"
    if len(errors) == 1:
        return DataError(errors[0].where, errors[0].problem, f"{errors[0].fix}, or {leave_out.replace('them', 'it')}")
    names = ", ".join(error.where for error in errors[:_MOST_NAMED])
    if len(errors) > _MOST_NAMED:
        names += f" and {len(errors) - _MOST_NAMED} more"
    return DataError(
        f"{len(errors)} of {total} images cannot be read", names, f"remove or replace them, or {leave_out}"
    )


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that drops the work still waiting when an error or Ctrl-C ends it."""
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _extent(pixels: NDArray[Any]) -> str:
    return " × ".join(map(str, pixels.shape[-2:]))
