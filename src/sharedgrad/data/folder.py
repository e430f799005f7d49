"""Read images that lie in one folder per class, with or without train/ and test/ above."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sharedgrad.data.collection import Images, Progress, read_images
from sharedgrad.data.dataset import Dataset
from sharedgrad.data.images import BACKGROUNDS, SUFFIXES, Size
from sharedgrad.data.labels import Indices
from sharedgrad.data.listing import listing
from sharedgrad.errors import DataError

# The names of a test part; the first that is there counts.
_TEST_NAMES = ("test", "val", "valid", "validation")


def holds_class_folders(folder: Path) -> bool:
    """Whether a folder, or one folder inside it, has subfolders with images."""
    return any(_images(outer) or any(_images(inner) for inner in listing(outer)[0]) for outer in listing(folder)[0])


def load_folder(
    folder: Path,
    size: Size | None,
    progress: Progress | None = None,
    background: str = "white",
    skip_bad: bool = False,
) -> Dataset:
    """Read the images of class folders: FOLDER/CLASS/*, or FOLDER/train/CLASS/* and FOLDER/test/CLASS/*.

    Classes are the training part's folders in natural order (1, 2, 10). The test part is the first of
    test/, val/, valid/ and validation/ that is there; upper and lower case are the same. Hidden files and
    files without an image's suffix are left out. Images are grey where all are grey, else RGB.

    Args:
        folder: The folder.
        size: The (height, width) to resize to; None where all images have one size.
        progress: Called now and then with the number of images done and the number of all.
        background: What transparent images are laid on: "white" or "black".
        skip_bad: Leave out files that cannot be read.

    Raises:
        DataError: Class folders without images, unreadable images, images of different sizes without
            ``size``, test classes unknown in training, or more pixels than memory.
    """
    train, test = _parts(folder)
    train_files = _class_files(train)
    test_files = _class_files(test) if test else {}
    classes = tuple(train_files)
    unknown = [name for name in test_files if name not in train_files]
    if unknown:
        raise DataError(
            test,
            f"class {unknown[0]!r} is no class of {train}",
            "give it training images or remove its folder",
        )
    train_paths, y = _flat(train_files, classes)
    test_paths, y_test = _flat(test_files, classes)
    images = read_images(train_paths + test_paths, size, progress, background, skip_bad)
    y, y_test = y[images.kept[: len(y)]], y_test[images.kept[len(y) :]]
    missing = np.setdiff1d(np.arange(len(classes)), y)
    if missing.size:
        raise DataError(train / classes[missing[0]], "none of its images can be read", "replace them")
    x, notes = images.x, tuple(_notes(images, background))
    if not test:
        return Dataset(str(folder), x, y, None, None, classes, notes)
    return Dataset(str(folder), x[: len(y)], y, x[len(y) :], y_test, classes, notes)


def _notes(images: Images, background: str) -> Iterator[str]:
    if images.transparent:
        others = " and ".join(name for name in BACKGROUNDS if name != background)
        count = f"{images.transparent:,} of {len(images.x):,} images are"
        yield f"{count} transparent: laid on {background} (--background {others} for the other)"
    if skipped := int((~images.kept).sum()):
        yield f"{skipped:,} of {len(images.kept):,} image files cannot be read and were left out"


def _parts(folder: Path) -> tuple[Path, Path | None]:
    """The folders that hold the class folders of the training and of the test part."""
    found = {path.name.lower(): path for path in listing(folder)[0]}
    train = found.get("train")
    # Cars, buses and trains have a class of that name; its folder holds images and lies beside other classes.
    if train is None or not (listing(train)[0] or found.keys() <= {"train", *_TEST_NAMES}):
        return folder, None
    return train, next((found[name] for name in _TEST_NAMES if name in found), None)


def _class_files(part: Path) -> dict[str, list[Path]]:
    folders, _ = listing(part)
    if not folders:
        raise DataError(part, "holds no class folders", "put the images of each class into a folder of its own")
    files = {folder.name: _images(folder) for folder in folders}
    empty = next((folder for folder in folders if not files[folder.name]), None)
    if empty:
        raise DataError(
            empty,
            f"the class folder holds no images ({' '.join(SUFFIXES)})",
            "add images or remove the folder",
        )
    return files


def image_files(folder: Path) -> Iterator[Path]:
    """The images in a folder and in the folders inside it, in natural order."""
    folders, files = listing(folder)
    yield from (path for path in files if path.suffix.lower() in SUFFIXES)
    for inner in folders:
        yield from image_files(inner)


def _images(folder: Path) -> list[Path]:
    return [path for path in listing(folder)[1] if path.suffix.lower() in SUFFIXES]


def _flat(files: dict[str, list[Path]], classes: tuple[str, ...]) -> tuple[list[Path], Indices]:
    paths = [path for name in classes for path in files.get(name, [])]
    y = np.repeat(np.arange(len(classes)), [len(files.get(name, [])) for name in classes])
    return paths, y.astype(np.int64)
