"""A labelled set of images, checked once when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sharedgrad.data.capacity import first_not_finite
from sharedgrad.errors import ConfigError, DataError
from sharedgrad.randomness import generator

_PIXEL_TYPES = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64))


class Part(NamedTuple):
    """Images x (N, C, H, W) and their class indices y (N,)."""

    x: NDArray[Any]
    y: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, with a test part where the source has one.

    Attributes:
        name: Where the data come from; errors begin with it.
        x: Training images (N, C, H, W): uint8 with pixels 0..255, or float32 or float64.
        y: Their classes (N,), int64 indices into ``classes``.
        x_test: Test images of the same (C, H, W), or None.
        y_test: Their classes, or None.
        classes: The names of the classes.
        notes: What a person should know of how they were read, a line each.

    Raises:
        DataError: Empty or mismatched parts, NaN or infinite pixels, labels out of range, test labels that
            the training part does not have, fewer than two classes.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64]
    x_test: NDArray[Any] | None
    y_test: NDArray[np.int64] | None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_classes(self.name, self.classes)
        _check_part(self.name, "training", self.x, self.y, len(self.classes))
        present = np.unique(self.y)
        if present.size < 2:
            raise DataError(
                self.name,
                f"all training samples are of one class ({self.classes[present[0]]!r}), expected two or more",
                "add samples of another class",
            )
        if (self.x_test is None) != (self.y_test is None):
            raise DataError(self.name, "test images and test labels must come together", "give both or none")
        if self.x_test is not None and self.y_test is not None:
            _check_part(self.name, "test", self.x_test, self.y_test, len(self.classes))
            self._check_test_fits(self.x_test, self.y_test)

    def _check_test_fits(self, x_test: NDArray[Any], y_test: NDArray[np.int64]) -> None:
        if x_test.shape[1:] != self.x.shape[1:]:
            raise DataError(
                self.name,
                f"test images have shape {x_test.shape[1:]}, training images {self.x.shape[1:]}",
                "bring both to one shape",
            )
        unknown = np.setdiff1d(y_test, self.y)
        if unknown.size:
            raise DataError(
                self.name,
                f"class {self.classes[unknown[0]]!r} has test samples but no training samples",
                "remove those test samples or add training samples",
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def split(self, val_fraction: float, seed: int) -> tuple[Part, Part]:
        """Divide the training part at random into one to train on and one held out, class by class.

        Args:
            val_fraction: The share of each class to hold out, between 0 and 1. At least one sample of each
                class stays in training.
            seed: The seed of the run.

        Raises:
            ConfigError: ``val_fraction`` is not between 0 and 1.
            DataError: The fraction is so small that nothing would be held out, or every class has one sample.
        """
        if not 0 < val_fraction < 1:
            raise ConfigError("val_fraction", f"expected a number between 0 and 1, got {val_fraction}")
        rng = generator(seed, "split")
        held_out = np.zeros(len(self.y), bool)
        for label in range(len(self.classes)):
            members = rng.permutation(np.flatnonzero(self.y == label))
            count = min(round(val_fraction * len(members)), len(members) - 1)
            held_out[members[:count]] = True
        if not held_out.any():
            raise DataError(
                self.name,
                f"a share of {val_fraction:g} of each class holds out none of the {len(self.y)} samples",
                "give a larger fraction or more samples of each class",
            )
        return Part(self.x[~held_out], self.y[~held_out]), Part(self.x[held_out], self.y[held_out])


def _check_classes(name: str, classes: tuple[str, ...]) -> None:
    if len(set(classes)) != len(classes):
        raise DataError(name, "two classes have the same name", "give each class its own name")
    try:
        "".join(classes).encode()
    except UnicodeEncodeError as error:
        raise DataError(name, "the name of a class is not valid text", "rename the class") from error


def _check_part(name: str, part: str, x: NDArray[Any], y: NDArray[np.int64], classes: int) -> None:
    """Check one part by itself: types, shapes, pixels and labels."""
    if x.dtype not in _PIXEL_TYPES:
        raise DataError(
            name,
            f"{part} images are {x.dtype}, expected uint8, float32 or float64",
            "convert them with astype",
        )
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise DataError(name, f"{part} images have shape {x.shape}, expected (N, C, H, W)", "reshape them")
    if y.dtype != np.int64 or y.ndim != 1:
        raise DataError(
            name,
            f"{part} labels are {y.dtype} of shape {y.shape}, expected int64 of shape (N,)",
            "convert them",
        )
    if len(x) != len(y):
        raise DataError(name, f"{len(x)} {part} images, but {len(y)} {part} labels", "give one label per image")
    if not len(x):
        raise DataError(name, f"the {part} part is empty", "add images to it")
    if y.min() < 0 or y.max() >= classes:
        wrong = int(y.min() if y.min() < 0 else y.max())
        raise DataError(
            name,
            f"the {part} label {wrong} is out of range, expected 0 to {classes - 1}",
            "mend the label or name the class",
        )
    if x.dtype != np.uint8:
        _check_finite(name, part, x)


def _check_finite(name: str, part: str, x: NDArray[Any]) -> None:
    wrong = first_not_finite(x)
    if wrong is not None:
        raise DataError(name, f"{part} image {wrong} has NaN or infinite pixels", "remove or mend such images")
