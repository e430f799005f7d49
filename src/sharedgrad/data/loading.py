"""Find out what a source of data is, and read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sharedgrad.data.collection import Progress
from sharedgrad.data.dataset import Dataset
from sharedgrad.data.digits import load_digits
from sharedgrad.data.fetching import SOURCES
from sharedgrad.data.folder import holds_class_folders, load_folder
from sharedgrad.data.idx import find_splits, load_idx
from sharedgrad.data.images import SUFFIXES, Size, check_background
from sharedgrad.data.listing import listing
from sharedgrad.data.npz import load_npz
from sharedgrad.errors import ConfigError, DataError

_UNDERSTOOD = "give digits, a folder with IDX files, a folder of images in class folders, or an .npz file"


def load(
    source: str | Path,
    size: Size | int | None = None,
    progress: Progress | None = None,
    *,
    background: str = "white",
    skip_bad: bool = False,
) -> Dataset:
    """Read a data set.

    Args:
        source: The word "digits" (scikit-learn's); or the path of a folder with IDX files, gzipped or not
            (for one of several sets in it, FOLDER/NAME, e.g. ``emnist/emnist-letters``), of a folder of
            images in class folders, with or without train/ and test/, or of an .npz with x and y. A folder
            that is called digits is ``./digits`` or a Path.
        size: Resize the images of class folders to (height, width), or to a square.
        progress: Called now and then with the number of image files read and the number of all.
        background: What transparent images of class folders are laid on: "white" or "black".
        skip_bad: Leave out files of class folders that cannot be read.

    Raises:
        DataError: Nothing there, not understood, or not usable.
        ConfigError: ``size`` or ``background`` is senseless, or the source is no folder of images.
    """
    extent = _height_width(size)
    check_background(background)
    path = Path(source)
    read: Callable[[], Dataset]
    if source == "digits":
        read = load_digits
    elif os.path.isdir(path):
        if _is_image_folder(path):
            return load_folder(path, extent, progress, background, skip_bad)
        read = partial(load_idx, path)
    elif os.path.isdir(path.parent) and path.name in find_splits(path.parent):
        read = partial(load_idx, path.parent, path.name)
    elif os.path.isfile(path) and path.suffix.lower() == ".npz":
        read = partial(load_npz, path)
    else:
        found = "is not understood" if os.path.exists(path) else "there is no such file or folder"
        fetched = f"sharedgrad data {source} {source} fetches it" if str(source) in SOURCES else ""
        raise DataError(source, found, fetched or _UNDERSTOOD)
    if extent:
        raise ConfigError("--size", f"resizes a folder of images, and {source} is none", "leave it out")
    return read()


def _height_width(size: Size | int | None) -> Size | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ConfigError("--size", f"expected at least 1 × 1 pixel, got {height} × {width}")
    return height, width


def _is_image_folder(folder: Path) -> bool:
    """True for class folders, False for IDX files; DataError for both and for neither."""
    idx, images = bool(find_splits(folder)), holds_class_folders(folder)
    if idx and images:
        raise DataError(folder, "holds both IDX files and folders of images", "put them into two folders and name one")
    if idx or images:
        return images
    folders, files = listing(folder)
    if not folders and not files:
        raise DataError(folder, "the folder is empty", _UNDERSTOOD)
    if any(path.suffix.lower() in SUFFIXES for path in files):
        raise DataError(
            folder,
            "holds images, but no class folders",
            "put the images of each class into a folder of its own",
        )
    raise DataError(folder, "holds neither IDX files nor folders of images", _UNDERSTOOD)
