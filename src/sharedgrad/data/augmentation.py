"""Random changes of training images that leave their class as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sharedgrad.errors import ConfigError, ShapeError

_CROP = 4


@dataclass(frozen=True)
class Augmentation:
    """Horizontal flips and shifted crops, drawn anew for every image.

    Attributes:
        flip: Mirror an image left to right with probability one half.
        crop: Shift an image by up to this many pixels in each direction: surround it with so many zeros and
            cut the original size out at a random place (He et al. 2015, section 4.2, with 4 on 32×32).
    """

    flip: bool = True
    crop: int = _CROP

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ConfigError("crop", f"expected a number of pixels from 0 up, got {self.crop}")

    def __call__(self, images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """The images (N, C, H, W), changed; the array that was given stays as it is.

        Raises:
            ConfigError: ``crop`` could shift an image out of sight.
            ShapeError: The images have not four axes.
        """
        if images.ndim != 4:
            raise ShapeError(
                "augment", f"expected images (N, C, H, W), got shape {images.shape}", "add the missing axes"
            )
        if self.crop:
            images = self._shift(images, rng)
        if self.flip:
            mirrored = rng.random(len(images)) < 0.5
            images = np.where(mirrored[:, None, None, None], images[..., ::-1], images)
        return images

    def _shift(self, images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, _, height, width = images.shape
        if self.crop >= min(height, width):
            raise ConfigError(
                "crop",
                f"a shift by up to {self.crop} pixels can empty images of {height}×{width}",
                f"take crop={min(height, width) // 8 or 1}",
            )
        border = (self.crop, self.crop)
        padded = np.pad(images, ((0, 0), (0, 0), border, border))
        windows = sliding_window_view(padded, (height, width), axis=(2, 3))
        top, left = rng.integers(0, 2 * self.crop + 1, size=(2, n))
        return windows[np.arange(n), :, top, left]

    @classmethod
    def parse(cls, text: str) -> Augmentation | None:
        """Read the value of ``--augment``: "none", or "flip", "crop" or "crop=PIXELS" joined by commas."""
        if text.strip() == "none":
            return None
        flip, crop = False, 0
        for word in (part.strip() for part in text.split(",")):
            name, _, pixels = word.partition("=")
            if word == "flip":
                flip = True
            elif word == "crop":
                crop = _CROP
            elif name == "crop" and pixels.isascii() and pixels.isdigit() and 0 < len(pixels) < 6:
                crop = int(pixels)
            else:
                raise ConfigError(
                    "--augment",
                    f"{word!r} is not understood",
                    "give none, flip, crop, crop=PIXELS or flip,crop",
                )
        return cls(flip, crop)
