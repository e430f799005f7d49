"""Bring pixels to mean 0 and standard deviation 1 per channel, as measured on the training part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sharedgrad.data.capacity import chunks
from sharedgrad.errors import ConfigError, DataError, ShapeError
from sharedgrad.geometry import text


@dataclass(frozen=True)
class Normalization:
    """(x − mean) / std per channel; stored with the model, so that prediction sees what training saw.

    Attributes:
        mean: The mean of each channel of the training images.
        std: The standard deviation of each channel; 1 where the channel is constant.
        scale: What brings the pixels 0..255 of an image file to the range of the training images: 1 for uint8 images
            and for floats from 0 up to 128 or more of 255, 1/255 for floats within [0, 1], None for floats of any
            other range.

    Raises:
        ConfigError: Not one finite mean and one positive finite std per channel, or a senseless scale.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float | None = 1.0

    def __post_init__(self) -> None:
        positive = [*self.std, 1.0 if self.scale is None else self.scale]
        if not (
            0 < len(self.mean) == len(self.std)
            and all(math.isfinite(value) for value in (*self.mean, *positive))
            and all(value > 0 for value in positive)
        ):
            raise ConfigError(
                "normalization",
                "expected one finite mean and one positive std per channel, and a positive scale or none; "
                f"got mean {self.mean}, std {self.std}, scale {self.scale}",
                "take Normalization.of(training images)",
            )

    @classmethod
    def of(cls, x: NDArray[Any]) -> Normalization:
        """Measure the training images x (N, C, H, W), in float64.

        Raises:
            DataError: There are no pixels, or so large ones that their variance is not a finite number.
            ShapeError: It is another kind of array.
        """
        if x.ndim != 4:
            problem = f"expected images (N, C, H, W), got shape {x.shape}"
            raise ShapeError("normalization", problem, "bring them to four axes, e.g. x[:, None]")
        if not x.size:
            problem = f"expected at least one image, got an array of {text(x.shape)}"
            raise DataError("normalization", problem, "measure the training part")
        count = x.size // x.shape[1]
        lowest, highest = x.min(axis=(0, 2, 3)), x.max(axis=(0, 2, 3))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = sum(part.sum(axis=(0, 2, 3)) for part in _float64_chunks(x)) / count
            squares = ((part - _column(mean)) ** 2 for part in _float64_chunks(x))
            variance = sum(part.sum(axis=(0, 2, 3)) for part in squares) / count
        if not np.isfinite(variance).all():
            raise DataError("normalization", "the pixels are too large to normalize", "scale them down")
        # The variance of a constant channel may come out as a rounding error instead of 0.
        std = np.where((lowest == highest) | (variance == 0), 1.0, np.sqrt(variance))
        return cls(tuple(mean.tolist()), tuple(std.tolist()), _file_scale(x.dtype, lowest.min(), highest.max()))

    def __call__(self, x: NDArray[Any], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Normalize images (N, C, H, W) or one image (C, H, W) of the training range, as a new array."""
        if x.ndim not in (3, 4) or x.shape[-3] != len(self.mean):
            raise ShapeError(
                "normalization",
                f"expected images (N, {len(self.mean)}, H, W), got shape {x.shape}",
                "give images with the channels of the training part",
            )
        # float64 values may be too large, or too close together, for float32 before they are normalized.
        y = x.astype(np.result_type(x.dtype, dtype))
        y -= _column(self.mean).astype(y.dtype)
        y /= _column(self.std).astype(y.dtype)
        return y.astype(dtype, copy=False)

    def from_file(self, pixels: NDArray[np.uint8], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Normalize the pixels 0..255 of image files, as read by ``read_image``.

        Raises:
            DataError: The model was trained on floats whose relation to the pixels of a file is not known.
        """
        if self.scale is None:
            raise DataError(
                "normalization",
                "the model was trained on floats outside [0, 1] and [0, 255], unlike any image file",
                "train on uint8 images or on floats from 0 to 1 or 255",
            )
        return self(pixels if self.scale == 1 else pixels * self.scale, dtype)

    def to_config(self) -> dict[str, Any]:
        """The numbers as plain JSON values; they read back exactly."""
        return {"mean": list(self.mean), "std": list(self.std), "scale": self.scale}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Normalization:
        """The inverse of ``to_config``.

        Raises:
            ConfigError: An entry is missing or not a number.
        """
        try:
            mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
            scale = None if config["scale"] is None else float(config["scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                "normalization", f"expected mean and std (lists of numbers) and scale, got {config!r}"
            ) from error
        return cls(mean, std, scale)


def brightness(x: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation, over the images x (N, C, H, W), of the mean pixel of an image."""
    means = np.concatenate([chunk.mean(axis=(1, 2, 3)) for chunk in _float64_chunks(x)])
    return float(means.mean()), float(means.std())


def _float64_chunks(x: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    return (chunk.astype(np.float64) for chunk in chunks(x))


def _column(values: Any) -> NDArray[np.float64]:
    """One number per channel, in a shape that broadcasts against (N, C, H, W)."""
    return np.asarray(values, np.float64)[:, None, None]


def _file_scale(dtype: np.dtype[Any], lowest: float, highest: float) -> float | None:
    if dtype == np.uint8:
        return 1.0
    if lowest >= 0 and highest <= 1:
        return 1 / 255
    return 1.0 if lowest >= 0 and 128 <= highest <= 255 else None  # up to 16, say, is no range of a file
